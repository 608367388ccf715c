"""Batches of queries with one sampled label each, and every known pair among them.

The labels of the other queries are the negatives. A label that is also right for another query
of the batch is one of that query's positives, never its negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Batch:
    """One batch, or a process's part of one, in the numbering of the data set, all int64.

    Attributes:
        queries: (B,) distinct rows of the training split.
        labels: (M,) distinct label indices, ascending.
        crow, col: the CSR relation B x M; each row begins with the label sampled for it.
        excluded_crow, excluded_col: CSR of the excluded pairs B x M; None where the data set
            excludes nothing.
        all_labels: where this is a part, the labels of the whole batch: the relations have a
            column for each of them.
    """

    queries: np.ndarray
    labels: np.ndarray
    crow: np.ndarray
    col: np.ndarray
    excluded_crow: np.ndarray | None = None
    excluded_col: np.ndarray | None = None
    all_labels: np.ndarray | None = None

    @property
    def columns(self) -> np.ndarray:
        """The labels that the relations' columns stand for."""
        return self.labels if self.all_labels is None else self.all_labels

    def part(self, queries: slice, labels: slice) -> Batch:
        """These queries with all their pairs, and these labels."""
        known = _rows(self.crow, self.col, queries)
        left_out: tuple[np.ndarray | None, np.ndarray | None] = None, None
        if self.excluded_crow is not None and self.excluded_col is not None:
            left_out = _rows(self.excluded_crow, self.excluded_col, queries)
        return Batch(self.queries[queries], self.labels[labels], *known, *left_out, self.labels)


def num_batches(num_queries: int, batch_size: int) -> int:
    """Batches per epoch: as few as possible."""
    return -(-num_queries // batch_size)


def sample_labels(relation: csr_matrix, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) int64: one label of each row, -1 for a row without any."""
    starts = relation.indptr[rows].astype(np.int64)
    counts = relation.indptr[rows + 1] - starts
    draw = np.floor(rng.random(len(rows)) * counts).astype(np.int64)
    sampled = np.full(len(rows), -1, np.int64)
    filled = counts > 0
    sampled[filled] = relation.indices[(starts + draw)[filled]]
    return sampled


def make_batch(
    relation: csr_matrix,
    rows: np.ndarray,
    sampled: np.ndarray,
    hard: np.ndarray | None = None,
    excluded: csr_matrix | None = None,
) -> Batch:
    """The batch of ``rows`` with all their known and excluded pairs.

    Args:
        relation, excluded: (n, L).
        rows: (B,) rows of both.
        sampled: (B,) a positive of each row, -1 for none.
        hard: further labels of any shape, -1 for none.
    """
    asked = sampled if hard is None else np.concatenate([sampled, hard.ravel()])
    labels = np.unique(asked[asked >= 0])
    row, col = _pairs(relation, rows, labels)
    # Within a row the sampled label comes first: it is the positive of the triplet.
    order = np.lexsort((col, labels[col] != sampled[row], row))
    batch = rows, labels, _row_pointer(row, len(rows)), col[order]
    if excluded is None:
        return Batch(*batch)
    row, col = _pairs(excluded, rows, labels)
    return Batch(*batch, _row_pointer(row, len(rows)), col[np.lexsort((col, row))])


def _pairs(
    relation: csr_matrix, rows: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Places in ``rows`` (ascending) and in ``labels`` of the pairs of ``relation`` among them."""
    known = relation[rows]
    row = np.repeat(np.arange(len(rows)), np.diff(known.indptr))
    label = known.indices.astype(np.int64)
    col = np.searchsorted(labels, label)
    inside = col < len(labels)
    inside[inside] = labels[col[inside]] == label[inside]
    return row[inside], col[inside]


def _row_pointer(row: np.ndarray, num_rows: int) -> np.ndarray:
    """(num_rows + 1,) int64 CSR row pointer of the row numbers ``row``."""
    crow = np.zeros(num_rows + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=num_rows), out=crow[1:])
    return crow


def _rows(crow: np.ndarray, col: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Some consecutive rows of a CSR relation."""
    pointer = crow[rows.start : rows.stop + 1]
    return pointer - pointer[0], col[pointer[0] : pointer[-1]]
