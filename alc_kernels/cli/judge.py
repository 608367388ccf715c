"""``alc compare``: runs side by side, seeds averaged, differences paired."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alc_kernels.cli.arguments import PAGES, check_ending, check_place, number
from alc_kernels.trainer.errors import BadInput

if TYPE_CHECKING:
    from alc_kernels.trainer.data import Dataset

# ``alc evaluate``: the threshold for a precision, chosen on validation, and what it gives.


def add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="the threshold to ship for a precision, and what it gives on test",
        description="Print the threshold that reaches a precision on validation, and what it "
        "gives on test: shares with their intervals, and counts. Works from the run's "
        "predictions; the data are not needed.",
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder of alc train")
    parser.add_argument(
        "--precision",
        type=number(float, 0.01, 0.9999),
        action="append",
        help="precision wanted, may be repeated (default: .9 and .95)",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="score the checkpoint again on this data: the run's figures, threshold and report "
        "become those of DIR; several processes of torchrun share the work",
    )
    parser.add_argument(
        "--label-shards",
        type=number(int, 1),
        help="with --data: parts in which labels are ranked, as for alc train",
    )
    parser.set_defaults(run=run_evaluate)


def run_evaluate(arguments: argparse.Namespace) -> None:
    if arguments.data is None:
        if arguments.label_shards is not None:
            raise BadInput("--label-shards has no effect without --data DIR")
        _print_thresholds(arguments)
    else:
        _score_again(arguments)


def _print_thresholds(arguments: argparse.Namespace) -> None:
    from alc_kernels.trainer.evaluation import PRECISIONS, figures, load_scored
    from alc_kernels.trainer.report.summary import data_line, precision_table

    folder = arguments.run_folder
    scored = load_scored(folder)
    precisions = tuple(sorted(set(arguments.precision or PRECISIONS)))
    print(f"{folder}, {data_line(scored.data)}")
    measured = figures(scored.predictions, precisions)
    print(precision_table(measured, scored.predictions, precisions).text())


def _score_again(arguments: argparse.Namespace) -> None:
    from alc_kernels.trainer.data import load_dataset
    from alc_kernels.trainer.evaluation.matching import Renumbered, numbers_for
    from alc_kernels.trainer.finish import evaluate_and_report, usable_device
    from alc_kernels.trainer.parallel import join
    from alc_kernels.trainer.training.batch_loss import find_device
    from alc_kernels.trainer.training.checkpoint import checkpoint_folder, load_checkpoint

    checkpoint = load_checkpoint(checkpoint_folder(arguments.run_folder))
    config = checkpoint.config
    if arguments.label_shards is not None:
        config = config.replace(label_shards=arguments.label_shards)
    device = usable_device(config)
    with join(device, config.process_timeout) as processes:
        dataset = load_dataset(arguments.data)
        change = _change(arguments, dataset) if processes.is_main else ""
        if change:
            print(f"This replaces {change}", file=sys.stderr, flush=True)
        numbers = numbers_for(checkpoint, dataset)
        model = checkpoint.model.to(find_device(device, processes)).eval()
        evaluate_and_report(
            model if numbers is None else Renumbered(model, numbers),
            config,
            dataset,
            arguments.run_folder,
            history=checkpoint.position.history,
            training_seconds=checkpoint.position.seconds,
            processes=processes,
        )
        if processes.is_main:
            _print_thresholds(arguments)
            if change:
                print(f"\nReplaced: {change}")


def _change(arguments: argparse.Namespace, dataset: Dataset) -> str:
    """What scoring on ``dataset`` takes the place of, and the way back; "" for the same data."""
    from alc_kernels.trainer.evaluation import data_fingerprint, load_scored
    from alc_kernels.trainer.evaluation.results import RunError

    run = arguments.run_folder
    try:
        before = load_scored(run)
    except RunError:
        return ""  # not scored yet
    if before.fingerprint == data_fingerprint(dataset):
        return ""
    where = before.data.get("folder")
    return (
        f"the figures, the threshold and the report of {run}, which were of "
        f"{where or before.data.get('name', 'other data')}, by those of {arguments.data}; "
        f"back with: alc evaluate {run} --data {where or 'DIR'}"
    )


def add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare",
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
    parser.set_defaults(run=run_compare)


def run_compare(arguments: argparse.Namespace) -> None:
    from alc_kernels.trainer.evaluation import Group, decide, group_runs, load_scored
    from alc_kernels.trainer.evaluation.matching import find_data
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
    baselines = (load_baseline(folder, runs[0]) for folder in folders)
    yardstick = next((made for made in baselines if made is not None), None)
    shown = groups
    if yardstick is not None:
        shown = [Group(yardstick.name, [yardstick], reference=True), *groups]
    dataset, missing = find_data(runs[0], arguments.data)

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
