"""Text files with one item per line, read so that every fault names its file and line.

Files are read in blocks, so that their size does not matter; a name that ends in ``.gz`` is
decompressed on the way.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from alc_kernels.xmc.errors import DataError

BLOCK = 1 << 20  # bytes read at once
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_bytes(path: Path) -> bytes:
    """The file's bytes, or a :class:`DataError` that says why not."""
    return b"".join(_reads(path))


def decode(path: Path, raw: bytes, *, first_line: int = 1, encoding: str = "utf-8") -> str:
    """Text, a byte order mark of UTF-8 removed from line 1; a fault names the line."""
    if first_line == 1 and encoding == "utf-8":
        raw = raw.removeprefix(BYTE_ORDER_MARK)
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + first_line
        found = raw[error.start : error.start + 1].hex()
        raise DataError(
            f"{path}, line {line}: found byte 0x{found}, expected {encoding.upper()} text"
        ) from None


def line_blocks(path: Path) -> Iterator[bytes]:
    """The file's bytes in blocks of whole lines; only the very last line may lack its end."""
    rest: list[bytes] = []
    for block in _reads(path):
        cut = block.rfind(b"\n") + 1
        if cut:
            yield b"".join([*rest, block[:cut]])
            rest = []
        if cut < len(block):
            rest.append(block[cut:])
    if rest:
        yield b"".join(rest)


def text_blocks(
    path: Path, *, allow_unended: bool = False, encoding: str = "utf-8"
) -> Iterator[tuple[int, str]]:
    """(number of its first line, text) of blocks of whole lines; see :func:`iter_lines`."""
    number = 1
    for block in line_blocks(path):
        text = decode(path, block, first_line=number, encoding=encoding)
        if not text.endswith("\n") and text and not allow_unended:
            raise DataError(
                f"{path}, line {number + text.count(chr(10))}: the last line does not end, "
                "expected a line break (truncated? if not, add it)"
            )
        if text:
            yield number, text
        number += text.count("\n")


def iter_lines(
    path: Path,
    *,
    what: str,
    allow_blank: bool = False,
    allow_empty: bool = False,
    allow_unended: bool = False,
    encoding: str = "utf-8",
) -> Iterator[str]:
    """The lines of a text file, without their ends, one at a time.

    Only LF and CRLF end a line: a title may hold any other separator character. The last line
    must be ended as well, which is how a truncated file is noticed.

    Args:
        path: the file.
        what: what it holds, for messages.
        allow_blank: admit lines of white space only.
        allow_empty: admit a file without any line.
        allow_unended: admit a last line without its end, where the format shows a cut anyway.
        encoding: of the file.

    Raises:
        DataError: unreadable, truncated, not of that encoding, blank or empty; on reaching it.
    """
    empty = True
    for first, text in text_blocks(path, allow_unended=allow_unended, encoding=encoding):
        empty = False
        lines = text.removesuffix("\n").split("\n")
        for number, line in enumerate(lines, first):
            if not allow_blank and not line.strip():
                raise DataError(f"{path}, line {number}: found a blank line, expected {what}")
            yield line.removesuffix("\r")
    if empty and not allow_empty:
        raise DataError(f"{path}, line 1: the file is empty, expected {what}")


def read_lines(
    path: Path, *, what: str, allow_blank: bool = False, allow_empty: bool = False
) -> list[str]:
    """All of :func:`iter_lines`, for small files."""
    return list(iter_lines(path, what=what, allow_blank=allow_blank, allow_empty=allow_empty))


class LineWriter:
    """A UTF-8 file with one text per line, which takes its name only when it is complete.

    A context manager. The former file of that name, which may be mapped into memory, is replaced
    and not written over.

    Args:
        path: the file.
        allow_blank: admit lines of white space only.
    """

    def __init__(self, path: Path, *, allow_blank: bool = False) -> None:
        self.path, self.allow_blank, self.count = path, allow_blank, 0
        self._part = path.with_name(path.name + ".part")
        self._file: IO[bytes] | None = None

    def __enter__(self) -> LineWriter:
        self._file = self._part.open("wb")
        return self

    def write(self, line: str) -> None:
        """Append a line; one that could not be read back raises :class:`DataError`."""
        assert self._file is not None
        self.count += 1
        if "\n" in line or line.endswith("\r") or not (self.allow_blank or line.strip()):
            raise DataError(
                f"{self.path}, line {self.count}: found {line[:40]!r}, expected a text without "
                "line break that is not blank"
            )
        try:
            self._file.write(f"{line}\n".encode())
        except UnicodeEncodeError:
            raise DataError(
                f"{self.path}, line {self.count}: found a lone surrogate, expected valid Unicode"
            ) from None

    def __exit__(self, kind: object, *rest: object) -> None:
        assert self._file is not None
        self._file.close()
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write one item per line; an item that could not be read back raises."""
    with LineWriter(path) as file:
        for line in lines:
            file.write(line)


def _reads(path: Path) -> Iterator[bytes]:
    """Blocks of the decompressed file; faults of the file system become :class:`DataError`."""
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            while block := file.read(BLOCK):
                yield block
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected it in the data set") from None
    except EOFError:
        raise DataError(f"{path}: the compressed file ends early (truncated?)") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: not a sound gzip file ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
