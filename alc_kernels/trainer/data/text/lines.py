"""Text files with one item per line, read so that every fault names its file and line.

Files are read in blocks, so that their size does not matter; a name that ends in ``.gz``, ``.zip``
or ``.zst`` is decompressed on the way.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alc_kernels.trainer.data.text.opening import find_encoding, read_blocks
from alc_kernels.trainer.errors import DataError
from alc_kernels.whole import whole_file

BLOCK = 1 << 20  # bytes read at once
BLOCK_LETTERS = 1 << 20  # without any line break in so many letters, none will come
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SWAPPED = str.maketrans("\r\n", "\n\r")


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


class TextInput:
    """A text file, decoded in blocks of whole lines; it can be read more than once.

    LF and CRLF end a line; in a file without any LF, CR does (as on a Mac of old).

    Args:
        path: the file.
        by_first: take CR as an end where it ends the first line, whatever follows.
        encoding: as Python names it; None finds it (:mod:`alc_kernels.trainer.data.text.opening`).
        name: of the file, for messages.

    Attributes:
        encoding: given or found.
        notes: what was assumed, one sentence each.
        ended: whether the last line of the last pass had its end.
    """

    def __init__(
        self,
        path: Path,
        encoding: str | None = None,
        name: str | None = None,
        *,
        by_first: bool = False,
    ) -> None:
        self.path, self.name, self.by_first = path, name or str(path), by_first
        self.notes: list[str] = []
        self.ended, self.asked = True, encoding is not None
        if encoding is None:
            encoding, note = find_encoding(self.name, lambda: _reads(path))
            self.notes += [note] if note else []
        self.encoding = encoding

    def blocks(self) -> Iterator[tuple[int, str]]:
        """(number of its first line, text) of blocks of whole lines, which end in LF.

        Only the very last line may lack its end.

        Raises:
            DataError: unreadable, or bytes that are not of the encoding, by line.
        """
        number, rest, only_cr, after_cr = 1, [""], None, False
        for text in self._decoded():
            if only_cr is None:  # decided by what comes first, by the first block at the latest
                text = "".join([*rest, text])
                rest = []
                if "\n" not in text and len(text) < BLOCK_LETTERS:
                    rest = [text]
                    continue
                only_cr = self._ends_in_cr(text)
            if only_cr:
                if after_cr:  # an LF that a block parted from its CR
                    text = text.removeprefix("\n")
                after_cr = text.endswith("\r")
                # An LF by itself is no line's end then, as CR is in a file of LF.
                text = text.replace("\r\n", "\r").translate(_SWAPPED)
            cut = text.rfind("\n") + 1
            if cut:
                block = "".join([*rest, text[:cut]])
                yield number, block
                number += block.count("\n")
                rest = []
            if cut < len(text):
                rest.append(text[cut:])
        last = "".join(rest)
        if only_cr is None and "\r" in last:
            last = last.replace("\r", "\n")
        self.ended = not last or last.endswith("\n")
        if last:
            yield number, last

    def lines(self) -> Iterator[tuple[int, str]]:
        """(number, line without its end) of every line."""
        for first, text in self.blocks():
            for number, line in enumerate(text.removesuffix("\n").split("\n"), first):
                yield number, line.removesuffix("\r")

    def _ends_in_cr(self, start: str) -> bool:
        at = start.find("\r")
        if at < 0 or (self.by_first and start.startswith("\r\n", at)):
            return False
        lf = start.find("\n")
        return lf < 0 or (self.by_first and at < lf)

    def _decoded(self) -> Iterator[str]:
        codec = "utf-8-sig" if self.encoding == "utf-8" else self.encoding
        decoder = codecs.getincrementaldecoder(codec)()
        lines = 1
        try:
            for block in _reads(self.path):
                text = decoder.decode(block)
                yield text
                lines += text.count("\n")
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            sound = error.object[: error.start].decode(error.encoding, "replace")
            found = error.object[error.start : error.start + 1].hex()
            raise DataError(
                f"{self.name}, line {lines + sound.count(chr(10))}: found byte 0x{found}, expected "
                f"{self.encoding.upper()} text{self._reads_as()}"
            ) from None
        except UnicodeError as error:  # of UTF-16 and UTF-32, as a whole
            reason = self._reads_as() or f" ({error})"
            raise DataError(f"{self.name}: is not {self.encoding.upper()}{reason}") from None

    def _reads_as(self) -> str:
        """A hint where the file has another encoding than the one that was asked for."""
        if not self.asked or self.encoding == "utf-8":  # which is what formats ask for
            return ""
        try:
            found, _ = find_encoding(self.name, lambda: _reads(self.path))
        except DataError:
            return ""
        if found == self.encoding:
            return ""
        return f" (it reads as {found.upper()}: leave out --encoding)"


def text_blocks(
    path: Path, *, allow_unended: bool = False, encoding: str | None = "utf-8"
) -> Iterator[tuple[int, str]]:
    """(number of its first line, text) of blocks of whole lines; see :func:`iter_lines`."""
    file = TextInput(path, encoding)
    for number, text in file.blocks():
        if not allow_unended and not text.endswith("\n"):
            raise DataError(
                f"{path}, line {number + text.count(chr(10))}: the last line does not end, "
                "expected a line break (truncated? if not, add it)"
            )
        yield number, text


def iter_lines(
    path: Path,
    *,
    what: str,
    allow_blank: bool = False,
    allow_empty: bool = False,
    allow_unended: bool = False,
    encoding: str | None = "utf-8",
) -> Iterator[str]:
    """The lines of a text file, without their ends, one at a time.

    Only LF and CRLF end a line, or CR in a file without LF: a title may hold any other separator
    character. The last line must be ended as well, which is how a truncated file is noticed.

    Args:
        path: the file.
        what: what it holds, for messages.
        allow_blank: admit lines of white space only.
        allow_empty: admit a file without any line.
        allow_unended: admit a last line without its end, where the format shows a cut anyway.
        encoding: of the file; None finds it.

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


@contextmanager
def line_writer(path: Path, *, allow_blank: bool = False) -> Iterator[Callable[[str], None]]:
    """A function that appends a line to a UTF-8 file; one that could not be read back raises.

    The file takes its name only when it is complete. The former file of that name, which may be
    mapped into memory, is replaced and not written over.

    Args:
        path: the file.
        allow_blank: admit lines of white space only.

    Raises:
        DataError: by line.
    """
    with whole_file(path) as partial, partial.open("wb") as file:
        count = 0

        def write(line: str) -> None:
            nonlocal count
            count += 1
            if "\n" in line or line.endswith("\r") or not (allow_blank or line.strip()):
                raise DataError(
                    f"{path}, line {count}: found {line[:40]!r}, expected a text without line "
                    "break that is not blank"
                )
            try:
                file.write(f"{line}\n".encode())
            except UnicodeEncodeError:
                raise DataError(
                    f"{path}, line {count}: found a lone surrogate, expected valid Unicode"
                ) from None

        yield write


def write_lines(path: Path, lines: Iterable[str], *, allow_blank: bool = False) -> None:
    """Write one item per line; an item that could not be read back raises."""
    with line_writer(path, allow_blank=allow_blank) as write:
        for line in lines:
            write(line)


def _reads(path: Path) -> Iterator[bytes]:
    return read_blocks(path, BLOCK)
