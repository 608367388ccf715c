"""Which character parts the cells of a text table, and whether quotes enclose them."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from itertools import dropwhile
from typing import Literal

from alc_kernels.xmc.errors import DataError

CANDIDATES = (",", ";", "\t", "|")
QUOTE_MODES: dict[bool, Literal[0, 3]] = {True: csv.QUOTE_MINIMAL, False: csv.QUOTE_NONE}
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}


def delimiter_name(delimiter: str) -> str:
    """For messages."""
    return NAMES.get(delimiter, delimiter)


def find_delimiter(name: str, lines: Sequence[str], quoting: bool, by_name: str) -> str:
    """The delimiter of a table, from its first lines.

    The header must hold it, and no other may part as many of the rows below into as many cells as
    the header has. A header without any of them is that of a table with one column.

    Args:
        name: of the table, for messages.
        lines: whole lines, each with its end.
        quoting: whether quotes enclose cells.
        by_name: what the ending of the file's name stands for.

    Raises:
        DataError: two of them are as good.
    """
    scores = {}
    for delimiter in CANDIDATES:
        widths = _widths(lines, delimiter, quoting)
        if widths and widths[0] > 1:
            same = sum(width == widths[0] for width in widths[1:])
            scores[delimiter] = same / max(len(widths) - 1, 1) if len(widths) > 1 else 1.0
    if not scores:
        return by_name
    best = max(scores.values())
    winners = [delimiter for delimiter, score in scores.items() if score == best]
    if len(winners) == 1:
        return winners[0]
    if "\t" in winners and by_name == "\t":
        return "\t"
    shown = " or ".join(delimiter_name(delimiter) for delimiter in winners)
    raise DataError(
        f"{name}, line 1: its columns may be parted by {shown}, expected one of them "
        "(--delimiter says which)"
    )


def rows_are_wider(lines: Sequence[str], quoting: bool) -> bool:
    """Whether lines are rows of several cells, all of as many, perhaps below some of one."""
    for delimiter in CANDIDATES:
        widths = list(dropwhile(lambda width: width == 1, _widths(lines, delimiter, quoting)))
        if len(widths) > 1 and len(set(widths)) == 1:
            return True
    return False


def _widths(lines: Sequence[str], delimiter: str, quoting: bool) -> list[int]:
    """How many cells each row has; what stands after a fault does not count."""
    widths: list[int] = []
    try:
        for cells in csv.reader(
            lines, delimiter=delimiter, quoting=QUOTE_MODES[quoting], strict=True
        ):
            if cells and (len(cells) > 1 or cells[0].strip()):
                widths.append(len(cells))
    except csv.Error:
        pass
    return widths


def quotes_enclose(text: str, delimiter: str) -> bool:
    """Whether the start of a table shows that its quotes enclose cells.

    It does where a name of the header is quoted, or where a quoted cell that ends on its line
    holds a delimiter or a doubled quote: cells in which quotes are plain look like that by
    accident only.
    """
    mark = re.escape(delimiter)
    header = text.partition("\n")[0]
    cell = rf'(?:^|(?<={mark}))"(?:[^"\n]|"")*"(?={mark}|\r?$)'
    if re.search(cell, header):
        return True
    for found in re.finditer(cell, text, re.MULTILINE):
        inside = found[0][1:-1]
        if delimiter in inside or '""' in inside:
            return True
    return False
