"""The HTML page: a heading, sections, nothing fetched from anywhere.

Text enters the page through :func:`escape`; what a function here returns is :class:`Html`, which
enters as it is. Passing plain text where markup is meant therefore shows as text.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

# The look of the page: readable on a phone, in the dark, in print, and without telling colours.


CSS = """
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5b6675; --line: #dfe4ea;
  --pale: #f5f7f9; --paper: #fff; --blue: #0072b2; --right: #e3f0f8; --right-ink: #00507d;
  --wrong: #fcebdd; --wrong-ink: #8a3c00; --review: #eceff3; --review-ink: #39424e; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
    sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 44px 28px 72px; }
header { border-bottom: 3px solid var(--blue); padding-bottom: 14px; margin-bottom: 26px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 44px 0 8px; letter-spacing: -.005em; }
h3 { font-size: 16px; margin: 22px 0 6px; }
p { margin: 8px 0 12px; max-width: 78ch; }
.subtitle { color: var(--soft); margin: 0; }
.small, figcaption, .caption { color: var(--soft); font-size: 14px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 14px;
  margin: 18px 0 8px; }
.card { border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px;
  background: var(--pale); }
.card .value { font-size: 30px; font-weight: 650; line-height: 1.15;
  font-variant-numeric: tabular-nums; }
.card .name { font-weight: 600; margin-top: 2px; }
.card .note { color: var(--soft); font-size: 14px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 10px 0 6px; font-size: 14.5px;
  font-variant-numeric: tabular-nums; }
.caption { margin: 6px 0 14px; max-width: 110ch; }
th, td { padding: 7px 10px; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: baseline; }
th { font-weight: 600; color: var(--soft); border-bottom: 2px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
table.text th, table.text td { text-align: left; }
table.text td.number { text-align: right; white-space: nowrap; }
td .range { display: block; color: var(--soft); font-size: 12.5px; white-space: nowrap; }
td.best { font-weight: 700; }
td.best .range { font-weight: 400; }
tr.group td { background: var(--pale); font-weight: 600; padding-left: 10px; }
.lead { font-size: 18px; }
figure { margin: 14px 0 18px; }
figure img { width: 100%; height: auto; display: block; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr));
  gap: 8px 20px; }
figcaption { margin-top: 6px; max-width: 78ch; }
details { margin: 14px 0; }
summary { cursor: pointer; color: var(--blue); font-weight: 600; }
code, pre { font: 13.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--pale); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 16px; overflow-x: auto; }
.tag { display: inline-block; border-radius: 5px; padding: 1px 8px; font-size: 13px;
  font-weight: 600; white-space: nowrap; }
.tag.right { background: var(--right); color: var(--right-ink); }
.tag.wrong { background: var(--wrong); color: var(--wrong-ink); }
.tag.review { background: var(--review); color: var(--review-ink); }
@media (max-width: 640px) {
  main { padding: 24px 16px 48px; }
  h1 { font-size: 24px; }
  .cards { grid-template-columns: 1fr 1fr; gap: 10px; }
  .card { padding: 10px 12px; }
  .card .value { font-size: 24px; }
  th, td { padding: 6px 7px; }
  table.text td { min-width: 92px; overflow-wrap: anywhere; }
  table:not(.text) tr:not(.group) td:first-child { position: sticky; left: 0;
    background: var(--paper); background-clip: padding-box; }
  table.stacked thead { display: none; }
  table.stacked tr { display: block; padding: 8px 0; border-bottom: 1px solid var(--line); }
  table.stacked td { display: block; border: 0; padding: 2px 0; }
  table.stacked td[data-label]::before { content: attr(data-label) ": "; color: var(--soft); }
}
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ef; --soft: #a0acba; --line: #333d49; --pale: #1d252e; --paper: #12181f;
    --blue: #6cb8ec; --right: #0f3a57; --right-ink: #bfe3fb; --wrong: #53290c;
    --wrong-ink: #ffd2b0; --review: #2b343f; --review-ink: #ccd5df; }
  /* Pictures are drawn for white paper without a background: their lightness is turned over. */
  figure img { filter: invert(1) hue-rotate(180deg); }
}
@media print {
  .pictures { grid-template-columns: 1fr 1fr; }
  main { max-width: none; padding: 0; }
  body { font-size: 11pt; }
  table { font-size: 9.5pt; }
  h2 { break-after: avoid; }
  figure, .card, tr { break-inside: avoid; }
  .card, pre, tr.group td { background: #fff; }
  details > * { display: block; }
}
"""


class Html(str):
    """Text that is already markup."""


def escape(text: object) -> Html:
    """``text`` as markup; :class:`Html` passes unchanged."""
    return text if isinstance(text, Html) else Html(html.escape(str(text), quote=True))


def element(tag: str, *children: object, **attributes: str) -> Html:
    """``<tag ...>children</tag>``; write ``class_`` for the attribute ``class``."""
    written = "".join(f' {key.rstrip("_")}="{escape(v)}"' for key, v in attributes.items())
    return Html(f"<{tag}{written}>{''.join(escape(child) for child in children)}</{tag}>")


def paragraph(*children: object, class_: str = "") -> Html:
    return element("p", *children, **({"class_": class_} if class_ else {}))


def section(title: str, *children: object) -> Html:
    """A part of the page under its own heading."""
    return element("section", element("h2", title), *children)


def cards(items: Iterable[tuple[str, str, str]]) -> Html:
    """A row of headline figures: (value, what it is, the small print)."""
    return element(
        "div",
        *(
            element(
                "div",
                element("div", value, class_="value"),
                element("div", name, class_="name"),
                element("div", note, class_="note"),
                class_="card",
            )
            for value, name, note in items
        ),
        class_="cards",
    )


def details(summary: str, *children: object) -> Html:
    """A part that is folded away until it is clicked."""
    return element("details", element("summary", summary), *children)


def page(title: str, subtitle: str, *body: object) -> str:
    """The whole document."""
    head = (
        '<meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style>"
    )
    header = element("header", element("h1", title), paragraph(subtitle, class_="subtitle"))
    content = "\n".join(escape(part) for part in body)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}</head>\n'
        f"<body>\n<main>\n{header}\n{content}\n</main>\n</body>\n</html>\n"
    )


# What a report explains in words.


WHAT_IS_COVERAGE = (
    "Every title gets its best match and a score; above a threshold the match is accepted "
    "automatically, below it a person looks. Coverage is the share of titles that are accepted "
    "while the accepted ones are still right as often as wanted: coverage at precision 90 % "
    "(C@.9) of 60 % means that a person has to look at the other 40 % only."
)
WHAT_IS_GENERATED = (
    "The catalogue on this page is generated by a program, it is no shop's: brands, model numbers, "
    "attributes, the ways merchants write them, look-alike variants, and products that are "
    "missing from the catalogue."
)
HOW_MEASURED = (
    "Thresholds are chosen on validation titles and applied once to test titles: accepted .9 and "
    "the precision beside it are what a user gets, while C@.9 and C@.95 read the best threshold "
    "off the test titles themselves and are a little optimistic. P@1 is over all titles; P@1 ans., "
    "P@3, P@5, nDCG and recall (R) are over those that have a right answer. P@5 is the right ones "
    "among the first five matches over five: where a title has one right product it is 20 % at "
    "best. "
    "PSP weighs hits by how rare their product is in training (propensity-scored precision), "
    "relative to the best ranking. Intervals are 95 % bootstrap intervals that draw products, "
    "with all titles of a product in validation and test together, 1,000 times; differences use "
    "the same draws for both sides. Training seeds are averaged, not drawn. Whether the precision "
    "wanted is kept is read off the wider of that interval and Clopper and Pearson's, since few "
    "accepted titles that are all right show little."
)
CATALOGUE_TITLES = {
    "open": "Open catalogue (some products are missing from it)",
    "closed": "Closed catalogue (every product is in it)",
}
CATALOGUE_NAMES = {"open": "Open catalogue", "closed": "Closed catalogue"}


# A table that can be printed in a terminal and written into a page.


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
        tag: on a page, the kind of coloured mark that the text stands in; see ``style``.
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

    def html(self) -> Html:
        """The table as markup."""
        head = element(
            "thead", element("tr", *(element("th", h, scope="col") for h in self.header))
        )
        body = element("tbody", *(self._html_row(row) for row in self.rows))
        kinds = [kind for kind, on in (("text", self.prose), ("stacked", self.stacked)) if on]
        table = element("table", head, body, **({"class_": " ".join(kinds)} if kinds else {}))
        # Below the part that scrolls, so that a wide table does not widen its caption.
        caption = element("p", self.caption, class_="caption") if self.caption else Html("")
        return element("div", element("div", table, class_="scroll"), caption)

    def _html_row(self, row: Sequence[Cell | str] | str) -> Html:
        if isinstance(row, str):
            heading = element("td", row, colspan=str(len(self.header)))
            return element("tr", heading, class_="group")
        return element("tr", *map(self._html_cell, row, self.header))

    def _html_cell(self, cell: Cell | str, heading: str) -> Html:
        attributes = {"data-label": heading} if self.stacked and heading else {}
        if not isinstance(cell, Cell):
            return element("td", cell, **attributes)
        if cell.strong:
            attributes["class"] = "best"
        small = [element("span", cell.small, class_="range")] if cell.small else []
        shown = element("span", cell.text, class_=f"tag {cell.tag}") if cell.tag else cell.text
        return element("td", shown, *small, **attributes)

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
