"""What stands beside the texts of a data set: ids, further columns, groups; read row by row.

    labels.ids.txt        the ids of each label, a tab between several; blank = none
    SPLIT.ids.txt         the id of each query; blank = none
    SPLIT.columns.jsonl   a JSON object per query: further columns, name -> text
    SPLIT.groups.txt      the product of each query, in the catalogue or not; blank = not known

Each file may be missing; one that is there has a line per label or query.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from alc_kernels.trainer.data.tables.table import normalize_text
from alc_kernels.trainer.data.text.lines import line_writer, write_lines
from alc_kernels.trainer.data.text.sparse import first_labels
from alc_kernels.trainer.data.text.texts import Digests, Rows, TextFile, group
from alc_kernels.trainer.errors import DataError

if TYPE_CHECKING:
    from alc_kernels.trainer.data.source import Source

Record = dict[str, str]
LABEL_IDS = "labels.ids.txt"
SEPARATOR = "\t"  # between the ids of one label; an id holds none


class Columns(Rows[Record]):
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

    def _read(self, start: int, stop: int) -> list[Record]:
        return [json.loads(line) for line in self.lines[start:stop]]


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
    if lines is not None:
        write_lines(path, lines, allow_blank=True)


@contextmanager
def query_writer(
    folder: Path, name: str, source: Source
) -> Iterator[Callable[[str, str, Record], None]]:
    """A function that appends a query, with its id and further columns, to the files of a split.

    SPLIT.raw.txt, and SPLIT.ids.txt and SPLIT.columns.jsonl where the source has such.

    Args:
        folder: of the data set.
        name: of the split.
        source: says what there is beside the texts.
    """
    kinds = {
        "raw.txt": True, "ids.txt": source.has_query_ids,
        "columns.jsonl": bool(source.column_names),
    }  # fmt: skip
    with ExitStack() as stack:
        files = [
            stack.enter_context(line_writer(folder / f"{name}.{end}", allow_blank=end == "ids.txt"))
            if wanted
            else None
            for end, wanted in kinds.items()
        ]

        def write(text: str, own_id: str, record: Record) -> None:
            beside = column_line(record) if kinds["columns.jsonl"] else ""
            for file, line in zip(files, (text, own_id, beside), strict=True):
                if file is not None:
                    file(line)

        yield write


def write_groups(
    folder: Path, name: str, source: Source, relation: csr_matrix, absent: np.ndarray | None
) -> None:
    """Write SPLIT.groups.txt: the id, else the text, of the first product of each query.

    Args:
        folder: of the data set, whose labels are written.
        name: of the split.
        source: names the products that are no labels.
        relation: (n, L) of its queries, labels that are held out included.
        absent: (n,) as in :class:`Part`; None where the source knows no products beside labels.
    """
    if absent is None:
        return
    texts = TextFile(folder / "labels.txt", what="label texts")
    with line_writer(folder / f"{name}.groups.txt", allow_blank=True) as write:
        for label, lost in zip(first_labels(relation).tolist(), absent.tolist(), strict=True):
            if label >= 0:
                ids = split_ids(source.id_lines[label]) if source.id_lines is not None else ()
                write(ids[0] if ids else texts[label])
            else:
                write(source.absent[lost] if lost >= 0 else "")
