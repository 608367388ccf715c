"""Titles from a file or from standard input, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from alc_kernels.cli.errors import BadInput
from alc_kernels.xmc.data.tables import TableOptions, is_table, normalize_text, open_table
from alc_kernels.xmc.data.tables.opening import STDIN, copy_of_standard_input
from alc_kernels.xmc.data.tables.table import short_list
from alc_kernels.xmc.data.text_lines import TextInput


def read_titles(
    source: str,
    column: str | None = None,
    options: TableOptions | None = None,
    notes: list[str] | None = None,
) -> Iterator[str]:
    """The titles of ``source``, normalised: one per line, or one per row of a table.

    Args:
        source: a file, perhaps compressed, or ``-`` for standard input.
        column: the table's column that holds the titles; None: there is one title per line.
        options: how to read a table, and the encoding of a text file.
        notes: takes what was assumed and normalised, once all are read.

    Raises:
        BadInput: a table, and no column named.
        DataError: unreadable, no such column, an uneven row; names file and line.
    """
    options, notes = options or TableOptions(), [] if notes is None else notes
    if column is None and (source == STDIN or not is_table(source)):
        yield from _lines(source, options, notes)
        return
    table = open_table(source, options)
    if column is None:
        raise BadInput(
            f"{table.name}: is a table, --column names the column of the titles: "
            f"{short_list(table.columns)}"
        )
    for _, (title,) in table.rows([table.find(column, "--column")]):
        yield title
    notes += table.notes


def _lines(source: str, options: TableOptions, notes: list[str]) -> Iterator[str]:
    with ExitStack() as stack:
        name, path = source, Path(source)
        if source == STDIN:
            name, path = "standard input", stack.enter_context(copy_of_standard_input())
        file = TextInput(path, options.encoding, name)
        for _, line in file.lines():
            yield normalize_text(line)
        notes += file.notes
