"""The bytes of a file in blocks, decompressed on the way where its name says so."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from alc_kernels.xmc.errors import DataError

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
    try:
        import zstandard
    except ImportError:
        raise DataError(
            f"{path}: a .zst file needs the package zstandard: pip install 'alc-kernels[tables]'"
        ) from None
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
