"""Validation of per-query inputs: numpy arrays or torch tensors in, checked numpy arrays out."""

from __future__ import annotations

import operator
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
