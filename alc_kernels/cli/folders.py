"""Where commands write, and what they must not write over."""

from __future__ import annotations

import shutil
from pathlib import Path

from alc_kernels.cli.errors import BadInput

CHECKPOINT = "checkpoint"


def run_files() -> tuple[str, ...]:
    """The files of a run, its checkpoint apart."""
    from alc_kernels.xmc.evaluation.run import BASELINE, CONFIG, METRICS, PREDICTIONS, REPORT

    return (CONFIG, METRICS, PREDICTIONS, BASELINE, REPORT)


def holds_run(folder: Path) -> bool:
    """Whether ``folder`` holds anything that a run leaves behind."""
    return any((folder / name).exists() for name in (*run_files(), CHECKPOINT))


def prepare_run_folder(folder: Path, overwrite: bool) -> None:
    """Make ``folder`` ready for a new run; with ``overwrite`` an old run in it is removed.

    Raises:
        BadInput: ``folder`` is a file, or holds a run and ``overwrite`` is not given.
    """
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: is a file, expected a folder for the run")
    if holds_run(folder):
        if not overwrite:
            raise BadInput(
                f"{folder}: already holds a run; choose another --output or give --overwrite"
            )
        for name in run_files():
            (folder / name).unlink(missing_ok=True)
        if (folder / CHECKPOINT).is_dir():
            shutil.rmtree(folder / CHECKPOINT)
    folder.mkdir(parents=True, exist_ok=True)


def prepare_data_folder(folder: Path, overwrite: bool) -> None:
    """Refuse to write a data set into a folder that holds something, unless told to."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: is a file, expected a folder for the data")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise BadInput(f"{folder}: is not empty; choose another --output or give --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
