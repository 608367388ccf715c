"""MkDocs hook: pages that live elsewhere in the repository, and links to what is no page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent.parent
# File in the repository: its place on the site.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
    "experiments/README.md": "experiments.md",
    "experiments/score_distributions.png": "score_distributions.png",
    "experiments/small.png": "small.png",
}
ROLE = re.compile(r":(?:class|func|meth|mod|attr):(?=`|<code>)")
LINK = re.compile(r"\]\(\.\./([^)#]+)((?:#[^)]*)?)\)")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages that live outside of docs/."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_bytes()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links from docs/ to pages that live outside of it lead to their place on the site."""
    return LINK.sub(lambda m: f"]({PAGES.get(m[1], '../' + m[1])}{m[2]})", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Docstrings name things as Sphinx does; the site shows the name."""
    return ROLE.sub("", content)
