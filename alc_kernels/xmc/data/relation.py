"""Sparse relations between queries and labels: CSR of float32 ones, sorted, without repeats."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import csr_matrix


class RelationRows:
    """A relation in the making, row by row; eight bytes a pair, not a list of Python numbers."""

    def __init__(self) -> None:
        self._labels = array("i")
        self._lengths = array("i")

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, labels: Sequence[int]) -> None:
        """Append a row, empty or with repeats."""
        self._labels.extend(labels)
        self._lengths.append(len(labels))

    def extend(self, labels: np.ndarray, lengths: Iterable[int]) -> None:
        """Append rows: their labels one after the other, and how many each has."""
        self._labels.frombytes(labels.astype(np.intc).tobytes())
        self._lengths.extend(lengths)

    def build(self, num_labels: int) -> tuple[csr_matrix, int]:
        """The relation (rows, num_labels), and how many repeats of a label in a row it lost."""
        indptr = np.zeros(len(self) + 1, np.int64)
        np.cumsum(np.frombuffer(self._lengths, np.intc), out=indptr[1:])
        indices = np.frombuffer(self._labels, np.intc).copy()
        ones = np.ones(len(indices), np.float32)
        made = csr_matrix((ones, indices, indptr), shape=(len(self), num_labels))
        return _plain(made), len(ones) - int(made.nnz)


def relation_from_rows(rows: Iterable[Sequence[int]], num_labels: int) -> csr_matrix:
    """CSR of float32 ones (len(rows), num_labels); a label named twice in a row counts once."""
    made = RelationRows()
    for row in rows:
        made.add(row)
    return made.build(num_labels)[0]


def relation_from_pairs(rows: np.ndarray, labels: np.ndarray, shape: tuple[int, int]) -> csr_matrix:
    """CSR of float32 ones of the pairs (rows[i], labels[i]); a pair named twice counts once."""
    return _plain(csr_matrix((np.ones(len(rows), np.float32), (rows, labels)), shape=shape))


def without(relation: csr_matrix, unwanted: csr_matrix) -> csr_matrix:
    """``relation`` less the pairs that ``unwanted``, of the same shape, has as well."""
    made = relation - relation.multiply(unwanted)
    made.eliminate_zeros()
    return _plain(made.tocsr())


def without_labels(relation: csr_matrix, unwanted: np.ndarray) -> csr_matrix:
    """``relation`` less all pairs of the labels of ``unwanted`` (num_labels,) bool."""
    keep = ~unwanted[relation.indices]
    indptr = np.concatenate([[0], np.cumsum(keep)])[relation.indptr]
    ones = np.ones(int(indptr[-1]), np.float32)
    return csr_matrix((ones, relation.indices[keep], indptr), shape=relation.shape)


def first_labels(relation: csr_matrix) -> np.ndarray:
    """(n,) int64: the first label of every row, -1 where the row is empty."""
    counts = np.diff(relation.indptr)
    first = np.full(len(counts), -1, np.int64)
    first[counts > 0] = relation.indices[relation.indptr[:-1][counts > 0]]
    return first


def _plain(relation: csr_matrix) -> csr_matrix:
    """In place: sorted, each pair once, with value 1."""
    relation.sum_duplicates()
    relation.data[:] = 1
    return relation
