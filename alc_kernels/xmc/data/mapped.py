"""Files mapped into memory, of which only a bounded part stays there."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

KEPT = 1 << 26  # bytes: 64 MiB
NEAR = 1 << 17  # bytes that the system may map around one that is touched


class MappedFile:
    """A file's content as an array.

    What was touched counts as the process's memory until it is given back. The system would take
    it back when short of memory; this does so by itself, so that the process stays small to look
    at and where its memory is limited. The content remains in the system's file cache.

    Args:
        path: the file; it must not change while it is mapped.
        dtype: of the array.
        offset: bytes before it.

    Attributes:
        array: (n,) read-only, all of the file behind ``offset``.

    Raises:
        OSError: unreadable.
        ValueError: the file is empty, or holds a part of an element.
    """

    def __init__(self, path: Path, dtype: np.dtype, offset: int = 0) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        size = len(self._map) - offset
        if size < 0 or size % dtype.itemsize:
            raise ValueError(f"{path}: {size} bytes, expected a multiple of {dtype.itemsize}")
        self.array = np.frombuffer(self._map, dtype, size // dtype.itemsize, offset)
        self._touched = 0

    def touched(self, size: int) -> None:
        """Say that up to ``size`` bytes were just read; may give all pages back."""
        self._touched += size
        if self._touched >= KEPT and len(self._map) > KEPT and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0
