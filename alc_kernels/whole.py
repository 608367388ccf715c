"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 200  # characters of the name that the partial file's name repeats


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The name of a file to fill, which becomes ``path`` when the block ends without an error.

    After an error or Ctrl-C ``path`` is as it was, and nothing is left beside it. A link stays
    one, the file that it names is replaced. What is no file, a pipe or a device, is written to as
    it is. Folders that are missing on the way to ``path`` are made.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    target = path.resolve()
    partial = target.with_name(f".{target.name[:LONGEST]}.{os.getpid()}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        descriptor = os.open(partial, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name and the place of ``folder`` when it is complete."""
    target = folder.resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        if target.is_dir():
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` into ``path`` as UTF-8 with the line ends that it has, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_bytes(text.encode("utf-8"))
