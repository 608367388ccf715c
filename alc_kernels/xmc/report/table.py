"""A table that can be printed in a terminal and written into a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from alc_kernels.xmc.report.page import Html, element


@dataclass(frozen=True)
class Cell:
    """A value with the small print below it; ``strong`` marks the best of its kind."""

    text: str
    small: str = ""
    strong: bool = False


@dataclass
class Table:
    """Rows under a header; a row that is a plain string is a heading between rows.

    Attributes:
        header: the column headings; the first column holds names.
        rows: sequences of cells as long as the header, or headings.
        caption: one line below.
        prose: columns hold text rather than numbers.
    """

    header: Sequence[str]
    rows: list[Sequence[Cell | str] | str] = field(default_factory=list)
    caption: str = ""
    prose: bool = False

    def html(self) -> Html:
        """The table as markup."""
        head = element(
            "thead", element("tr", *(element("th", h, scope="col") for h in self.header))
        )
        body = element("tbody", *(self._html_row(row) for row in self.rows))
        caption = [element("caption", self.caption)] if self.caption else []
        attributes = {"class_": "text"} if self.prose else {}
        return element("div", element("table", *caption, head, body, **attributes), class_="scroll")

    def _html_row(self, row: Sequence[Cell | str] | str) -> Html:
        if isinstance(row, str):
            heading = element("td", row, colspan=str(len(self.header)))
            return element("tr", heading, class_="group")
        return element("tr", *(self._html_cell(cell) for cell in row))

    def _html_cell(self, cell: Cell | str) -> Html:
        if not isinstance(cell, Cell):
            return element("td", cell)
        small = [element("span", cell.small, class_="range")] if cell.small else []
        return element("td", cell.text, *small, **({"class_": "best"} if cell.strong else {}))

    def text(self) -> str:
        """The table as lines of text; small print stands in a line of its own."""
        lines: list[list[str] | str] = [list(self.header)]
        for row in self.rows:
            if isinstance(row, str):
                lines.append(row)
                continue
            cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
            lines.append([cell.text for cell in cells])
            if any(cell.small for cell in cells):
                lines.append([cell.small for cell in cells])
        columns = range(len(self.header))
        cells_only = [line for line in lines if not isinstance(line, str)]
        widths = [max(len(line[column]) for line in cells_only) for column in columns]
        written = []
        for line in lines:
            if isinstance(line, str):
                written += ["", line]
                continue
            rest = (
                line[c].ljust(widths[c]) if self.prose else line[c].rjust(widths[c])
                for c in columns[1:]
            )
            written.append("  ".join([f"  {line[0].ljust(widths[0])}", *rest]).rstrip())
        if self.caption:
            written += ["", f"  {self.caption}"]
        return "\n".join(written)
