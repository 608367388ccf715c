"""Which encoding a text file has, by fixed rules: equal bytes give equal answers.

A byte order mark decides; else zero bytes at every other place show UTF-16; else all of the file
is UTF-8; else it is cp1252, unless it is UTF-8 in the main and damaged, or holds a byte that
cp1252 does not have.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable
from itertools import chain

from alc_kernels.xmc.errors import DataError

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SAMPLE = 4096
# A byte that is not UTF-8, as errors="surrogateescape" shows it; and a letter beyond ASCII.
_BAD, _GOOD = re.compile("[\udc80-\udcff]"), re.compile("[^\x00-\x7f\udc80-\udcff]")
_NOT_CP1252 = re.compile("[\udc81\udc8d\udc8f\udc90\udc9d]")


def check_encoding(name: str) -> str:
    """The name in Python's spelling.

    Raises:
        ValueError: Python has no text encoding of that name.
    """
    try:
        found = codecs.lookup(name)
        "".encode(found.name)
    except LookupError:
        raise ValueError(f"{name!r} is no text encoding that Python knows") from None
    return "utf-8" if found.name == "utf-8-sig" else found.name


def find_encoding(name: str, read: Callable[[], Iterable[bytes]]) -> tuple[str, str]:
    """The encoding of a whole file, and a sentence where it was assumed, else "".

    Args:
        name: of the file, for messages.
        read: its bytes in blocks, from the start; read again where they are not UTF-8.

    Raises:
        DataError: file and line of a byte that fits none.
    """
    start = b""
    for block in read():
        start += block
        if len(start) >= SAMPLE:
            break
    if found := _by_start(start):
        return _with_note(name, found, start)
    strict = codecs.getincrementaldecoder("utf-8")()
    try:
        for block in read():
            strict.decode(block)
        strict.decode(b"", final=True)
    except UnicodeDecodeError:
        return _without_utf8(name, read())
    return "utf-8", ""


def _without_utf8(name: str, blocks: Iterable[bytes]) -> tuple[str, str]:
    """The same for a file that is not UTF-8 all through."""
    good = bad = lines = 0
    first_bad = strange = (0, 0)  # line and byte
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for block in chain(blocks, (b"",)):
        text = decoder.decode(block, final=not block)
        good += len(_GOOD.findall(text))
        bad += len(_BAD.findall(text))
        if not first_bad[0] and (at := _BAD.search(text)):
            first_bad = (lines + text.count("\n", 0, at.start()) + 1, ord(at[0]) - 0xDC00)
        if not strange[0] and (at := _NOT_CP1252.search(text)):
            strange = (lines + text.count("\n", 0, at.start()) + 1, ord(at[0]) - 0xDC00)
        lines += text.count("\n")
    if good >= bad:
        raise DataError(
            f"{name}, line {first_bad[0]}: found byte 0x{first_bad[1]:02x}, expected UTF-8 text as "
            "in the rest of it (damaged? --encoding names another)"
        )
    if strange[0]:
        raise DataError(
            f"{name}, line {strange[0]}: found byte 0x{strange[1]:02x}, which neither UTF-8 nor "
            "cp1252 has there (--encoding names the encoding)"
        )
    return "cp1252", (
        f"{name}: is not UTF-8, read as cp1252, Western European Windows (--encoding names another)"
    )


def _by_start(start: bytes) -> str:
    for mark, encoding in MARKS:
        if start.startswith(mark):
            return encoding
    sample = start[: SAMPLE & ~1]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    few, many = sorted((even, odd))
    if many * 4 > len(sample) // 2 and few * 10 <= many:
        return "utf-16-le" if odd == many else "utf-16-be"
    return ""


def _with_note(name: str, encoding: str, start: bytes) -> tuple[str, str]:
    marked = any(start.startswith(mark) for mark, _ in MARKS)
    shown = "UTF-16" if encoding.startswith("utf-16") else encoding.upper()
    if encoding == "utf-8":
        return encoding, ""
    how = "by its byte order mark" if marked else "by its zero bytes"
    return encoding, f"{name}: read as {shown}, {how}"
