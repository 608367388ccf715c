"""The HTML page: a heading, sections, nothing fetched from anywhere.

Text enters the page through :func:`escape`; what a function here returns is :class:`Html`, which
enters as it is. Passing plain text where markup is meant therefore shows as text.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from alc_kernels.xmc.report.style import CSS


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
