"""The options with which every command reads a table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from alc_kernels.cli.errors import BadInput

if TYPE_CHECKING:
    from alc_kernels.xmc.data.tables import TableOptions


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--delimiter``, ``--encoding``, ``--[no-]quoting``, ``--no-header`` and ``--sheet``."""
    add = parser.add_argument_group("how tables are read, where that is not found").add_argument
    add("--delimiter", metavar="CHARACTER", help="comma, semicolon, tab, pipe or the character")
    add(
        "--encoding",
        metavar="NAME",
        help="of text: utf-8, utf-16, cp1252, latin-1 or another of Python's",
    )
    add(
        "--quoting",
        action=argparse.BooleanOptionalAction,
        default=None,
        help='whether " encloses cells; with --no-quoting it is a character like others',
    )
    add(
        "--no-header",
        action="store_true",
        help="the first row is a row like others; columns are named by number, from 1",
    )
    add("--sheet", metavar="NAME", help="of an .xlsx file (the first)")


def table_options(arguments: argparse.Namespace) -> TableOptions:
    """The options as given.

    Raises:
        BadInput: a delimiter or an encoding that cannot be one.
    """
    from alc_kernels.xmc.data.tables import TableOptions

    options = {}
    for name in ("delimiter", "encoding"):
        options[name] = getattr(arguments, name)
        try:
            TableOptions(**{name: options[name]})
        except ValueError as error:
            raise BadInput(f"argument --{name}: {error}") from None
    return TableOptions(
        **options,
        quoting=arguments.quoting,
        header=not arguments.no_header,
        sheet=arguments.sheet,
    )
