"""Several readers of one table at a time: none disturbs another, no note is lost or doubled."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alc_kernels.trainer.data.convert import convert
from alc_kernels.trainer.data.shapes import PairOptions, find_pairs
from alc_kernels.trainer.data.tables import Table, open_table

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

COUNT = 9000  # more than a batch
COLUMNS = {
    "query": [f"title {i}" if i % 9 else f" title  {i}" for i in range(COUNT)],
    "size": [float(i) for i in range(COUNT)],
    "id": [f"q{i}" for i in range(COUNT)],
}
LINES = [list(row) for row in zip(*COLUMNS.values(), strict=True)]


def text_table(path: Path) -> Path:
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        csv.writer(file).writerows([list(COLUMNS), *LINES[:50], ["", "", ""], *LINES[50:]])
    return path


def json_lines(path: Path) -> Path:
    made = [dict(zip(COLUMNS, row, strict=True)) for row in LINES]
    del made[7]["id"]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in made))
    return path


def sheet(path: Path) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook(write_only=True)
    page = book.create_sheet("Offers")
    for row in [list(COLUMNS), *LINES[:50], [], *LINES[50:]]:
        page.append(row)
    book.save(path)
    return path


def parts(path: Path, at: int = 8500) -> Path:
    path.mkdir()
    made = pa.table(COLUMNS)
    pq.write_table(made.slice(0, at), path / "part-0.parquet")
    pq.write_table(made.slice(at), path / "part-1.parquet")
    return path


def one_file(path: Path) -> Path:
    pq.write_table(pa.table(COLUMNS), path)
    return path


KINDS: dict[str, Callable[[Path], Any]] = {
    "csv": lambda folder: text_table(folder / "t.csv"),
    "csv.gz": lambda folder: text_table(folder / "t.csv.gz"),
    "jsonl": lambda folder: json_lines(folder / "t.jsonl"),
    "xlsx": lambda folder: sheet(folder / "t.xlsx"),
    "parquet": lambda folder: one_file(folder / "t.parquet"),
    "parts": lambda folder: parts(folder / "t"),
    "arrow": lambda folder: pa.table(COLUMNS),
    "pandas": lambda folder: pytest.importorskip("pandas").DataFrame(COLUMNS),
    "polars": lambda folder: pytest.importorskip("polars").DataFrame(COLUMNS),
}


def one_pass(table: Table, *names: str) -> tuple[list[tuple[int, list[str]]], list[str]]:
    rows = list(table.rows([table.find(name, "") for name in names]))
    return rows, table.notes


@pytest.mark.parametrize("kind", KINDS)
def test_two_readers_of_one_table(kind: str, tmp_path: Path) -> None:
    source = KINDS[kind](tmp_path)
    table = open_table(source)
    first, _ = one_pass(table, "id", "query")
    second, notes = one_pass(table, "query", "size")
    assert len(first) >= COUNT and notes

    table = open_table(source)
    # The second is started in the middle of the first, and ends after it.
    one, two = (table.rows([table.find(n, "") for n in names])
                for names in (("id", "query"), ("query", "size")))  # fmt: skip
    begun = [next(one) for _ in range(100)]
    both = list(zip(one, two))  # noqa: B905
    assert begun + [row for row, _ in both] == first
    assert [row for _, row in both] + list(two) == second
    assert table.notes == notes
    assert one_pass(table, "query", "size") == (second, notes)


@pytest.mark.parametrize("at", [3, 8500])
def test_parts_of_parquet_with_ids_and_further_columns(at: int, tmp_path: Path) -> None:
    found = find_pairs(
        parts(tmp_path / "offers", at),
        PairOptions(label_column="size", query_id_column="id", keep_columns=("size",)),
    )
    data = convert(found, tmp_path / "data").dataset
    seen = {}
    for split in data.splits.values():
        assert split.ids is not None and split.columns is not None
        for text, name, record in zip(split.queries, split.ids, split.columns, strict=True):
            seen[name] = (text, record)
    assert seen == {f"q{i}": (f"title {i}", {"size": str(i)}) for i in range(COUNT)}
