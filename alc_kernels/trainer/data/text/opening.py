"""The bytes of a file in blocks, decompressed on the way where its name says so."""

from __future__ import annotations

import codecs
import gzip
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from alc_kernels.trainer.errors import DataError, needs

COMPRESSED = (".gz", ".zip", ".zst")
# What a compressed file begins with, whatever its name says.
MAGIC = {b"\x1f\x8b": ".gz", b"PK\x03\x04": ".zip", b"\x28\xb5\x2f\xfd": ".zst"}


def plain_name(path: Path) -> str:
    """The file's name in small letters, without the ending of a compression.

    A ``.zip`` that does not say what it holds has the name of its member.
    """
    name = path.name.lower()
    for ending in COMPRESSED:
        if name.endswith(ending):
            name = name.removesuffix(ending)
            if ending == ".zip" and "." not in name and path.is_file():
                return _member(path).filename.rpartition("/")[2].lower()
    return name


def read_blocks(path: Path, size: int) -> Iterator[bytes]:
    """Blocks of the decompressed file, of about ``size`` bytes.

    Raises:
        DataError: missing, unreadable, damaged or cut short, or an archive of several files.
    """
    name = path.name.lower()
    try:
        if name.endswith(".gz"):
            yield from _gzip(path, size)
        elif name.endswith(".zip"):
            yield from _zip(path, size)
        elif name.endswith(".zst"):
            yield from _zstandard(path, size)
        else:
            with path.open("rb") as file:
                while block := file.read(size):
                    yield block
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected it there") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _gzip(path: Path, size: int) -> Iterator[bytes]:
    try:
        with gzip.open(path) as file:
            while block := file.read(size):
                yield block
    except EOFError:
        raise DataError(f"{path}: not a sound gzip file, it ends early (truncated?)") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: not a sound gzip file ({error})") from None


def _member(path: Path) -> zipfile.ZipInfo:
    """The one file of an archive; folders and what macOS adds do not count."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [
                member
                for member in archive.infolist()
                if not member.is_dir() and not member.filename.startswith("__MACOSX/")
            ]
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: not a sound zip file ({error})") from None
    if len(members) != 1:
        names = ", ".join(member.filename for member in members[:6]) or "nothing"
        more = " ..." if len(members) > 6 else ""
        raise DataError(
            f"{path}: holds {len(members)} files ({names}{more}), expected one; unpack it"
        )
    return members[0]


def _zip(path: Path, size: int) -> Iterator[bytes]:
    member = _member(path)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            while block := file.read(size):
                yield block
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        reason = str(error) or "it ends early"
        raise DataError(f"{path}: not a sound zip file ({reason})") from None
    except (RuntimeError, NotImplementedError) as error:  # a password; an unknown method
        raise DataError(f"{path}: cannot be unpacked ({error})") from None


def _zstandard(path: Path, size: int) -> Iterator[bytes]:
    with needs(f"{path}: a .zst file", "zstandard", "tables", DataError):
        import zstandard
    # stream_reader() ends quietly where a file was cut; an object per frame knows its end.
    unpack = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = None
    try:
        with path.open("rb") as file:
            while block := file.read(size >> 3 or 1):
                while block:
                    frame = frame or unpack.decompressobj()
                    if made := frame.decompress(block):
                        yield made
                    block = frame.unused_data if frame.eof else b""
                    if frame.eof:
                        frame = None
    except zstandard.ZstdError as error:
        raise DataError(f"{path}: not a sound zstandard file ({error})") from None
    if frame is not None:
        raise DataError(f"{path}: not a sound zstandard file, it ends early (truncated?)")


# Which encoding a text file has, by fixed rules: equal bytes give equal answers.
#
# A byte order mark decides; else zero bytes at every other place show UTF-16; else all of the file
# is UTF-8; else it is cp1252, unless it is UTF-8 in the main and damaged, or holds a byte that
# cp1252 does not have.


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
