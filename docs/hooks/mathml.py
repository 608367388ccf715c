"""MkDocs hook: equations become MathML when the site is built, so that it needs no script."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex (generic) leaves: \( \) in a span, \[ \] in a div.
EQUATION = re.compile(
    r'<(span|div) class="arithmatex">\\[\[(](?P<tex>.*?)\\[\])]</(?:span|div)>', re.S
)


def on_page_content(content: str, **_: Any) -> str:
    """Every equation of a page, inline or on a line of its own, as MathML."""
    return EQUATION.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    display = "block" if match[1] == "div" else "inline"
    mathml = convert(html.unescape(match["tex"]).strip(), display=display)
    return f'<div class="equation">{mathml}</div>' if display == "block" else str(mathml)
