"""From rows of queries and their pairs with labels to what a conversion writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from alc_kernels.trainer.data.beside import Record
from alc_kernels.trainer.data.protocol import SHARE_STEPS, sha1_of
from alc_kernels.trainer.data.shapes.queries import QUERY, SPLITS, QueryRows, column_texts
from alc_kernels.trainer.data.shapes.units import (
    AUTO,
    BY_LABEL,
    BY_QUERY,
    Links,
    PairOptions,
    choose,
    steps_together,
)
from alc_kernels.trainer.data.source import Part, Relation, Source, TextStream
from alc_kernels.trainer.data.text.sparse import relation_from_pairs
from alc_kernels.trainer.data.text.texts import Digests, group
from alc_kernels.trainer.errors import DataError

# What rows of one table do to each other: they merge, contradict, share an unknown product.


PARTS = 4  # more than there are splits
# An unknown product with so many titles, and with at least this share of them, may be no product.
PLACEHOLDER, PLACEHOLDER_SHARE = 10, 0.01


def row_notes(
    queries: QueryRows,
    row: np.ndarray,
    label: np.ndarray,
    absent: Sequence[str],
    by_id: bool,
) -> list[str]:
    """Sentences on rows that become one, on labels of equal titles, and on unknown products.

    Args:
        queries: the rows.
        row, label, absent: as in :class:`Pairs`.
        by_id: pairs name a row by its id: only the first row with an id has them.
    """
    part = np.zeros(len(queries.text_of), np.int64) if queries.splits is None else queries.splits
    unit = queries.text_of * PARTS + part  # equal titles of one part have the same labels
    named = label >= 0
    labelled = np.zeros(len(unit), np.bool_)
    labelled[row[named]] = True
    product = np.zeros(len(unit), np.int64)
    product[row[~named]] = label[~named]
    identity, _ = group(queries.identity)
    place = identity * PARTS + part
    counted = np.ones(len(unit), np.bool_)
    made, name = [], queries.path.name
    if by_id:
        _, firsts = group(queries.ids)
        counted = (queries.ids == Digests([""]).array()).all(1)
        counted[firsts] = True
        if repeated := len(place) - len(np.unique(place)):
            made.append(f"{name}: rows that repeat an id and its text: {repeated:,}")
    else:
        bare = np.stack([place[~labelled], product[~labelled]])
        if repeated := bare.shape[1] - np.unique(bare, axis=1).shape[1]:
            made.append(f"{name}: rows without a label that repeat an earlier one: {repeated:,}")
    both = np.intersect1d(unit[labelled], unit[counted & ~labelled])
    if count := len(np.unique(both // PARTS)):
        made.append(
            f"{name}: {_titles(count)} {'stands' if count == 1 else 'stand'} with and without a "
            "label; the label counts"
        )
    distinct = np.unique(np.stack([unit[row[named]], label[named]]), axis=1)
    titles, sizes = np.unique(distinct[0], return_counts=True)
    if count := len(np.unique(titles[sizes > 1] // PARTS)):
        has = "has" if count == 1 else "have"
        made.append(f"{name}: {_titles(count)} {has} several labels; each of them is right")
    return made + _placeholders(queries, row[~named], -1 - label[~named], absent)


def _placeholders(
    queries: QueryRows, row: np.ndarray, number: np.ndarray, absent: Sequence[str]
) -> list[str]:
    """Unknown ids that so many titles have that they may stand for none."""
    distinct = np.unique(np.stack([number, queries.text_of[row]]), axis=1)
    sizes = np.bincount(distinct[0], minlength=len(absent))
    least = max(PLACEHOLDER, PLACEHOLDER_SHARE * len(queries.first_rows))
    return [
        f"{queries.path.name}: {_titles(int(sizes[one]))} share the unknown id "
        f"{absent[one][:40]!r}: if it is a placeholder, leave it empty"
        for one in np.flatnonzero(sizes >= least)
    ]


def _titles(count: int) -> str:
    return f"{count:,} title" if count == 1 else f"{count:,} titles"


BY_MATCHES = "queries, catalogue and matches"  # the layout
BY_COLUMN = "by"  # role of the column that split_by names


SETS = "--split-by label, query or the name of a column sets what stays together"


@dataclass(frozen=True)
class Pairs:
    """Which rows of the queries have which product.

    Attributes:
        row: (p,) int64.
        label: (p,) int64 its label; below 0 for product -1 - label of ``absent``.
        order, step: (p,) hashes of the product's name.
        absent: names of the products that are no label.
    """

    row: np.ndarray
    label: np.ndarray
    order: np.ndarray
    step: np.ndarray
    absent: Sequence[str] = ()


@dataclass
class TableSource:
    """Builds a :class:`Source`.

    Attributes:
        queries: the rows.
        pairs: their products.
        labels: the texts of the labels.
        num_labels: L.
        options: columns and split.
        layout: name of the shape.
        files: what is read.
        columns: names of the columns that are read.
        id_lines: see ``labels.ids.txt``; None without ids.
        notes: what was found on the way.
    """

    queries: QueryRows
    pairs: Pairs
    labels: TextStream
    num_labels: int
    options: PairOptions
    layout: str
    files: tuple[Path, ...]
    columns: tuple[str, ...]
    id_lines: Sequence[str] | None = None
    notes: list[str] = field(default_factory=list)

    def build(self) -> Source:
        """The source.

        Raises:
            DataError: no query has a label, or a split is empty.
        """
        if not (self.pairs.label >= 0).any():
            raise DataError(
                f"{self.queries.path}: no query has a label of {self.labels.path.name}, expected "
                "some"
            )
        pairs, by_id = self.pairs, self.layout == BY_MATCHES
        self.notes += row_notes(self.queries, pairs.row, pairs.label, pairs.absent, by_id)
        mode, reason = self._split_by()
        steps = self._steps(mode)[self.queries.text_of]  # (rows,)
        splits = self.queries.splits
        first_test = round((1 - self.options.test_share) * SHARE_STEPS)
        if splits is None:
            splits = np.where(steps >= first_test, 2, 0).astype(np.int8)
        what = {BY_LABEL: "products", BY_QUERY: "queries"}.get(mode, f"values of {mode!r}")
        parts = {}
        for code, name in enumerate(SPLITS):
            rows = np.flatnonzero(splits == code)
            if len(rows):
                parts[name] = self._part(rows, steps)
        self._check_parts(parts, what, mode)
        rule = ""
        if self.queries.splits is None:
            rule = f"test: {what} with {sha1_of(what)} mod {SHARE_STEPS} >= {first_test}"
            if mode != BY_QUERY:
                rule = f"split by {what}, whose queries stay together; {rule}"
        carved = self.queries.splits is None or "validation" not in parts
        if self.options.split_by != AUTO and not carved:
            raise DataError(
                f"{self.queries.path}: column {self.options.split_column!r} says what train, "
                "validation and test are, expected no --split-by (--split-column none leaves the "
                "column out)"
            )
        if carved:
            told = f", {reason}" if reason else ""
            self.notes.append(f"split by {what}{told} ({SETS})")
        return Source(
            layout=self.layout,
            name=self.queries.path.name.split(".")[0],
            labels=self.labels,
            parts=parts,
            files=self.files,
            columns=self.columns,
            notes=tuple(self.notes),
            split_rule=rule,
            test_share=self.options.test_share if self.queries.splits is None else None,
            split_what=what,
            id_lines=self.id_lines,
            absent=tuple(self.pairs.absent),
            has_query_ids=self.queries.has_ids,
            column_names=self.queries.column_names,
        )

    def _split_by(self) -> tuple[str, str]:
        wanted = self.options.split_by
        return choose(wanted, len(self.queries.first_rows), self._label_links())

    def _label_links(self) -> Links:
        pairs = self.pairs
        key = np.where(pairs.label >= 0, pairs.label, self.num_labels - 1 - pairs.label)
        return Links(self.queries.text_of[pairs.row], key, pairs.order, pairs.step)

    def _steps(self, mode: str) -> np.ndarray:
        """(texts,) in [0, SHARE_STEPS): where in the shares each text is."""
        queries = self.queries
        own = tuple(hashes[queries.first_rows] for hashes in queries.hashes)
        if mode == BY_QUERY:
            return own[1]
        if mode == BY_LABEL:
            links = self._label_links()
        else:
            column = queries.keys[BY_COLUMN]
            values, _ = group(column.digests)
            text = queries.text_of[column.rows]
            links = Links(text, values, column.order, column.step)
        return steps_together(len(own[0]), own, links)

    def _part(self, rows: np.ndarray, steps: np.ndarray) -> Part:
        """The queries of some rows: equal identities are one, equal texts have the same labels."""
        queries = self.queries
        query_of, firsts = group(queries.identity[rows])
        kept = rows[firsts]
        text = queries.text_of[kept]  # (n,)
        place = queries.columns[queries.at(QUERY)]
        return Part(
            texts=column_texts(queries.table, place, kept, "query texts"),
            relation=partial(self._relation, rows, query_of, text),
            steps=steps[kept],
            beside=self._beside(kept),
            absent=self._absent(rows, text),
        )

    def _beside(self, kept: np.ndarray) -> Callable[[], Iterator[tuple[str, Record]]] | None:
        if not (self.queries.has_ids or self.queries.keep):
            return None
        return partial(self.queries.beside, kept)

    def _in(self, rows: np.ndarray) -> np.ndarray:
        """(p,) bool: which pairs are of these rows, ascending."""
        chosen = np.zeros(len(self.queries.text_of), np.bool_)
        chosen[rows] = True
        return chosen[self.pairs.row]

    def _relation(
        self, rows: np.ndarray, query_of: np.ndarray, text: np.ndarray, num_labels: int, origin: str
    ) -> Relation:
        pairs, num_texts = self.pairs, len(self.queries.first_rows)
        known = self._in(rows) & (pairs.label >= 0)
        row, label = pairs.row[known], pairs.label[known]
        of_texts = relation_from_pairs(self.queries.text_of[row], label, (num_texts, num_labels))
        query = query_of[np.searchsorted(rows, row)]
        distinct = len(np.unique(query * num_labels + label))
        return Relation(of_texts[text].tocsr(), self.queries.path, len(row) - distinct)

    def _absent(self, rows: np.ndarray, text: np.ndarray) -> np.ndarray:
        """(n,) the first product of each query that is no label, -1 for none."""
        pairs = self.pairs
        unknown = np.flatnonzero(self._in(rows) & (pairs.label < 0))[::-1]
        made = np.full(len(self.queries.first_rows), -1, np.int64)
        made[self.queries.text_of[pairs.row[unknown]]] = -1 - pairs.label[unknown]
        return made[text]

    def _together(self, mode: str) -> int:
        """How many things there are that stay together."""
        if mode == BY_QUERY:
            return len(self.queries.first_rows)
        if mode == BY_LABEL:
            return len(np.unique(self.pairs.label))
        return len(group(self.queries.keys[BY_COLUMN].digests)[1])

    def _check_parts(self, parts: dict[str, Part], what: str, mode: str) -> None:
        for name in ("train", "test"):
            if name not in parts:
                reason = f"column {self.options.split_column!r} never says it"
                if self.queries.splits is None:
                    reason = (
                        f"split by {what}, {self._together(mode)} in all, which are too few for a "
                        f"test share of {self.options.test_share:g} (--test-share sets it, {SETS})"
                    )
                raise DataError(
                    f"{self.queries.path}: found no rows of {name}, expected some: {reason}"
                )
