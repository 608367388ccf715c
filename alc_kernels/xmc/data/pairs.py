"""One's own data: a table with a query and a label in each row.

Several rows with the same query give it several labels; a row with an empty label is a query
without right answer. Equal texts, once normalised, are one query, or one label. Texts are read
twice from the file and never held: equality is that of 128-bit digests.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alc_kernels.xmc.data.digests import Digests, group
from alc_kernels.xmc.data.protocol import SHARE_STEPS, text_hash
from alc_kernels.xmc.data.relation import relation_from_pairs
from alc_kernels.xmc.data.source import (
    Part,
    ReadOptions,
    Relation,
    RelationReader,
    Source,
    TextStream,
)
from alc_kernels.xmc.data.tables import Changes, Table, TableOptions, open_table
from alc_kernels.xmc.errors import DataError

SPLITS = ("train", "validation", "test")
# What a cell of the split column may say, in whatever letters.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), 0),
    **dict.fromkeys(("validation", "valid", "val", "dev"), 1),
    **dict.fromkeys(("test", "testing", "tst"), 2),
}


@dataclass(frozen=True)
class PairOptions:
    """How to read pairs.

    Attributes:
        query_column, label_column: names of the columns, or their numbers from 1.
        split_column: column that says train, validation or test; used where there is one.
        test_share: share of the queries that become test, by sha1, where there is none.
    """

    query_column: str = "query"
    label_column: str = "label"
    split_column: str = "split"
    test_share: float = 0.3


def find_pairs(
    source: Path | Any, options: PairOptions | None = None, table: TableOptions | None = None
) -> Source:
    """Read a table of pairs once, for its relations; its texts are read again on converting.

    Args:
        source: a file, a folder of Parquet or a data frame (:func:`open_table`).
        options: which columns, and what becomes test.
        table: how to read it.

    Raises:
        DataError: a missing column, an empty query, an unknown split, no rows or no labels, or a
            file that cannot be read.
    """
    return _Pairs(open_table(source, table), options or PairOptions()).source()


class _Pairs:
    def __init__(self, table: Table, options: PairOptions) -> None:
        self.table, self.options, self.unit = table, options, table.unit
        self.path = Path(table.name)
        self.columns = [
            table.find(options.query_column, "--query-column"),
            table.find(options.label_column, "--label-column"),
        ]
        self.has_split = table.has(options.split_column)
        if self.has_split:
            self.columns.append(table.find(options.split_column, "--split-column"))
        self._read()

    def _read(self) -> None:
        """One pass over the rows: which query, label and split each has."""
        queries, labels, changes = Digests(), Digests(), Changes()
        splits, labelled = array("b"), array("b")
        first_test = round((1 - self.options.test_share) * SHARE_STEPS)
        for number, (query, label, *split) in self.table.rows(self.columns, changes):
            if not query:
                raise DataError(f"{self.path}, {self.unit} {number}: found no query, expected text")
            if split:
                code = SPLIT_NAMES.get(split[0].casefold())
                if code is None:
                    raise DataError(
                        f"{self.path}, {self.unit} {number}: found {split[0][:40]!r} as "
                        f"{self.options.split_column}, expected one of {', '.join(SPLITS)}"
                    )
                splits.append(code)
            else:
                splits.append(2 if text_hash(query) % SHARE_STEPS >= first_test else 0)
            queries.add(query)
            labelled.append(bool(label))
            if label:
                labels.add(label)
        if not len(splits):
            raise DataError(f"{self.path}: found no rows below the header, expected pairs")
        if not any(labelled):
            raise DataError(
                f"{self.path}: column {self.options.label_column!r} is empty in every row, "
                "expected labels"
            )
        self.labelled = np.frombuffer(labelled, np.bool_)  # (rows,)
        self.splits = np.frombuffer(splits, np.int8)  # (rows,)
        self.queries = queries.array()  # (rows, 2)
        label_digests = labels.array()
        number_of, firsts = group(label_digests)
        self.label_of = np.full(len(self.labelled), -1, np.int64)
        self.label_of[self.labelled] = number_of
        labelled_rows = np.flatnonzero(self.labelled)
        self.label_rows = labelled_rows[firsts]
        self.notes = list(self.table.notes)
        for what, merged in (
            ("queries", changes.became_one(0, self.queries)),
            ("labels", changes.became_one(1, label_digests, labelled_rows)),
        ):
            if merged:
                self.notes.append(
                    f"{self.path.name}: {merged} {what} differed from others in white space "
                    "alone, taken as one with them"
                )

    def source(self) -> Source:
        parts = {}
        for code, name in enumerate(SPLITS):
            rows = np.flatnonzero(self.splits == code)
            if len(rows):
                number_of, firsts = group(self.queries[rows])
                texts = self._texts(0, rows[firsts], "query texts")
                parts[name] = Part(texts, self._relation(rows, number_of, len(firsts)))
        for name in ("train", "test"):
            if name not in parts:
                where = (
                    f"column {self.options.split_column!r} never says it"
                    if self.has_split
                    else f"a test share of {self.options.test_share:g} leaves none"
                )
                raise DataError(f"{self.path}: found no rows of {name}, expected some ({where})")
        rule = ""
        if not self.has_split:
            limit = round((1 - self.options.test_share) * SHARE_STEPS)
            rule = f"test: queries with sha1 mod {SHARE_STEPS} >= {limit}"
        return Source(
            layout="pairs",
            name=self.path.name.split(".")[0],
            labels=self._texts(1, self.label_rows, "label texts"),
            parts=parts,
            files=(self.path,),
            columns=tuple(self.table.columns[column] for column in self.columns),
            notes=tuple(self.notes),
            split_rule=rule,
        )

    def _texts(self, column: int, rows: np.ndarray, what: str) -> TextStream:
        """The texts of a column in some rows, ascending."""

        def read() -> Iterator[tuple[int, str]]:
            wanted = iter(rows.tolist())
            at = next(wanted, None)
            for row, (number, cells) in enumerate(self.table.rows([self.columns[column]])):
                if row == at:
                    yield number, cells[0]
                    at = next(wanted, None)

        return TextStream(self.path, read, what, ReadOptions(), unit=self.unit)

    def _relation(self, rows: np.ndarray, query_of: np.ndarray, num_queries: int) -> RelationReader:
        def read(num_labels: int, origin: str) -> Relation:
            label = self.label_of[rows]
            pairs = label >= 0
            shape = (num_queries, num_labels)
            matrix = relation_from_pairs(query_of[pairs], label[pairs], shape)
            return Relation(matrix, self.path, int(pairs.sum()) - int(matrix.nnz))

        return read
