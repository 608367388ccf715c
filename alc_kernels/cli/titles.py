"""Titles from a file or from standard input, one at a time."""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from alc_kernels.cli.arguments import suggestion
from alc_kernels.cli.errors import BadInput

STDIN = "-"
TABLES = {".csv": ",", ".tsv": "\t"}


def read_titles(source: str, column: str | None = None) -> Iterator[str]:
    """The titles of ``source``: one per line, or one per row of a table.

    Args:
        source: a file, perhaps compressed (.gz), or ``-`` for standard input. UTF-8.
        column: the table's column that holds the titles; None: there is one title per line.

    Raises:
        BadInput: unreadable, not UTF-8, a table without that column or with an uneven row; names
            file and line.
    """
    name = "standard input" if source == STDIN else source
    suffix = Path(source.removesuffix(".gz")).suffix.lower()
    with _open(source) as file:
        lines = _lines(file, name)
        if column is None and suffix not in TABLES:
            for line in lines:
                yield line.rstrip("\r\n")
        else:
            yield from _column(lines, name, column, TABLES.get(suffix, ","))


def _lines(file: IO[bytes], name: str) -> Iterator[str]:
    """Decoded lines with their ends; only LF ends one."""
    number = 0
    try:
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            yield raw.decode("utf-8")
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        raise BadInput(
            f"{name}, line {number}: found byte 0x{found:02x}, expected UTF-8 text"
        ) from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise BadInput(f"{name}, after line {number}: not a sound gzip file ({error})") from None


def _column(lines: Iterator[str], name: str, column: str | None, delimiter: str) -> Iterator[str]:
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(rows, None)
        if header is None:
            raise BadInput(f"{name}, line 1: the file is empty, expected a header")
        if column is None:
            raise BadInput(
                f"{name}: is a table, --column names the column of the titles: {', '.join(header)}"
            )
        if header.count(column) != 1:
            raise BadInput(
                f"{name}, line 1: found {header.count(column)} columns {column!r} among "
                f"{', '.join(header)}, expected one{suggestion(column, header)}"
            )
        place = header.index(column)
        for row in rows:
            if row and len(row) != len(header):
                raise BadInput(
                    f"{name}, line {rows.line_num}: found {len(row)} fields, expected the "
                    f"{len(header)} of the header"
                )
            yield row[place] if row else ""
    except csv.Error as error:
        raise BadInput(f"{name}, line {rows.line_num}: {error}") from None


@contextmanager
def _open(source: str) -> Iterator[IO[bytes]]:
    if source == STDIN:
        yield sys.stdin.buffer
    elif source.endswith(".gz"):
        with gzip.open(source) as file:
            yield file  # type: ignore[misc]
    else:
        with open(source, "rb") as plain:
            yield plain
