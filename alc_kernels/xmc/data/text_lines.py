"""Text files with one item per line, read so that every fault names its file and line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alc_kernels.xmc.errors import DataError


def read_bytes(path: Path) -> bytes:
    """The file's bytes, or a :class:`DataError` that says why not."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected it in the data set") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def decode(path: Path, raw: bytes) -> str:
    """UTF-8 text, a byte order mark removed; a fault names the line."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        found = raw[error.start : error.start + 1].hex()
        raise DataError(f"{path}, line {line}: found byte 0x{found}, expected UTF-8 text") from None


def read_lines(
    path: Path, *, what: str, allow_blank: bool = False, allow_empty: bool = False
) -> list[str]:
    """The lines of a UTF-8 file, without their ends.

    Only LF and CRLF end a line: a title may hold any other separator character. The last line
    must be ended as well, which is how a truncated file is noticed.

    Args:
        path: the file.
        what: what it holds, for messages.
        allow_blank: admit lines of white space only.
        allow_empty: admit a file without any line.
    """
    text = decode(path, read_bytes(path))
    if not text:
        if allow_empty:
            return []
        raise DataError(f"{path}, line 1: the file is empty, expected {what}")
    lines = text.split("\n")
    if lines[-1]:
        raise DataError(
            f"{path}, line {len(lines)}: the last line does not end, expected a line break "
            "(the file is truncated?)"
        )
    del lines[-1]
    lines = [line[:-1] if line.endswith("\r") else line for line in lines]
    if not allow_blank:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                raise DataError(f"{path}, line {number}: found a blank line, expected {what}")
    return lines


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write one item per line; an item that could not be read back raises."""
    for number, line in enumerate(lines, 1):
        if "\n" in line or line.endswith("\r") or not line.strip():
            raise DataError(
                f"{path}, line {number}: found {line[:40]!r}, expected a text without line break "
                "that is not blank"
            )
    try:
        raw = "".join(f"{line}\n" for line in lines).encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{path}: a text holds a lone surrogate, expected valid Unicode") from None
    path.write_bytes(raw)
