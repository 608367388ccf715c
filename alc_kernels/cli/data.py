"""``alc data``: make a data folder, from other layouts or generated, and look at it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alc_kernels.cli.arguments import number, refuse_data_folder
from alc_kernels.cli.data_convert import add_convert
from alc_kernels.trainer.errors import BadInput

if TYPE_CHECKING:
    from alc_kernels.trainer.data import Dataset
    from alc_kernels.trainer.data.inspect import Inspection

# ``alc data inspect``: what a data folder holds, as tables of plain text or as JSON.


SPLITS = ("train", "validation", "test")


def add_inspect(kinds: Any) -> None:
    parser = kinds.add_parser(
        "inspect",
        help="counts, label frequencies and problems of a data folder",
        description="Check a data folder and show what it holds.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(run=run_inspect)


def run_inspect(arguments: argparse.Namespace) -> None:
    from alc_kernels.trainer.data import load_dataset
    from alc_kernels.trainer.data.inspect import inspect_dataset

    data = load_dataset(arguments.folder)
    found = inspect_dataset(data)
    if arguments.json:
        print(json.dumps({"name": data.name, **found.to_json()}, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(data, found)))


def _lines(data: Dataset, found: Inspection) -> list[str]:
    counts = found.counts
    lines = [data.name]
    lines += [text for text in (data.description, data.protocol) if text]
    lines += ["", f"{counts['labels']:,} labels, {counts['held_out']:,} of them held out"]
    a, b = data.propensity
    lines += [f"PSP@k counts rare labels for more, with a = {a:g} and b = {b:g}", ""]
    rows = []
    for name in SPLITS:
        sizes = [counts[f"{name}{part}"] for part in ("", "_pairs", "_unmatched", "_excluded")]
        rows.append([name, *(f"{size:,}" for size in (*sizes, found.duplicates[name]))])
    lines += _table(
        ["split", "queries", "pairs", "without label", "excluded pairs", "duplicates"], rows
    )
    lines += ["", "Labels per query, and training queries per label"]
    rows = [[name, *map(_number, found.pairs_per_query[name].values())] for name in SPLITS]
    names = list(found.pairs_per_query["train"])
    rows.append(["label", *(_number(found.label_frequency[name]) for name in names)])
    lines += _table(["", *names], rows)
    lines += ["", *_frequency_lines(found.label_frequency, counts["labels"])]
    lines += ["", "Characters per text"]
    rows = [[name, *map(_number, found.characters[name].values())] for name in ("labels", *SPLITS)]
    lines += _table(["", *names], rows)
    if found.filters:
        lines += ["", "Filters"]
        rows = [
            [name, *(f"{part[key]:,}" for key in ("pairs", "queries", "largest"))]
            for name, part in found.filters.items()
        ]
        lines += _table(["split", "pairs", "queries", "most of a query"], rows)
    lines += ["", *_asked_lines(data, found)]
    lines += ["", f"Equal texts: {found.duplicates['labels']:,} labels repeat an earlier one"]
    lines += [
        f"  {name}: {count:,}"
        for name, count in found.duplicates.items()
        if name not in ("labels", *SPLITS)
    ]
    if remarks := [*found.small, *found.remarks]:
        lines += ["", "Worth knowing", *(f"  {remark}" for remark in remarks)]
    lines += ["", "Problems" if found.problems else "Problems: none"]
    return lines + [f"  {problem}" for problem in found.problems]


def _frequency_lines(frequency: Mapping[str, float], num_labels: int) -> list[str]:
    unseen, tail = int(frequency["unseen"]), int(frequency["tail"])
    return [
        f"unseen in training: {unseen:,} labels ({unseen / num_labels:.1%}); with one to five "
        f"queries: {tail:,} ({tail / num_labels:.1%})",
        *(f"{name} labels: {value:.1%}" for name, value in frequency.items() if "top" in name),
    ]


def _asked_lines(data: Dataset, found: Inspection) -> list[str]:
    """What the split asks, and what stands beside the texts."""
    lines = [
        f"labels asked for in {name} that have training queries: {sizes['trained']:,} of "
        f"{sizes['labels']:,}"
        for name, sizes in found.asked.items()
    ]
    split = data.train
    there = {
        "ids of labels": data.label_ids is not None,
        "ids of queries": split.ids is not None,
        "products of queries": split.groups is not None,
    }
    beside = [name for name, has in there.items() if has]
    beside += [] if split.columns is None else split.columns.names
    return lines + ([f"beside the texts: {', '.join(beside)}"] if beside else [])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns aligned: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "data",
        help="make or inspect a data folder",
        description="Make a data folder for alc train, or look at one.",
    )
    kinds = parser.add_subparsers(metavar="KIND", dest="kind")
    add_convert(kinds)
    add_inspect(kinds)

    pricerunner = kinds.add_parser(
        "pricerunner",
        help="from pricerunner_aggregate.csv",
        description="Read PriceRunner's offers (pricerunner_aggregate.csv) into a data folder.",
    )
    pricerunner.add_argument("csv", metavar="CSV", type=Path)
    pricerunner.set_defaults(run=run_pricerunner)

    generate = kinds.add_parser(
        "generate",
        help="generated product titles",
        description="Generate a catalogue of product titles into a data folder.",
    )
    generate.add_argument(
        "--labels", type=number(int, 20), default=6000, help="products (%(default)s)"
    )
    generate.add_argument(
        "--titles", type=number(int, 100), default=20000, help="offers (%(default)s)"
    )
    generate.add_argument("--seed", type=number(int, 0), default=0)
    generate.set_defaults(run=run_generate)

    for kind in (pricerunner, generate):
        kind.add_argument("--output", metavar="DIR", type=Path, required=True)
        kind.add_argument("--overwrite", action="store_true", help="write into a folder in use")
        kind.add_argument(
            "--keep-unmatched",
            action="store_true",
            help="keep training titles all of whose products are held out",
        )
    parser.set_defaults(run=_no_kind)


def _no_kind(arguments: argparse.Namespace) -> None:
    raise BadInput("what kind of data? alc data convert, inspect, pricerunner or generate")


def run_pricerunner(arguments: argparse.Namespace) -> None:
    from alc_kernels.trainer.data import read_pricerunner

    refuse_data_folder(arguments.output, arguments.overwrite)
    _save(read_pricerunner(arguments.csv, keep_unmatched=arguments.keep_unmatched), arguments)


def run_generate(arguments: argparse.Namespace) -> None:
    from alc_kernels.trainer.data import generate_catalogue

    refuse_data_folder(arguments.output, arguments.overwrite)
    dataset = generate_catalogue(
        arguments.labels,
        arguments.titles,
        seed=arguments.seed,
        keep_unmatched=arguments.keep_unmatched,
    )
    _save(dataset, arguments)


def _save(dataset: Dataset, arguments: argparse.Namespace) -> None:
    from alc_kernels.trainer.data import save_dataset
    from alc_kernels.trainer.report.summary import data_line

    save_dataset(dataset, arguments.output)
    print(data_line({"name": dataset.name, "counts": dataset.counts()}))
    print(f"Written: {arguments.output}")
