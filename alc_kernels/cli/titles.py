"""Titles from a file or from standard input, one at a time, and matches into a file."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from alc_kernels.cli.arguments import suggestion
from alc_kernels.cli.errors import BadInput
from alc_kernels.xmc.evaluation.matching import Match

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


class Writer(Protocol):
    """Takes one match after the other."""

    def __call__(self, match: Match) -> None: ...


@contextmanager
def match_writer(output: Path | None, kind: str) -> Iterator[Writer]:
    """Writes matches as ``kind``, csv or jsonl, into ``output`` or on standard output.

    A file takes its name when it is complete; what was cut short leaves none.
    """
    if output is None:
        yield _writer(sys.stdout, kind)
        return
    partial = output.with_name(output.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            yield _writer(file, kind)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def _writer(file: IO[str], kind: str) -> Writer:
    if kind == "jsonl":

        def write_object(match: Match) -> None:
            score = None if match.score is None else round(match.score, 6)
            made = {**match._asdict(), "score": score}
            file.write(json.dumps(made, ensure_ascii=False) + "\n")

        return write_object
    rows, started = csv.writer(file, lineterminator="\n"), False

    def write_row(match: Match) -> None:
        nonlocal started
        if not started:  # not before the first title could be read
            rows.writerow(Match._fields)
            started = True
        score = "" if match.score is None else f"{match.score:.6f}"
        rows.writerow([match.query, match.rank, match.label, score, match.decision])

    return write_row
