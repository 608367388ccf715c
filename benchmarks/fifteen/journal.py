"""Rows on disk as soon as they are taken: JSON lines, so that a cut loses the row in progress."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.fifteen.plan import Item

Row = dict[str, Any]


class Journal:
    """Appends to a file that it starts anew; the first line says where and with what."""

    def __init__(self, path: Path, head: Row) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self._write({"kind": "environment", **head})

    def add(self, item: Item, rows: list[Row], seconds: float) -> None:
        """What came of an item, and how long it took."""
        named = asdict(item) | {"predicted_seconds": round(item.seconds, 1)}
        named.pop("seconds")
        for row in rows:
            self._write(named | {"took_seconds": round(seconds, 2)} | row)

    def _write(self, row: Row) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read(path: Path) -> tuple[Row, list[Row]]:
    """The head and the rows of a journal; a last line that was cut is left out.

    Raises:
        ValueError: the file is none; the message names it and the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            break
        try:
            row = json.loads(line)
            assert isinstance(row["kind"], str)
        except (ValueError, KeyError, TypeError, AssertionError):
            raise ValueError(f"{path}, line {number}: expected a row of `fifteen`") from None
        rows.append(row)
    if not rows or rows[0]["kind"] != "environment":
        raise ValueError(f"{path}: expected the rows of `fifteen`, its environment first")
    return rows[0], rows[1:]
