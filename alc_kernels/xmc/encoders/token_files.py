"""Ids and offsets of tokenised texts in memory-mapped files, written once.

    CACHE/KEY/ids.npy        (nnz,) of the smallest integer type that holds them
    CACHE/KEY/offsets.npy    (n + 1,) int64

KEY is a digest of the tokenisation's settings and of the texts, so that a change of either makes
new files. A folder takes its name only when it is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from alc_kernels.xmc.data.text.texts import MappedFile
from alc_kernels.xmc.errors import DataError

Chunk = tuple[np.ndarray, np.ndarray]  # ids, and the number of ids of each text


def open_tokens(folder: Path, count: int) -> tuple[MappedFile, np.ndarray] | None:
    """Ids, mapped, and offsets of ``count`` texts; None where they are missing or damaged."""
    try:
        offsets = np.load(folder / "offsets.npy")
        with (folder / "ids.npy").open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
        ids = MappedFile(folder / "ids.npy", dtype, start)
    except (OSError, EOFError, ValueError):  # no such file; an empty or truncated one; no .npy
        return None
    if offsets.shape != (count + 1,) or not ids.array.shape == shape == (int(offsets[-1]),):
        return None
    return ids, offsets


def write_tokens(folder: Path, chunks: Iterable[Chunk], dtype: np.dtype) -> None:
    """Write the ids and lengths of texts, chunk by chunk.

    Raises:
        DataError: the folder cannot be written (no space, no permission).
    """
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    try:
        part.mkdir(parents=True, exist_ok=True)
        ids_file, offsets_file = (part / "ids.npy").open("wb"), (part / "offsets.npy").open("wb")
        with ids_file, offsets_file:
            _header(ids_file, 0, dtype)
            _header(offsets_file, 0, np.dtype(np.int64))
            num_ids, num_texts = 0, 0
            np.zeros(1, np.int64).tofile(offsets_file)
            for ids, lengths in chunks:
                ids.astype(dtype, copy=False).tofile(ids_file)
                (num_ids + np.cumsum(lengths, dtype=np.int64)).tofile(offsets_file)
                num_ids += len(ids)
                num_texts += len(lengths)
            _header(ids_file, num_ids, dtype)
            _header(offsets_file, num_texts + 1, np.dtype(np.int64))
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        part.rename(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _header(file: IO[bytes], count: int, dtype: np.dtype) -> None:
    """Write the header of a one-dimensional array at the file's start.

    NumPy leaves room in it for the length to grow, so a later one takes the same bytes.
    """
    file.seek(0)
    about = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, about)
    file.flush()
