"""What stands beside the texts of a data set: ids, further columns, groups; read row by row.

    labels.ids.txt        the ids of each label, a tab between several; blank = none
    SPLIT.ids.txt         the id of each query; blank = none
    SPLIT.columns.jsonl   a JSON object per query: further columns, name -> text
    SPLIT.groups.txt      the product of each query, in the catalogue or not; blank = not known

Each file may be missing; one that is there has a line per label or query.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from alc_kernels.trainer.data.tables.table import normalize_text
from alc_kernels.trainer.data.text.lines import LineWriter
from alc_kernels.trainer.data.text.texts import Digests, TextFile, group
from alc_kernels.trainer.errors import DataError

Record = dict[str, str]
LABEL_IDS = "labels.ids.txt"
SEPARATOR = "\t"  # between the ids of one label; an id holds none


class Columns(Sequence[Record]):
    """Further columns of queries, parsed when they are asked for.

    Args:
        names: of the columns, in order.
        lines: n JSON objects as text.
    """

    def __init__(self, names: Sequence[str], lines: Sequence[str]) -> None:
        self.names, self.lines = tuple(names), lines

    @classmethod
    def of(cls, records: Sequence[Record]) -> Columns:
        """Columns held in memory."""
        return cls(tuple(records[0]) if records else (), [column_line(row) for row in records])

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [json.loads(line) for line in self.lines[index]]
        return dict(json.loads(self.lines[index]))

    def __iter__(self) -> Iterator[Record]:
        return (json.loads(line) for line in self.lines)


def column_line(record: Record) -> str:
    """A query's further columns as a line of SPLIT.columns.jsonl."""
    return json.dumps(record, ensure_ascii=False)


def read_split_beside(folder: Path, name: str, count: int) -> dict[str, Any]:
    """``ids``, ``columns`` and ``groups`` of a split, None for what is missing.

    Raises:
        DataError: a file that does not fit, or cannot be read.
    """
    origin = f"lines of {name}.raw.txt"
    return {
        "ids": _read_beside(folder / f"{name}.ids.txt", count, origin, "query ids"),
        "columns": _read_columns(folder / f"{name}.columns.jsonl", count, origin),
        "groups": _read_beside(folder / f"{name}.groups.txt", count, origin, "products"),
    }


def read_label_ids(folder: Path, count: int) -> TextFile | None:
    """labels.ids.txt of ``count`` labels, None where it is missing.

    Raises:
        DataError: another number of lines, an id of two labels, or it cannot be read.
    """
    lines = _read_beside(folder / LABEL_IDS, count, "lines of labels.txt", "label ids")
    if lines is not None:
        _check_label_ids(lines.path, lines)
    return lines


def _read_beside(path: Path, count: int, origin: str, what: str) -> TextFile | None:
    """A file with a line per label or query, None where it is missing.

    Raises:
        DataError: it has another number of lines, or cannot be read.
    """
    if not path.exists():
        return None
    texts = TextFile(path, what=what, allow_blank=True)
    if len(texts) != count:
        raise DataError(f"{path}: found {len(texts)} lines, expected {count} ({origin})")
    return texts


def _read_columns(path: Path, count: int, origin: str) -> Columns | None:
    """SPLIT.columns.jsonl, every line checked, None where it is missing.

    Raises:
        DataError: another number of lines, or a line that is no object of the same columns.
    """
    lines = _read_beside(path, count, origin, "JSON objects")
    if lines is None:
        return None
    names: tuple[str, ...] | None = None
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        sound = isinstance(record, dict) and all(isinstance(v, str) for v in record.values())
        if not sound or (names is not None and tuple(record) != names):
            expected = "texts by column" if names is None else f"texts of {', '.join(names)}"
            raise DataError(
                f"{path}, line {number}: found {line[:40]!r}, expected a JSON object with "
                f"{expected}"
            )
        names = tuple(record)
    return Columns(names or (), lines)


def _check_label_ids(path: Path, lines: Sequence[str]) -> None:
    """Raise :class:`DataError` where an id stands at two labels."""
    digests, row_of = Digests(), []
    for row, line in enumerate(lines):
        for one in split_ids(line):
            digests.add(one)
            row_of.append(row)
    groups, firsts = group(digests.array())
    if len(firsts) < len(groups):
        again = np.ones(len(groups), np.bool_)
        again[firsts] = False
        at = int(np.flatnonzero(again)[0])
        first, second = row_of[int(firsts[groups[at]])] + 1, row_of[at] + 1
        raise DataError(
            f"{path}, line {second}: found an id that line {first} has as well, expected an id to "
            "name one label"
        )


def split_ids(line: str) -> tuple[str, ...]:
    """The ids of a label, from its line of labels.ids.txt."""
    return tuple(one for one in line.split(SEPARATOR) if one.strip())


def first_id(line: str) -> str:
    """The first id of a label, normalised, "" for none."""
    return normalize_text((split_ids(line) or ("",))[0])


def write_beside(path: Path, lines: Sequence[str] | None) -> None:
    """Write such a file, where there are lines."""
    if lines is None:
        return
    with LineWriter(path, allow_blank=True) as file:
        for line in lines:
            file.write(line)
