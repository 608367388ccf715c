"""Batches of queries with one sampled label each, and every known pair among them.

NGAME's in-batch triplet with shuffled batches (arXiv 2207.04452): the labels of the other
queries are the negatives. A label that is also right for another query of the batch is one of
that query's positives, never its negative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Batch:
    """One batch in the numbering of the data set, all int64.

    Attributes:
        queries: (B,) distinct rows of the training split.
        labels: (M,) distinct label indices, ascending.
        crow, col: the CSR relation B x M; each row begins with the label sampled for it.
    """

    queries: np.ndarray
    labels: np.ndarray
    crow: np.ndarray
    col: np.ndarray


def num_batches(num_queries: int, batch_size: int) -> int:
    """Batches per epoch: as few as possible."""
    return -(-num_queries // batch_size)


def epoch_batches(
    relation: csr_matrix, queries: np.ndarray, batch_size: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """All ``queries`` once, shuffled, each with one of its labels drawn at random.

    Batches differ in size by at most one query, so the last one is no remnant with few
    negatives.

    Args:
        relation: (n, L) training relation.
        queries: (N,) int64 distinct rows to use; rows without labels are legal.
        batch_size: upper bound of the batch size.
        rng: the only source of randomness.
    """
    order = rng.permutation(queries)
    sampled = sample_labels(relation, order, rng)
    parts = num_batches(len(order), batch_size)
    for rows, chosen in zip(
        np.array_split(order, parts), np.array_split(sampled, parts), strict=True
    ):
        yield make_batch(relation, rows, chosen)


def sample_labels(relation: csr_matrix, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) int64: one label of each row, -1 for a row without any."""
    starts = relation.indptr[rows].astype(np.int64)
    counts = relation.indptr[rows + 1] - starts
    draw = np.floor(rng.random(len(rows)) * counts).astype(np.int64)
    sampled = np.full(len(rows), -1, np.int64)
    filled = counts > 0
    sampled[filled] = relation.indices[(starts + draw)[filled]]
    return sampled


def make_batch(relation: csr_matrix, rows: np.ndarray, sampled: np.ndarray) -> Batch:
    """The batch of ``rows`` over the distinct sampled labels, with all their known pairs."""
    labels = np.unique(sampled[sampled >= 0])
    known = relation[rows]
    row = np.repeat(np.arange(len(rows)), np.diff(known.indptr))
    label = known.indices.astype(np.int64)
    col = np.searchsorted(labels, label)
    inside = col < len(labels)
    inside[inside] = labels[col[inside]] == label[inside]
    row, col = row[inside], col[inside]
    # Within a row the sampled label comes first: it is the positive of the triplet.
    order = np.lexsort((col, labels[col] != sampled[row], row))
    crow = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=len(rows)), out=crow[1:])
    return Batch(rows, labels, crow, col[order])
