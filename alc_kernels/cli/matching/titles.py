"""Titles to match, one at a time, each with what stands beside it in its table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from alc_kernels.cli.matching.catalogue import text_column
from alc_kernels.cli.matching.tables import add_table_options, table_options
from alc_kernels.trainer.data.tables import (
    STDIN,
    Changes,
    LinesTable,
    Table,
    is_table,
    open_table,
)
from alc_kernels.trainer.data.tables.table import TableOptions
from alc_kernels.trainer.errors import BadInput

QUERY = "query"  # the column of the titles, where there are several and none is named
ALL = "all"


class Title(NamedTuple):
    """A title as it is matched, and as the file has it.

    Attributes:
        text: normalised, as training texts are.
        given: as it stands in the file.
        id: as it stands there, empty where there is none.
        kept: the cells of the columns that are kept, likewise.
        codes: product codes, in the order of ``Titles.kinds``.
    """

    text: str
    given: str
    id: str = ""
    kept: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()


def add_title_options(parser: argparse.ArgumentParser) -> None:
    """Add FILE, ``--column``, ``--query-id-column``, ``--keep-columns`` and how tables are read."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a text file with one title per line, or a table; - reads standard input",
    )
    parser.add_argument(
        "--column",
        "--query-column",
        metavar="NAME",
        help="the table's column of titles (its only one, or the one named query)",
    )
    parser.add_argument(
        "--query-id-column", metavar="NAME", help="the column of the titles' ids, for the output"
    )
    parser.add_argument(
        "--keep-columns",
        metavar="NAMES|all",
        action="append",
        default=[],
        help="further columns for the output, a comma between",
    )
    parser.add_argument(
        "--code-columns",
        metavar="NAMES",
        type=_code_columns,
        default=(),
        help="columns of product codes that FILE and the --catalogue table both have, a comma "
        "between: gtin, ean, upc and isbn with their check digit, others as part numbers; an "
        "equal code decides first",
    )
    add_table_options(parser)


GTINS = ("gtin", "ean", "upc", "isbn")


def _code_columns(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def kind_of(column: str) -> str:
    """Which kind of product code a column holds, by its name."""
    name = column.casefold().rstrip("0123456789-_ ")
    return "gtin" if name in GTINS else column


class Titles:
    """The titles of a file; once through.

    Args:
        arguments: of :func:`add_title_options`.

    Attributes:
        has_ids: whether the titles have ids.
        kept: names of the columns that are kept.
        kinds: of the product codes.

    Raises:
        BadInput: no such file, a table of several columns and none named, options for a table
            where there is none.
        DataError: unreadable, or no such column; while reading also by line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.source, self.options = arguments.file, table_options(arguments)
        self.has_ids = arguments.query_id_column is not None
        self.kept: tuple[str, ...] = ()
        self.codes: tuple[str, ...] = arguments.code_columns
        if self.codes and arguments.catalogue is None:
            raise BadInput("--code-columns needs --catalogue FILE, which has the same columns")
        if self.source != STDIN and not Path(self.source).exists():
            raise BadInput(f"{self.source}: no such file")
        beside = {"--query-id-column": self.has_ids, "--keep-columns": any(arguments.keep_columns),
                  "--code-columns": bool(self.codes)}  # fmt: skip
        wanted = [option for option, given in beside.items() if given]
        by_name = self.source != STDIN and is_table(self.source)
        said = arguments.column is not None or (wanted and self.options.delimiter is not None)
        if wanted and not (by_name or said):
            raise BadInput(
                f"{self.source}: has a title per line, no columns for {wanted[0]} (--column NAME "
                "or --delimiter CHARACTER reads it as a table)"
            )
        self.table: Table
        if by_name or said:
            self.table = open_table(self.source, self.options)
            self.table.keep_empty_rows = True  # each row of the file has one in the output
            self._find_columns(self.table, arguments)
            return
        encoding = self.options.encoding
        if self.options != TableOptions(encoding=encoding) and not arguments.catalogue:
            raise BadInput(
                f"{self.source}: is read as one title per line, so of the options for tables only "
                "--encoding has an effect; --column NAME reads a table"
            )
        self.table, self.places = LinesTable(self.source, encoding), [0]

    def options_for(self, catalogue: Path | None) -> TableOptions | None:
        """How to read the catalogue: like the titles where both are of one kind.

        Where the titles are lines of text, what is said about tables is said about it.
        """
        if catalogue is None:
            return None
        if catalogue.suffix.lower() == Path(self.source).suffix.lower():
            return self.options
        lines = isinstance(self.table, LinesTable)
        return replace(self.options, encoding=None) if lines else None

    def _find_columns(self, table: Table, arguments: argparse.Namespace) -> None:
        ids = [table.find(arguments.query_id_column, "--query-id-column")] if self.has_ids else []
        names = _names(table, arguments.keep_columns)
        kept = [table.find(name, "--keep-columns") for name in names if name != ALL]
        beside = [*ids, *kept, *(table.find(name, "--code-columns") for name in self.codes)]
        title = text_column(table, arguments.column, "--column", QUERY, beside)
        if ALL in names:
            rest = [p for p in range(len(table.columns)) if p not in (title, *ids, *kept)]
            kept += rest
        self.kept = tuple(table.columns[place] for place in kept)
        codes = [table.find(name, "--code-columns") for name in self.codes]
        self.places = [title, *ids, *kept, *codes]

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(map(kind_of, self.codes))

    @property
    def notes(self) -> list[str]:
        """What was assumed or found in reading; complete when all titles were read."""
        return self.table.notes

    def __iter__(self) -> Iterator[Title]:
        raw, first = _Raw(), 1 + self.has_ids
        last = first + len(self.kept)
        for _, cells in self.table.rows(self.places, raw):
            given = raw.cells_as_given(cells)
            own = given[1] if self.has_ids else ""
            yield Title(cells[0], given[0], own, tuple(given[first:last]), tuple(cells[last:]))


class _Raw(Changes):
    """The cells of a row as they were before they were normalised."""

    def __init__(self) -> None:
        super().__init__()
        self._changed: dict[int, str] = {}

    def add(self, column: int, row: int, raw: str) -> None:
        self._changed[column] = raw

    def cells_as_given(self, cells: Sequence[str]) -> list[str]:
        """The row that was just read, as the table has it."""
        given = [self._changed.get(at, cell) for at, cell in enumerate(cells)]
        self._changed.clear()
        return given


def _names(table: Table, wanted: Sequence[str]) -> list[str]:
    """The columns that ``--keep-columns`` names: each a column, or several with commas between."""
    names: list[str] = []
    for words in wanted:
        names += [words] if table.has(words) else [word.strip() for word in words.split(",")]
    return list(dict.fromkeys(name for name in names if name))
