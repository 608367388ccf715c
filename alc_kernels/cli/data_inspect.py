"""``alc data inspect``: what a data folder holds, as tables of plain text or as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alc_kernels.xmc.data import Dataset
    from alc_kernels.xmc.data.inspect import Inspection

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
    from alc_kernels.xmc.data import load_dataset
    from alc_kernels.xmc.data.inspect import inspect_dataset

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
    rows = [[name, *map(_short, found.pairs_per_query[name].values())] for name in SPLITS]
    names = list(found.pairs_per_query["train"])
    rows.append(["label", *(_short(found.label_frequency[name]) for name in names)])
    lines += _table(["", *names], rows)
    lines += ["", *_frequency_lines(found.label_frequency, counts["labels"])]
    lines += ["", "Characters per text"]
    rows = [[name, *map(_short, found.characters[name].values())] for name in ("labels", *SPLITS)]
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


def _short(value: float) -> str:
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
