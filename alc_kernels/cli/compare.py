"""``alc compare``: runs side by side, seeds averaged, differences paired."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from alc_kernels.cli.errors import BadInput

NAME = "compare"


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        NAME,
        help="compare runs on the same data",
        description="Compare runs on the same data. Runs that differ in their seed only form a "
        "group and are averaged; every group is compared to the first one.",
    )
    parser.add_argument("run_folders", metavar="RUN", nargs="+", type=Path)
    parser.add_argument("--output", metavar="PAGE", type=Path, help="also write an HTML page")
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="the runs' data, for examples on the page"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from alc_kernels.xmc.data import load_dataset
    from alc_kernels.xmc.evaluation import (
        Group,
        best_group,
        data_fingerprint,
        group_runs,
        load_scored,
    )
    from alc_kernels.xmc.evaluation.run import load_baseline
    from alc_kernels.xmc.report.summary import comparison_text, settings_table

    folders = arguments.run_folders
    seen: dict[Path, Path] = {}
    for folder in folders:
        if folder.resolve() in seen:
            raise BadInput(f"{folder}: given twice")
        seen[folder.resolve()] = folder
    if arguments.output is not None:
        check_page_path(arguments.output)
    runs = [load_scored(folder) for folder in folders]
    groups = group_runs(runs)
    baselines = (load_baseline(folder, runs[0].fingerprint) for folder in folders)
    yardstick = next((made for made in baselines if made is not None), None)
    shown = groups
    if yardstick is not None:
        shown = [Group(yardstick.name, [yardstick], reference=True), *groups]

    dataset = None
    if arguments.data is not None:
        dataset = load_dataset(arguments.data)
        if data_fingerprint(dataset) != runs[0].fingerprint:
            raise BadInput(f"{arguments.data}: is not the data that the runs were scored on")

    print(comparison_text(shown))
    differing = settings_table(groups)
    if differing is not None:
        print(f"\nSettings that differ\n{differing.text()}")
    if arguments.output is not None:
        from alc_kernels.cli.finish import require_matplotlib
        from alc_kernels.xmc.report.build import Report

        require_matplotlib()
        names = " and ".join(group.name for group in groups)
        title = f"Comparison of {names}" if len(groups) < 4 else "Comparison of runs"
        report = Report(title, shown, best_group(groups), dataset)
        arguments.output.write_text(report.html(), encoding="utf-8")
        print(f"\nWritten: {arguments.output}")


def check_page_path(page: Path) -> None:
    """Refuse a page that cannot be written, before the work is done."""
    if page.is_dir():
        raise BadInput(f"{page}: is a folder, expected the name of a page")
    if not page.parent.is_dir():
        raise BadInput(f"{page.parent}: no such folder to write {page.name} into")
