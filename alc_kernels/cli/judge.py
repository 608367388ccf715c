"""``alc compare``: runs side by side, seeds averaged, differences paired."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alc_kernels.cli.arguments import PAGES, check_ending, check_place, number, one_of
from alc_kernels.trainer.config import ACCEPTANCE_KINDS
from alc_kernels.trainer.errors import BadInput

if TYPE_CHECKING:
    from alc_kernels.trainer.data import Dataset
    from alc_kernels.trainer.evaluation import Group, Scored

CATEGORIES = 30  # shown at most, the largest

# ``alc evaluate``: what is certified on validation, and what it gives.


def add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="what may be accepted at a precision, certified, and what that gives on test",
        description="Print from which score matches may be accepted at a precision: certified on "
        "validation, for the run's cosine and its acceptance model and for TF-IDF with and without "
        "one, and what each gives on test. Works from the run's predictions; the data are not "
        "needed.",
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder of alc train")
    parser.add_argument(
        "--precision",
        type=number(float, 0.01, 0.9999),
        action="append",
        help="precision wanted, may be repeated (default: .9 and .95)",
    )
    cost = number(float, 1e-9, 1e12)
    parser.add_argument(
        "--cost-wrong", type=cost, help="what an accepted match that is wrong costs; with ..."
    )
    parser.add_argument(
        "--cost-review",
        type=cost,
        help="... what a look by a person costs: also the threshold of least expected cost",
    )
    parser.add_argument(
        "--category",
        metavar="COLUMN",
        help="also a certificate for each value of a further column of the titles; needs the data "
        "where they were, or --data",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="score the checkpoint again on this data and fit its acceptance model again: the "
        "run's figures, certificates and report become those of DIR; several processes of torchrun "
        "share the work",
    )
    parser.add_argument(
        "--label-shards",
        type=number(int, 1),
        help="with --data: parts in which labels are ranked, as for alc train",
    )
    parser.add_argument(
        "--acceptance",
        type=one_of(ACCEPTANCE_KINDS),
        help=f"with --data: {', '.join(ACCEPTANCE_KINDS)}, as for alc train",
    )
    parser.set_defaults(run=run_evaluate)


def run_evaluate(arguments: argparse.Namespace) -> None:
    if (arguments.cost_wrong is None) != (arguments.cost_review is None):
        raise BadInput("--cost-wrong and --cost-review: expected both or neither")
    if arguments.data is not None:
        _score_again(arguments)
        return
    for option in ("label_shards", "acceptance"):
        if getattr(arguments, option) is not None:
            raise BadInput(f"--{option.replace('_', '-')} has no effect without --data DIR")
    _print_certificates(arguments)


def _print_certificates(arguments: argparse.Namespace) -> None:
    from alc_kernels.trainer.evaluation import (
        PRECISIONS,
        Group,
        best_group,
        decision_rules,
        load_scored,
    )
    from alc_kernels.trainer.evaluation.results import load_baseline
    from alc_kernels.trainer.report.certificates import (
        acceptance_notes,
        certificate_lines,
        certificate_table,
        leading,
    )
    from alc_kernels.trainer.report.summary import data_line

    folder = arguments.run_folder
    scored = load_scored(folder)
    precisions = tuple(sorted(set(arguments.precision or PRECISIONS)))
    baseline = load_baseline(folder, scored)
    groups = [] if baseline is None else [Group(baseline.name, [baseline], reference=True)]
    groups = decision_rules([*groups, Group(scored.name, [scored])])
    best = best_group(groups)
    print(f"{folder}, {data_line(scored.data)}")
    print("\n".join(acceptance_notes(groups)))
    print(f"\nBest on validation: {best.name}{', no training' if best.reference else ''}")
    for line in certificate_lines(leading(best)["validation"], precisions):
        print(f"  {line}")
    print(f"\n{certificate_table(groups, precisions).text()}")
    if arguments.cost_wrong is not None:
        _print_costs(groups, arguments.cost_wrong, arguments.cost_review)
    if arguments.category is not None:
        _print_categories(arguments, scored, best, precisions)


def _print_costs(groups: list[Group], wrong: float, review: float) -> None:
    """The threshold of least cost of every rule, the cheapest on validation first."""
    from alc_kernels.trainer.evaluation.certificates import least_cost
    from alc_kernels.trainer.report.certificates import cost_lines, leading

    found = [(group, least_cost(leading(group)["validation"], wrong, review)) for group in groups]
    print("\nLeast expected cost, chosen on validation (no promise about precision)")
    for group, least in sorted(found, key=lambda one: one[1].cost):
        print("\n".join(cost_lines(group.name, leading(group), least)))


def _print_categories(
    arguments: argparse.Namespace, scored: Scored, best: Group, precisions: tuple[float, ...]
) -> None:
    """A certificate for each value of a column, for the best rule."""
    from alc_kernels.trainer.evaluation.certificates import certify_categories
    from alc_kernels.trainer.evaluation.matching import find_data
    from alc_kernels.trainer.report.certificates import category_table, leading

    dataset, missing = find_data(scored, arguments.data)
    if dataset is None:
        raise BadInput(f"--category needs the data. {missing}")
    names = {}
    for split in ("validation", "test"):
        columns = dataset.splits[split].columns
        known = () if columns is None else columns.names
        if columns is None or arguments.category not in known:
            raise BadInput(
                f"--category {arguments.category}: the {split} titles have no such column"
                + (f"; they have {', '.join(known)}" if known else "; they have none")
            )
        names[split] = [row[arguments.category] for row in columns]
    for precision in precisions:
        found = certify_categories(leading(best)["validation"], names["validation"], precision)
        shown = dict(list(found.items())[:CATEGORIES])
        print(f"\n{arguments.category}, at {100 * precision:.10g} %, {best.name}")
        print(category_table(shown, leading(best)["test"], names["test"]).text())
        if len(found) > len(shown):
            print(f"  and {len(found) - len(shown):,} smaller ones")


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
    if arguments.acceptance is not None:
        config = config.replace(acceptance=arguments.acceptance)
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
            _print_certificates(arguments)
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
        f"the figures, the certificates and the report of {run}, which were of "
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
    from alc_kernels.trainer.evaluation import (
        Group,
        decide,
        decision_rules,
        group_runs,
        load_scored,
    )
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
    shown = decision_rules(shown)
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
