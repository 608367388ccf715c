"""The data set folder: plain text files that other tools of the field can read."""

from __future__ import annotations

from pathlib import Path

from alc_kernels.xmc.data.dataset import Dataset


def load_dataset(folder: str | Path) -> Dataset:
    """Read a folder written by :func:`save_dataset`, or by hand in the same layout.

    Raises:
        DataError: anything missing or malformed; one line with file, line, found, expected.
    """
    raise NotImplementedError


def save_dataset(dataset: Dataset, folder: str | Path) -> None:
    """Write ``dataset`` into ``folder`` (created if missing; existing files are replaced)."""
    raise NotImplementedError
