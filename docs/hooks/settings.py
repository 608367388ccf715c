"""MkDocs hook: the trainer's settings, as tables made from ``TrainConfig`` itself."""

from __future__ import annotations

import dataclasses
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from alc_kernels.trainer.config import TrainConfig

MARK = "<!-- settings -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables where a page has the mark."""
    return markdown.replace(MARK, _tables()) if MARK in markdown else markdown


def _tables() -> str:
    lines = []
    for group, fields in groupby(dataclasses.fields(TrainConfig), lambda f: f.metadata["group"]):
        lines += [f"\n**Settings: {group}**\n", "| setting | default | meaning |", "|---|---|---|"]
        for field in fields:
            meaning = field.metadata["help"]
            if field.metadata["choices"]:
                meaning += ": " + ", ".join(f"`{choice}`" for choice in field.metadata["choices"])
            lines.append(f"| `{field.name}` | `{field.default}` | {meaning} |")
    return "\n".join(lines) + "\n"
