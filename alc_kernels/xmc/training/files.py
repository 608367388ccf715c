"""Folders written whole or not at all, and files that are known by their checksum."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from alc_kernels.xmc.errors import CheckpointError


@contextmanager
def replacing(folder: Path, previous: Path) -> Iterator[Path]:
    """A new folder to fill, which then becomes ``folder``; the old one becomes ``previous``.

    Whenever the process is killed, ``folder`` or else ``previous`` is whole: files reach the disk
    before the folder is renamed, and only whole folders are renamed to either.
    """
    sweep(folder)
    new, old = (folder.parent / f".{folder.name}.{os.getpid()}.{end}" for end in ("new", "old"))
    new.mkdir(parents=True)
    try:
        yield new
        for path in sorted(new.rglob("*")):
            flush(path)
        flush(new)
        if folder.exists():
            if previous.exists():
                previous.rename(old)  # in one go: a half-deleted folder must not be found there
            folder.rename(previous)
        new.rename(folder)
        flush(folder.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process left of :func:`replacing` beside ``folder``."""
    for stray in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(stray, ignore_errors=True)


def flush(path: Path) -> None:
    """Make a file's content, or a folder's list of names, reach the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in ``folder``, by its path with forward slashes."""
    return {
        path.relative_to(folder).as_posix(): checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def checksum(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        CheckpointError: not such a file, or a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not a readable safetensors file ({reason})") from None


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file."""
    from safetensors.torch import save_file

    # Cloned because models may share weights between names, which the format refuses.
    save_file({key: value.detach().contiguous().clone() for key, value in tensors.items()}, path)
