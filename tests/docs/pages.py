"""The pages of the documentation, and the blocks of code in them.

A comment before a block says what the reader does not need to see:

    <!-- docs: before        Python that is run before the block (what the page calls "yours")
    ...
    -->
    <!-- docs: run -->       a bash block that a slow test runs, line by line
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "experiments/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)
LANGUAGES = {"python", "bash", "diff", "text"}
BLOCK = re.compile(
    r"(?:^<!-- docs: (?P<mark>\w+)\n?(?P<before>.*?)-->\n)?"
    r"^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<code>.*?)^ *```$",
    re.S | re.M,
)


@dataclass(frozen=True)
class Block:
    """One block of code; ``where`` is page:line."""

    where: str
    language: str
    code: str
    before: str = ""  # Python to run before it
    run: bool = False


def blocks(page: str, language: str) -> list[Block]:
    """The blocks of ``language`` in a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        mark = match["mark"]
        assert mark in (None, "before", "run"), f"{page}: unknown mark {mark!r}"
        where = f"{page}:{text.count(chr(10), 0, match.start('code'))}"
        before = match["before"] if mark == "before" else ""
        if match["language"] == language:
            found.append(Block(where, language, dedent(match["code"]), before, mark == "run"))
        else:
            assert mark is None or match["language"] in LANGUAGES, f"{where}: a mark without use"
    return found


def languages(page: str) -> list[str]:
    """The language of each block of a page, "" where none is given."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [match["language"] for match in BLOCK.finditer(text)]


def marks(page: str) -> int:
    """How many comments for blocks a page has."""
    return (ROOT / page).read_text(encoding="utf-8").count("<!-- docs:")
