"""Arrays in files: mapped into memory where they are small, read piece by piece where not."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np

MAPPED = 1 << 26  # bytes: files of up to 64 MiB are read through the mapping


class MappedFile:
    """A file's content as an array that need not fit into memory.

    A page that is touched through a mapping counts as the process's memory, and the system maps
    up to megabytes around it: random rows of a large file soon hold all of it. So those are read
    at their positions instead, some microseconds each, out of the same file cache.

    Args:
        path: the file; it must not change while it is open.
        dtype: of the array.
        offset: bytes before it.

    Attributes:
        array: (n,) read-only, all of the file behind ``offset``, mapped.

    Raises:
        OSError: unreadable.
        ValueError: the file is empty, or holds a part of an element.
    """

    def __init__(self, path: Path, dtype: np.dtype, offset: int = 0) -> None:
        file = path.open("rb")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        size = len(mapped) - offset
        if size < 0 or size % dtype.itemsize:
            file.close()
            raise ValueError(f"{path}: {size} bytes, expected a multiple of {dtype.itemsize}")
        self.array = np.frombuffer(mapped, dtype, size // dtype.itemsize, offset)
        self._path, self._offset = path, offset
        self._file = file if size > MAPPED and hasattr(os, "preadv") else None
        if self._file is None:
            file.close()

    def read(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """``array[start:start + length]`` of every pair (both (n,) int64), one after the other."""
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        if self._file is None:
            at = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
            return self.array[at]
        made = np.empty(total, self.array.dtype)
        size, descriptor = made.itemsize, self._file.fileno()
        view = made.view(np.uint8).data
        places = (starts * size + self._offset).tolist()
        bounds = (ends * size).tolist()
        begin = 0
        for place, end in zip(places, bounds, strict=True):
            if end > begin:
                got = os.preadv(descriptor, [view[begin:end]], place)
                if got != end - begin:
                    raise OSError(f"{self._path}: became shorter while it was read")
            begin = end
        return made
