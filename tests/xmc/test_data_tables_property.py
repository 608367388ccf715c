"""A table with hostile but valid cells, written in every shape, reads back the same rows."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alc_kernels.trainer.data.tables import TableOptions, normalize_text, open_table
from alc_kernels.trainer.errors import DataError

HOSTILE = [",", ";", "\t", "|", '"', '""', "'", "\n", "\r", "\r\n", " ", "\u2028", "\x85", "\u00a0",
           "ä", "電", "🧺", "\\", "=1+1", "0012", "1e5", "NULL", "nan", "None", "true", "#", "-",
           "a", "b", "\ufeff", "\u200b", "e\u0301", "2024-01-02", "<&>", "{}", "[1]"]  # fmt: skip
TEXT = st.lists(st.sampled_from(HOSTILE), max_size=6).map("".join)
# A row number keeps a row of empty cells from being none.
ROWS = st.lists(st.tuples(TEXT, TEXT), max_size=8)
OPTIONS = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
HEADER = ["id", "title", "other"]


def numbered(rows: list[tuple[str, str]]) -> list[list[str]]:
    return [[str(i), *row] for i, row in enumerate(rows)]


def check(source: Any, rows: list[list[str]], options: TableOptions | None = None) -> None:
    table = open_table(source, options)
    places = [table.find(name, "-") for name in HEADER]
    wanted = [[normalize_text(cell) for cell in row] for row in rows]
    for _ in range(2):  # as often as one likes
        assert [row for _, row in table.rows(places)] == wanted
    assert [row for _, row in table.rows([1])] == [[row[1]] for row in wanted]


def delimited(rows: list[list[str]], delimiter: str, end: str, quoting: Any) -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([HEADER, *rows])
    return file.getvalue()


@settings(OPTIONS, max_examples=200)
@given(
    rows=ROWS,
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    every=st.booleans(),
)
def test_text(
    tmp_path: Path,
    rows: list[tuple[str, str]],
    delimiter: str,
    end: str,
    encoding: str,
    every: bool,
) -> None:
    made = numbered(rows)
    text = delimited(made, delimiter, end, csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL)
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode(encoding))
    check(path, made, TableOptions(quoting=True))
    try:
        check(path, made)
    except DataError as error:  # never other rows: refused, with the option that helps
        assert not every and "--quoting" in str(error)


@OPTIONS
@given(rows=ROWS, pack=st.sampled_from(["gz", "zip", "zst"]))
def test_json_lines_and_compression(tmp_path: Path, rows: list[tuple[str, str]], pack: str) -> None:
    made = numbered(rows) or [["0", "a", "b"]]
    lines = [json.dumps(dict(zip(HEADER, row, strict=True)), ensure_ascii=i % 2 == 0) for i, row in
             enumerate(made)]  # fmt: skip
    raw = "\n".join(lines).encode()
    path = tmp_path / f"t.jsonl.{pack}"
    if pack == "gz":
        path.write_bytes(gzip.compress(raw))
    elif pack == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("t.jsonl", raw)
    else:
        zstandard = pytest.importorskip("zstandard")
        path.write_bytes(zstandard.ZstdCompressor().compress(raw))
    check(path, made)


@OPTIONS
@given(rows=ROWS)
def test_parquet_and_frames(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")
    from pyarrow import parquet

    made = numbered(rows)
    columns = [pa.array([row[i] for row in made], pa.string()) for i in range(3)]
    table = pa.table(columns, HEADER)
    parquet.write_table(table, tmp_path / "t.parquet")
    check(tmp_path / "t.parquet", made)
    check(table, made)
    check(table.to_pandas(), made)


@OPTIONS
@given(rows=ROWS)
def test_spreadsheets(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    made = numbered(rows)
    book = openpyxl.Workbook()
    for number, row in enumerate([HEADER, *made], 1):
        for column, text in enumerate(row, 1):
            cell = book.active.cell(number, column)
            cell.value = text
            cell.data_type = "s"  # =1+1 is a text here, as after an apostrophe
    book.save(tmp_path / "t.xlsx")
    check(tmp_path / "t.xlsx", made)
