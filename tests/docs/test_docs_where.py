"""The tables of docs/losses.md and docs/moved.md that say where things are: it is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLUMNS = ("part", "formula", "rows", "Triton", "C++", "test", "figure")
DASH = "\N{EN DASH}"
ENTRY = re.compile(r"`([^`]+)`")


def table() -> list[dict[str, str]]:
    """The rows below the heading, by column."""
    text = (ROOT / "docs/losses.md").read_text(encoding="utf-8")
    section = text.split("## Where each part is", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == list(COLUMNS), cells[0]
    return [dict(zip(COLUMNS, row, strict=True)) for row in cells[2:]]


def problems(column: str, cell: str, root: Path = ROOT) -> list[str]:
    """What a cell names that is not there: `FILE NAME`, `FILE WORK` for a figure, or a dash."""
    if cell == DASH:
        return []
    entries = ENTRY.findall(cell)
    found = [] if entries else [f"{cell!r}: expected `FILE NAME` or a dash"]
    for entry in entries:
        place, _, name = entry.partition(" ")
        path = root / place
        if not path.is_file():
            found.append(f"{place}: no such file")
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            there = name in {row["work"] for row in json.loads(text)["rows"]}
        elif path.suffix == ".py":
            there = re.search(rf"^\s*(?:def|class) {re.escape(name)}\b", text, re.M) is not None
        else:
            there = re.search(rf"\b{re.escape(name)}\b\s*[(<{{]", text) is not None
        if not name or not there:
            found.append(f"{place}: no {name or 'name given'}")
    return found


def test_every_loss_has_a_row() -> None:
    parts = " ".join(row["part"] for row in table())
    for name in ("Triplet", "DynamicTriplet", "Softmax", "Sigmoid", "ThresholdMargin", "pair part",
                 "batch part", "exclude_above", "Matryoshka", "hardest negatives"):  # fmt: skip
        assert name in parts, name


@pytest.mark.parametrize("row", table(), ids=lambda row: re.sub(r"\W+", "-", row["part"]))
def test_what_is_named_exists(row: dict[str, str]) -> None:
    assert row["formula"] != DASH and row["test"] != DASH, "each has a formula and a test"
    assert [p for column in COLUMNS[1:] for p in problems(column, row[column])] == []


@pytest.mark.parametrize(
    "cell",
    ["", "softmax_value", "`alc_kernels/nowhere.py f`", "`alc_kernels/positives.py`",
     "`alc_kernels/positives.py not_there`", "`benchmarks/results/cpu-small.json nothing`"],
)  # fmt: skip
def test_wrong_cells_are_found(cell: str) -> None:
    assert problems("formula", cell)


def test_moved_modules_are_where_the_page_says() -> None:
    text = (ROOT / "docs/moved.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 200
    for was, now in rows:
        for name in ENTRY.findall(now):
            place = ROOT / "alc_kernels" / name.replace(".", "/")
            there = place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()
            assert there or name == "page.jinja", f"{was}: {name}"
