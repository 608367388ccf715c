"""A table that can be printed in a terminal and written into a page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

WIDTH = 100  # columns of a terminal that tables keep to
NARROWEST = 14  # a column of words is wrapped to this at the least
INDENT = "  "


@dataclass(frozen=True)
class Cell:
    """A value with the small print below it.

    Attributes:
        text: the value.
        small: below it.
        strong: whether it is the best of its kind.
        tag: on a page, the kind of coloured mark that the text stands in; see ``page.jinja``.
    """

    text: str
    small: str = ""
    strong: bool = False
    tag: str = ""


@dataclass
class Table:
    """Rows under a header; a row that is a plain string is a heading between rows.

    Attributes:
        header: the column headings; the first column holds names.
        rows: sequences of cells as long as the header, or headings.
        caption: one line below.
        prose: columns hold text rather than numbers.
        stacked: on a narrow page the cells of a row stand below one another.
    """

    header: Sequence[str]
    rows: list[Sequence[Cell | str] | str] = field(default_factory=list)
    caption: str = ""
    prose: bool = False
    stacked: bool = False

    def text(self, width: int = WIDTH) -> str:
        """The table as lines of text of at most ``width`` columns; small print below its cell.

        Words are wrapped. Columns that still do not fit follow in a further block, beside the
        same names.
        """
        widths = self._widths(width)
        blocks = list(_blocks(widths, width))
        written: list[str] = []
        for columns in blocks:
            if written:
                written.append("")
            for row in [self.header, *self.rows]:
                if isinstance(row, str):
                    written += ["", row]
                else:
                    written += self._text_row(row, widths, [0, *columns])
        if self.caption:
            filled = textwrap.wrap(
                self.caption, width, initial_indent=INDENT, subsequent_indent=INDENT
            )
            written += ["", *filled]
        return "\n".join(written)

    def _widths(self, width: int) -> list[int]:
        """How wide each column gets: as its cells ask for, words less where that is too much."""
        rows = [self.header, *(row for row in self.rows if not isinstance(row, str))]
        widths = [
            max(len(part) for row in rows for part in _parts(row[column]))
            for column in range(len(self.header))
        ]
        words = range(len(widths)) if self.prose else [0]
        narrowed = list(widths)
        while sum(narrowed) + len(INDENT) * len(narrowed) > width:
            widest = max(words, key=lambda column: narrowed[column])
            if narrowed[widest] <= NARROWEST:
                # Narrower columns do not help: they are parted, each at most a third of the line.
                return [
                    min(size, width // 3) if c in words else size for c, size in enumerate(widths)
                ]
            narrowed[widest] -= 1
        return narrowed

    def _text_row(
        self, row: Sequence[Cell | str], widths: Sequence[int], columns: Sequence[int]
    ) -> Iterator[str]:
        cells = [
            [line for part in _parts(row[c]) for line in textwrap.wrap(part, widths[c])]
            for c in columns
        ]
        for line in zip_longest(*cells, fillvalue=""):
            placed = (
                part.ljust(widths[c]) if self.prose or c == 0 else part.rjust(widths[c])
                for c, part in zip(columns, line, strict=True)
            )
            yield (INDENT + INDENT.join(placed)).rstrip()


def _parts(cell: Cell | str) -> list[str]:
    if not isinstance(cell, Cell):
        return [cell]
    return [cell.text, cell.small] if cell.small else [cell.text]


def _blocks(widths: Sequence[int], width: int) -> Iterator[list[int]]:
    """Columns 1 and up, parted so that each part fits beside column 0."""
    block: list[int] = []
    taken = first = len(INDENT) + widths[0]
    for column, size in list(enumerate(widths))[1:]:
        if block and taken + len(INDENT) + size > width:
            yield block
            block, taken = [], first
        block.append(column)
        taken += len(INDENT) + size
    yield block
