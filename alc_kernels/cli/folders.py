"""Where commands write, and what they must not write over."""

from __future__ import annotations

import shutil
from pathlib import Path

from alc_kernels.cli.errors import BadInput


def run_contents() -> tuple[str, ...]:
    """The names of all that a run leaves behind."""
    from alc_kernels.xmc.evaluation.run import BASELINE, CONFIG, METRICS, PREDICTIONS, REPORT
    from alc_kernels.xmc.training.board import FOLDER
    from alc_kernels.xmc.training.checkpoint import CURRENT, PREVIOUS

    return (CONFIG, METRICS, PREDICTIONS, BASELINE, REPORT, CURRENT, PREVIOUS, FOLDER)


def holds_run(folder: Path) -> bool:
    """Whether ``folder`` holds anything that a run leaves behind."""
    return any((folder / name).exists() for name in run_contents())


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
        for name in run_contents():
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def refuse_data_folder(folder: Path, overwrite: bool) -> None:
    """Refuse to write a data set into a folder that holds something, unless told to."""
    from alc_kernels.xmc.data.folder import in_use

    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: is a file, expected a folder for the data")
    if in_use(folder) and not overwrite:
        raise BadInput(f"{folder}: is not empty; choose another --output or give --overwrite")
