"""Rows of a CSV or Parquet file, a few columns of them, one at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alc_kernels.xmc.data.text_lines import text_blocks
from alc_kernels.xmc.errors import DataError

Row = tuple[int, list[str]]  # its number, and its cells in the order of the columns asked for

CSV_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
PARQUET_ENDINGS = (".parquet", ".pq")


def unit_of(path: Path) -> str:
    """What the numbers of rows count: ``"line"`` of a CSV file, ``"row"`` of a Parquet file."""
    return "row" if path.name.endswith(PARQUET_ENDINGS) else "line"


def columns_of(path: Path) -> list[str]:
    """The names of the columns.

    Raises:
        DataError: unreadable, of no known kind, or pyarrow is missing.
    """
    if path.name.endswith(PARQUET_ENDINGS):
        return list(_parquet(path).schema_arrow.names)
    if not path.name.endswith(CSV_ENDINGS):
        known = ", ".join((*CSV_ENDINGS, *PARQUET_ENDINGS))
        raise DataError(f"{path}: expected a file that ends in one of {known}")
    for _, cells in _csv_rows(path):
        return cells
    raise DataError(f"{path}, line 1: the file is empty, expected a header with column names")


def rows_of(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The rows below the header; an absent value of Parquet is an empty text.

    Raises:
        DataError: a row of another length, a column that holds no text, a file cut short.
    """
    names = columns_of(path)
    at = [names.index(column) for column in columns]
    if path.name.endswith(PARQUET_ENDINGS):
        yield from _parquet_rows(path, columns)
        return
    rows = _csv_rows(path)
    next(rows)
    for number, cells in rows:
        if len(cells) != len(names):
            raise DataError(
                f"{path}, line {number}: found {len(cells)} columns, expected {len(names)} "
                f"({', '.join(names)})"
            )
        yield number, [cells[i] for i in at]


def _csv_rows(path: Path) -> Iterator[Row]:
    """(number of its last line, cells) of every row, the header included."""
    # Spreadsheets and scripts often leave the last line without its end; a row that was cut has
    # too few cells, or an open quote.
    blocks = text_blocks(path, allow_unended=True)
    lines = (f"{line}\n" for _, text in blocks for line in text.removesuffix("\n").split("\n"))
    delimiter = "\t" if ".tsv" in path.name else ","
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}, expected rows of one format"
        ) from None


def _parquet(path: Path) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DataError(
            f"{path}: a Parquet file needs the package pyarrow: pip install 'alc-kernels[parquet]'"
        ) from None
    try:
        return ParquetFile(path, memory_map=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected a Parquet file") from None
    except (ArrowException, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a sound Parquet file ({reason})") from None


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    from pyarrow import ArrowException, types

    file = _parquet(path)
    for column in columns:
        kind = file.schema_arrow.field(column).type
        if types.is_dictionary(kind):
            kind = kind.value_type
        if not (types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind)):
            raise DataError(f"{path}: column {column!r} holds {kind}, expected text")
    number = 0
    try:
        for batch in file.iter_batches(batch_size=8192, columns=list(columns)):
            cells = [batch.column(column).to_pylist() for column in columns]
            for row in zip(*cells, strict=True):
                number += 1
                yield number, [value or "" for value in row]
    except (ArrowException, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}, row {number + 1}: cannot be read ({reason})") from None
