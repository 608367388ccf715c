"""``alc compare``: runs side by side, seeds averaged, differences paired."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alc_kernels.cli.matching.outputs import PAGES, check_ending, check_place
from alc_kernels.trainer.errors import BadInput

if TYPE_CHECKING:
    from alc_kernels.trainer.data import Dataset
    from alc_kernels.trainer.evaluation import Scored

NAME = "compare"


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        NAME,
        help="compare runs on the same data",
        description="Say which of several runs on the same data to ship, with which threshold, "
        "and why. Runs that differ in their seed only form a group and are averaged; every group "
        "is compared to the first one.",
    )
    parser.add_argument("run_folders", metavar="RUN", nargs="+", type=Path)
    parser.add_argument("--output", metavar="PAGE", type=Path, help="also write an HTML page")
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="the runs' data, for examples (default: where they were, if they are still there)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from alc_kernels.trainer.evaluation import Group, decide, group_runs, load_scored
    from alc_kernels.trainer.evaluation.results import load_baseline
    from alc_kernels.trainer.finish import require_matplotlib
    from alc_kernels.trainer.report.decision import comparison_text

    folders = arguments.run_folders
    seen: dict[Path, Path] = {}
    for folder in folders:
        if folder.resolve() in seen:
            raise BadInput(f"{folder}: given twice")
        seen[folder.resolve()] = folder
    if arguments.output is not None:
        require_matplotlib()
        check_place(arguments.output, [*folders, *([arguments.data] if arguments.data else [])])
        check_ending(arguments.output, PAGES)
    runs = [load_scored(folder) for folder in folders]
    groups = group_runs(runs)
    baselines = (load_baseline(folder, runs[0].fingerprint) for folder in folders)
    yardstick = next((made for made in baselines if made is not None), None)
    shown = groups
    if yardstick is not None:
        shown = [Group(yardstick.name, [yardstick], reference=True), *groups]
    dataset, missing = texts_of(runs[0], arguments.data)

    text = comparison_text(decide(shown), shown, dataset, missing)
    if arguments.output is None:
        print(text)
        return
    from alc_kernels.trainer.report.build import Report
    from alc_kernels.whole import write_whole

    names = " and ".join(group.name for group in groups)
    title = f"Comparison of {names}" if len(groups) < 4 else "Comparison of runs"
    report = Report(title, shown, dataset, missing)
    # Before the text is printed: `alc compare ... | head` gets its page as well.
    write_whole(arguments.output, report.html())
    print(f"{text}\n\nWritten: {arguments.output}")


def texts_of(run: Scored, folder: Path | None) -> tuple[Dataset | None, str]:
    """The data that ``run`` was scored on, or None and why there are none.

    Args:
        run: knows its data's fingerprint, and the folder that they were in.
        folder: of ``--data``; it must fit. The recorded one is used where it still does.

    Raises:
        BadInput: ``folder`` holds other data.
        DataError: ``folder`` cannot be read.
    """
    from alc_kernels.trainer.data import load_dataset
    from alc_kernels.trainer.errors import DataError
    from alc_kernels.trainer.evaluation import data_fingerprint

    if folder is not None:
        dataset = load_dataset(folder)
        if data_fingerprint(dataset) != run.fingerprint:
            raise BadInput(f"{folder}: is not the data that {run.name} was scored on")
        return dataset, ""
    recorded = run.data.get("folder")
    if recorded is None:
        return None, "The run does not know the folder of its data: --data DIR names it."
    try:
        dataset = load_dataset(recorded)
    except DataError as error:
        return None, f"The data folder of the run cannot be read ({error}); --data DIR names it."
    if data_fingerprint(dataset) != run.fingerprint:
        return None, f"{recorded} has changed since the run; --data DIR names its data."
    return dataset, ""
