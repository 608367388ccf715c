"""Titles to match, one at a time, each with what stands beside it in its table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from alc_kernels.cli.catalogue import text_column
from alc_kernels.cli.errors import BadInput
from alc_kernels.cli.table_options import add_table_options, table_options
from alc_kernels.xmc.data.tables import Changes, Table, is_table, normalize_text, open_table
from alc_kernels.xmc.data.tables.opening import STDIN, copy_of_standard_input
from alc_kernels.xmc.data.tables.options import TableOptions
from alc_kernels.xmc.data.text_lines import TextInput

QUERY = "query"  # the column of the titles, where there are several and none is named
ALL = "all"


class Title(NamedTuple):
    """A title as it is matched, and as the file has it.

    Attributes:
        text: normalised, as training texts are.
        given: as it stands in the file.
        id: as it stands there, empty where there is none.
        kept: the cells of the columns that are kept, likewise.
    """

    text: str
    given: str
    id: str = ""
    kept: tuple[str, ...] = ()


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
    add_table_options(parser)


class Titles:
    """The titles of a file; once through.

    Args:
        arguments: of :func:`add_title_options`.

    Attributes:
        has_ids: whether the titles have ids.
        kept: names of the columns that are kept.

    Raises:
        BadInput: no such file, a table of several columns and none named, options for a table
            where there is none.
        DataError: unreadable, or no such column; while reading also by line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.source, self.options = arguments.file, table_options(arguments)
        self.has_ids = arguments.query_id_column is not None
        self.kept: tuple[str, ...] = ()
        self.table: Table | None = None
        self._line_notes: list[str] = []
        if self.source != STDIN and not Path(self.source).exists():
            raise BadInput(f"{self.source}: no such file")
        beside = {"--query-id-column": self.has_ids, "--keep-columns": any(arguments.keep_columns)}
        wanted = [option for option, given in beside.items() if given]
        by_name = self.source != STDIN and is_table(self.source)
        said = arguments.column is not None or (wanted and self.options.delimiter is not None)
        if wanted and not (by_name or said):
            raise BadInput(
                f"{self.source}: has a title per line, no columns for {wanted[0]} (--column NAME "
                "or --delimiter CHARACTER reads it as a table)"
            )
        if by_name or said:
            self.table = open_table(self.source, self.options)
            self.table.keep_empty_rows = True  # each row of the file has one in the output
            self._find_columns(self.table, arguments)
        elif self.options != self._of_text and not arguments.catalogue:
            raise BadInput(
                f"{self.source}: is read as one title per line, so of the options for tables only "
                "--encoding has an effect; --column NAME reads a table"
            )

    @property
    def _of_text(self) -> TableOptions:
        """What of the options a text file takes."""
        return TableOptions(encoding=self.options.encoding)

    def options_for(self, catalogue: Path | None) -> TableOptions | None:
        """How to read the catalogue: like the titles where both are of one kind.

        Where the titles are lines of text, what is said about tables is said about it.
        """
        if catalogue is None:
            return None
        if catalogue.suffix.lower() == Path(self.source).suffix.lower():
            return self.options
        return None if self.table is not None else replace(self.options, encoding=None)

    def _find_columns(self, table: Table, arguments: argparse.Namespace) -> None:
        ids = [table.find(arguments.query_id_column, "--query-id-column")] if self.has_ids else []
        names = _names(table, arguments.keep_columns)
        kept = [table.find(name, "--keep-columns") for name in names if name != ALL]
        beside = [*ids, *kept]
        title = text_column(table, arguments.column, "--column", QUERY, beside)
        if ALL in names:
            rest = [p for p in range(len(table.columns)) if p not in (title, *beside)]
            kept += rest
        self.kept = tuple(table.columns[place] for place in kept)
        self.places = [title, *ids, *kept]

    @property
    def notes(self) -> list[str]:
        """What was assumed or found in reading; complete when all titles were read."""
        return self._line_notes if self.table is None else self.table.notes

    def __iter__(self) -> Iterator[Title]:
        if self.table is None:
            yield from self._lines()
            return
        raw, first = _Raw(), 1 + self.has_ids
        for _, cells in self.table.rows(self.places, raw):
            given = raw.cells_as_given(cells)
            yield Title(cells[0], given[0], given[1] if self.has_ids else "", tuple(given[first:]))

    def _lines(self) -> Iterator[Title]:
        with ExitStack() as stack:
            path, name = Path(self.source), None
            if self.source == STDIN:
                path, name = stack.enter_context(copy_of_standard_input()), "standard input"
            file = TextInput(path, self.options.encoding, name)
            self._line_notes = file.notes
            for _, line in file.lines():
                yield Title(normalize_text(line), line)


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
