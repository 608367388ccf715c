"""Validation of per-query inputs: numpy arrays or torch tensors in, checked numpy arrays out."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    ArrayLike = npt.ArrayLike | Tensor

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def to_numpy(value: ArrayLike) -> npt.NDArray[Any]:
    """``value`` as a numpy array; a tensor is detached and copied to the host."""
    if hasattr(value, "detach"):  # a torch tensor, recognised without importing torch
        tensor = value.detach().cpu()
        # numpy has no bfloat16; widening a half type is exact
        if tensor.is_floating_point() and tensor.element_size() < 4:
            tensor = tensor.float()
        return np.asarray(tensor.numpy())
    return np.asarray(value)


def check_lengths(first_name: str, first: int, second_name: str, second: int) -> None:
    """Raise ValueError unless two arguments describe the same number of queries."""
    if first != second:
        raise ValueError(
            f"{first_name} and {second_name} must describe the same queries: "
            f"{first_name} has length {first}, {second_name} has length {second}"
        )


def as_count(value: SupportsIndex, name: str, low: int = 1) -> int:
    """An integer of at least ``low``; floats and booleans are refused."""
    if isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected an integer, got bool")
    try:
        number = operator.index(value)
    except TypeError:
        message = f"{name}={value!r}: expected an integer, got {type(value).__name__}"
        raise TypeError(message) from None
    if number < low:
        raise ValueError(f"{name}={number}: expected an integer >= {low}")
    return number


def as_rate(value: float, name: str, *, open_ends: bool = False) -> float:
    """A number in [0, 1], or strictly between with ``open_ends``."""
    number = float(value)
    if not (0.0 < number < 1.0 if open_ends else 0.0 <= number <= 1.0):  # NaN fails both
        ends = "strictly between 0 and 1" if open_ends else "in [0, 1]"
        raise ValueError(f"{name}={number!r}: expected a number {ends}")
    return number


def as_vector(value: ArrayLike, name: str) -> npt.NDArray[Any]:
    """A one-dimensional array with at least one entry."""
    array = to_numpy(value)
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape (n,), got {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty: expected at least one query")
    return array


def check_no_nan(array: npt.NDArray[Any], name: str) -> None:
    """Raise ValueError naming the first NaN's place."""
    where = np.argwhere(np.isnan(array))
    if len(where):
        place = ", ".join(str(int(axis)) for axis in where[0])
        raise ValueError(f"{name}[{place}] is NaN ({len(where)} NaN of {array.size} entries)")


def as_scores(value: ArrayLike, name: str = "scores") -> FloatArray:
    """Top-1 scores (n,) as float64; infinities are legal, NaN is not."""
    array = as_vector(value, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}")
    scores = array.astype(np.float64)
    check_no_nan(scores, name)
    return scores


def as_correct(value: ArrayLike, name: str = "correct") -> BoolArray:
    """Whether each query's top-1 label is right (n,): booleans, or numbers that are 0 or 1."""
    array = as_vector(value, name)
    if array.dtype.kind == "b":
        return array.astype(np.bool_)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be booleans or 0/1, got dtype {array.dtype}")
    odd = np.flatnonzero((array != 0) & (array != 1))
    if len(odd):
        raise ValueError(f"{name}[{odd[0]}] is {array[odd[0]]!s}: expected 0 or 1")
    return array.astype(np.bool_)


def as_scored(
    scores: ArrayLike, correct: ArrayLike, prefix: str = ""
) -> tuple[FloatArray, BoolArray]:
    """A checked (scores, correct) pair; ``prefix`` completes the names in error messages."""
    score_name, correct_name = f"{prefix}scores", f"{prefix}correct"
    checked_scores = as_scores(scores, score_name)
    checked_correct = as_correct(correct, correct_name)
    check_lengths(score_name, len(checked_scores), correct_name, len(checked_correct))
    return checked_scores, checked_correct


class Weights(NamedTuple):
    """Query weights in matrix form, and whether the caller asked for a single result."""

    matrix: FloatArray  # (S, n)
    single: bool

    def result(self, values: FloatArray) -> float | FloatArray:
        """``values`` (S,): a Python float for one weight vector, the array for a matrix."""
        return float(values[0]) if self.single else values


def as_weights(value: ArrayLike | None, num_queries: int) -> Weights:
    """Weights (n,), (S, n) or None (all 1): finite, not negative, each row with a positive sum."""
    if value is None:
        return Weights(np.ones((1, num_queries)), single=True)
    array = to_numpy(value)
    if array.ndim not in (1, 2) or array.shape[-1] != num_queries:
        raise ValueError(
            f"weights must have shape ({num_queries},) or (S, {num_queries}), got {array.shape}"
        )
    matrix = np.atleast_2d(array).astype(np.float64)
    # a NaN fails the first comparison, an infinity the second
    if matrix.size and not (matrix.min() >= 0.0 and np.isfinite(matrix.max())):
        raise ValueError("weights must be finite and not negative")
    if not (matrix.sum(axis=1) > 0.0).all():
        raise ValueError("weights sum to 0: expected at least one query with a positive weight")
    return Weights(matrix, single=array.ndim == 1)


def as_groups(value: ArrayLike, name: str = "groups") -> npt.NDArray[Any]:
    """Group identifiers (n,): integers or strings (floats only without NaN)."""
    groups = as_vector(value, name)
    if groups.dtype.kind == "f":
        check_no_nan(groups, name)
    return groups


# A sparse query-label relation in canonical CSR form, built from whatever the caller holds.


if TYPE_CHECKING:
    # a scipy.sparse matrix, (indptr, indices), a list of index arrays, a boolean (n, M) array,
    # an object whose to_dense() is a boolean (n, M) tensor, or a Relation
    RelationLike = Any

_ACCEPTED = (
    "expected a scipy.sparse matrix, an (indptr, indices) tuple, a list of index arrays, "
    "a boolean (queries, labels) array or an object with to_dense()"
)


@dataclass(frozen=True)
class Relation:
    """Pairs (query, label), each stored once, labels ascending within a query."""

    indptr: IntArray  # (n + 1,)
    indices: IntArray  # (nnz,)
    num_labels: int | None  # None: the source did not say

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def counts(self) -> IntArray:
        """Labels per query, (n,)."""
        return np.diff(self.indptr)

    @property
    def rows(self) -> IntArray:
        """The query of every pair, (nnz,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)

    def contains(self, labels: IntArray) -> BoolArray:
        """Which of ``labels`` (n, K) belong to their row's query; negative labels never do."""
        if not len(self.indices):
            return np.zeros(labels.shape, dtype=np.bool_)
        # One sorted int64 key per pair turns n small set look-ups into one binary search.
        width = max(int(labels.max(initial=0)), int(self.indices.max())) + 1
        keys = self.rows * width + self.indices  # (nnz,), ascending
        wanted = np.arange(len(self), dtype=np.int64)[:, None] * width + labels  # (n, K)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.asarray((keys[place] == wanted) & (labels >= 0), dtype=np.bool_)

    def take(self, rows: IntArray) -> Relation:
        """The relation of the given queries, in that order, repeats allowed."""
        counts = self.counts[rows]
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        shift = np.repeat(self.indptr[rows] - indptr[:-1], counts)
        return Relation(
            indptr, self.indices[np.arange(indptr[-1], dtype=np.int64) + shift], self.num_labels
        )


def as_relation(value: RelationLike, name: str) -> Relation:
    """``value`` as a Relation; an error names the argument ``name``."""
    if isinstance(value, Relation):
        return value
    if hasattr(value, "tocsr"):  # scipy.sparse, recognised without importing it
        if len(value.shape) != 2:
            raise ValueError(f"{name} must have shape (queries, labels), got {value.shape}")
        csr = value.tocsr()
        rows = np.repeat(np.arange(csr.shape[0], dtype=np.int64), np.diff(csr.indptr))
        stored = csr.data != 0  # an explicit zero is not a pair
        labels = csr.indices.astype(np.int64)
        return _canonical(rows[stored], labels[stored], csr.shape[0], csr.shape[1], name)
    if hasattr(value, "to_dense"):
        return _from_mask(to_numpy(value.to_dense()), name)
    if isinstance(value, np.ndarray):
        return _from_mask(value, name)
    if isinstance(value, tuple):
        return _from_csr(value, name)
    if isinstance(value, list):
        return _from_lists(value, name)
    raise TypeError(f"{name} is a {type(value).__name__}: {_ACCEPTED}")


def _from_mask(mask: npt.NDArray[Any], name: str) -> Relation:
    if mask.ndim != 2 or mask.dtype.kind != "b":
        raise TypeError(f"{name} has shape {mask.shape} and dtype {mask.dtype}: {_ACCEPTED}")
    rows, labels = np.nonzero(mask)
    return _canonical(rows, labels, mask.shape[0], mask.shape[1], name)


def _from_csr(pair: tuple[Any, ...], name: str) -> Relation:
    if len(pair) != 2:
        raise TypeError(f"{name} is a tuple of {len(pair)}: {_ACCEPTED}")
    indptr = _integers(to_numpy(pair[0]), f"{name} indptr")
    labels = _integers(to_numpy(pair[1]), f"{name} indices")
    if (
        len(indptr) == 0
        or indptr[0] != 0
        or indptr[-1] != len(labels)
        or (np.diff(indptr) < 0).any()
    ):
        raise ValueError(
            f"{name} indptr must rise from 0 to the number of indices ({len(labels)}); "
            "a plain pair of index arrays is passed as a list"
        )
    rows = np.repeat(np.arange(len(indptr) - 1, dtype=np.int64), np.diff(indptr))
    return _canonical(rows, labels, len(indptr) - 1, None, name)


def _from_lists(lists: list[Any], name: str) -> Relation:
    arrays = [to_numpy(row) for row in lists]
    for i, array in enumerate(arrays):
        if array.ndim != 1:
            raise TypeError(f"{name}[{i}] is not an array of label indices: {_ACCEPTED}")
    counts = np.array([len(array) for array in arrays], dtype=np.int64)
    # empty rows are left out: numpy types an empty list float, which would infect the rest
    filled = [array for array in arrays if len(array)]
    labels = _integers(np.concatenate(filled) if filled else np.empty(0, np.int64), name)
    rows = np.repeat(np.arange(len(arrays), dtype=np.int64), counts)
    return _canonical(rows, labels, len(arrays), None, name)


def _integers(array: npt.NDArray[Any], name: str) -> IntArray:
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}")
    if array.dtype.kind not in "iu" and len(array):
        raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
    return array.astype(np.int64)


def _canonical(
    rows: IntArray, labels: IntArray, num_rows: int, num_labels: int | None, name: str
) -> Relation:
    """Sort labels within each row and drop repeats; ``rows`` ascends."""
    if num_rows == 0:
        raise ValueError(f"{name} is empty: expected at least one query")
    if len(labels) and labels.min() < 0:
        row = int(rows[labels.argmin()])
        raise ValueError(f"{name} holds the negative label {labels.min()} in row {row}")
    width = int(labels.max(initial=0)) + 1
    keys = rows * width + labels
    if not (np.diff(keys) > 0).all():
        keys = np.sort(keys)
        keys = keys[np.diff(keys, prepend=-1) > 0]
        rows, labels = np.divmod(keys, width)
    indptr = np.searchsorted(rows, np.arange(num_rows + 1)).astype(np.int64)
    return Relation(indptr, labels, num_labels)
