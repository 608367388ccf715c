"""Unit rows, their rounding, and the stored similarities S = Q K^T."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from alc_kernels.positives import Positives

ZERO_NORM = 1e-12

P = ParamSpec("P")
T = TypeVar("T")


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def outside_autocast(function: Callable[P, T]) -> Callable[P, T]:
    """Run ``function(queries, ...)`` with autocast off; its dtype becomes ``compute_dtype``.

    An explicit ``compute_dtype`` wins. float64 queries stay float64, as everywhere in autocast.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        queries = args[0] if args else kwargs.get("queries")
        if not isinstance(queries, Tensor) or not torch.is_autocast_enabled(queries.device.type):
            return function(*args, **kwargs)
        kind = queries.device.type
        if kwargs.get("compute_dtype") is None and queries.dtype != torch.float64:
            kwargs["compute_dtype"] = torch.get_autocast_dtype(kind)
        with torch.autocast(kind, enabled=False):
            return function(*args, **kwargs)

    return wrapped


def unit_rows(x: Tensor) -> Tensor:
    """x / |x|_2 per row, (n, d); rows with |x| <= 1e-12 become 0 and have gradient exactly 0.

    Each row is first divided by a power of two of its own size, held constant: x / |x| does not
    change with it, and the squares of large rows do not overflow.
    """
    size = functional.pad(x.detach().abs(), (0, 1)).amax(dim=1, keepdim=True)  # (n, 1), d may be 0
    scale = size / (2.0 * torch.frexp(size).mantissa)  # exactly 2^k <= size; NaN for 0
    tiny = size <= ZERO_NORM * ZERO_NORM  # far below: keeps 1 / scale finite
    y = x / torch.where(tiny, 1.0, scale)  # (n, d), largest element in [1, 2)
    square = (y * y).sum(dim=1, keepdim=True)  # (n, 1)
    zero = tiny | (square.detach().sqrt() * scale <= ZERO_NORM)
    norm = torch.where(zero, 1.0, square).sqrt()
    return torch.where(zero, 0.0, y) / norm


def round_through(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x with the values of x.to(dtype), kept in x's dtype; the gradient passes unrounded."""
    if dtype == x.dtype:
        return x
    return x + (x.to(dtype).to(x.dtype) - x).detach()


def rounding_of_products(width: int, acc: torch.dtype, computed: torch.dtype) -> float:
    """2 (d + 4) u, and what rounding the factors of float32 products adds, for unit rows.

    Args:
        width: d.
        acc: dtype of the sums: u = 2^-24 in float32, 2^-53 in float64.
        computed: dtype of the rows; half precision is multiplied exactly.
    """
    bits = 53 if acc == torch.float64 else 24
    factors = {"highest": 0.0, "high": 2.0**-9, "medium": 2.0**-7}
    more = factors[torch.get_float32_matmul_precision()] if computed == torch.float32 else 0.0
    return 2.0 * (width + 4) * 2.0**-bits + more


@dataclass(frozen=True)
class Batch:
    """Embeddings as the losses see them, and every similarity between them."""

    queries: Tensor  # (B, d) acc: unit rows (or the rows as given), rounded
    labels: Tensor  # (M, d) acc
    similarity: Tensor  # (B, M) acc
    finite: Tensor  # 0-d bool: every element of both inputs is finite
    given: tuple[Tensor, Tensor]  # the inputs, in acc, before anything was done to them
    # How far rounding may lift s over its guard: (1, 1) acc, or (B, M) where lengths differ
    rounding: Tensor | None = None

    def attach(self, value: Tensor, *others: object, valid: Tensor | None = None) -> Tensor:
        """``value`` itself, or NaN with NaN gradients where an input element is not finite.

        Adds sum(0 * x) over both inputs and over the tensors in ``others``, with NaN instead of
        0 for a bad input: all gradients become NaN, used or not, and a constant value (an empty
        batch) is attached to the graph with zero gradients.

        Args:
            value: any shape, acc.
            others: whatever else may receive a gradient; what does not is ignored.
            valid: 0-d bool, a further condition.
        """
        good = self.finite if valid is None else self.finite & valid
        for x in (*self.given, *others):
            if isinstance(x, Tensor) and x.requires_grad:
                factor = torch.where(good.to(x.device), 0.0, torch.nan).to(x.dtype)
                value = value + (x * factor).sum().to(value)
        # An empty tensor's sum is 0 whatever the factor, so the value itself is marked as well.
        return value + torch.where(good, 0.0, torch.nan).to(value.dtype)


def prepare(
    queries: Tensor,
    labels: Tensor,
    *,
    normalize: bool = True,
    compute_dtype: torch.dtype | None = None,
) -> Batch:
    """Normalise, round, multiply.

    A row is normalised in float32 (float64 for float64), rounded once to its own dtype, then to
    ``compute_dtype``; the products accumulate in float32 (float64).

    Args:
        queries: (B, d) floating point.
        labels: (M, d), same device; same dtype unless ``compute_dtype`` is given.
        normalize: divide each row by its length.
        compute_dtype: dtype of autocast, or None for the inputs' own.

    Raises:
        TypeError, ValueError: the inputs do not fit together.
    """
    for name, x in (("queries", queries), ("labels", labels)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
        if not x.is_floating_point():
            raise TypeError(f"{name}: expected a floating-point tensor, got {x.dtype}")
        if x.dim() != 2:
            raise ValueError(f"{name}: expected shape (rows, d), got {tuple(x.shape)}")
    if queries.shape[1] != labels.shape[1]:
        raise ValueError(
            f"labels: expected shape (M, {queries.shape[1]}) to match queries "
            f"{tuple(queries.shape)}, got {tuple(labels.shape)}"
        )
    if queries.device != labels.device:
        raise ValueError(f"labels: expected device {queries.device}, got {labels.device}")
    double = torch.float64 in (queries.dtype, labels.dtype)
    if queries.dtype != labels.dtype and (double or compute_dtype is None):
        raise TypeError(
            f"labels: expected dtype {queries.dtype} (as queries), got {labels.dtype}; "
            "different dtypes need autocast, float64 never mixes"
        )

    given, rows = [], []
    acc = accumulation_dtype(compute_dtype or queries.dtype)
    for x in (queries, labels):
        exact = x.to(accumulation_dtype(x.dtype))
        row = unit_rows(exact) if normalize else exact
        row = round_through(row, x.dtype)
        row = round_through(row, compute_dtype or x.dtype)
        given.append(exact)
        rows.append(row.to(acc))
    finite = torch.isfinite(queries).all() & torch.isfinite(labels).all()
    q, k = rows
    width, computed = queries.shape[1], compute_dtype or queries.dtype
    rounding = q.new_full((1, 1), rounding_of_products(width, acc, computed))
    if not normalize:
        lengths = [row.detach().double().norm(dim=1).to(acc) for row in rows]
        rounding = rounding * lengths[0][:, None] * lengths[1][None, :]
    return Batch(q, k, q @ k.T, finite, (given[0], given[1]), rounding)


def pick(similarity: Tensor, index: Tensor) -> Tensor:
    """s[i, index[i, t]] as (B, t), 0 where the index is -1. The gradient flows to s."""
    padded = functional.pad(similarity, (0, 1))  # (B, M + 1), last column 0
    return padded.gather(1, torch.where(index < 0, similarity.shape[1], index))


# Positives Y, excluded pairs X and negatives N as dense masks.


@dataclass(frozen=True)
class Relation:
    """Dense Y and X. A pair in both is positive."""

    positive: Tensor  # (B, M) bool: Y
    excluded: Tensor  # (B, M) bool: X without Y
    first: Tensor  # (B,) int64: each row's first positive, -1 where none
    first_of_column: Tensor  # (M,) int64: the same for the columns
    valid: Tensor  # 0-d bool: False where a CUDA index was out of range
    # (1, 1) or (B, M): how far rounding may lift a score over the guard; None: not at all
    rounding: Tensor | None = None

    def transpose(self) -> Relation:
        """Rows and columns exchanged."""
        return Relation(
            self.positive.T, self.excluded.T, self.first_of_column, self.first, self.valid,
            None if self.rounding is None else self.rounding.T,
        )  # fmt: skip

    def negatives(self, similarity: Tensor, exclude_above: float | None = None) -> Tensor:
        """(B, M) bool: N = {not Y, not X}, without those above s_first - exclude_above.

        What rounding may have lifted over that counts as above it, so that an exact copy of the
        positive does. The choice is detached. A row without a positive has nothing to compare
        with and keeps all its negatives.
        """
        negative = ~self.positive & ~self.excluded
        if exclude_above is None:
            return negative
        s = similarity.detach()
        guard = pick(s, self.first[:, None]) - exclude_above  # (B, 1)
        if self.rounding is not None:
            guard = guard - self.rounding
        above = (s > guard) & (self.first >= 0)[:, None]
        return negative & ~above


def _as_relation(
    name: str, given: object, shape: tuple[int, int], device: torch.device
) -> tuple[Positives, Tensor]:
    """A Positives of the given shape, and whether its indices were in range (0-d bool)."""
    valid = torch.ones((), dtype=torch.bool, device=device)
    num_queries, num_labels = shape
    if isinstance(given, Tensor):
        integer = not (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool)
        if not integer:
            raise TypeError(f"{name}: expected an integer tensor, got {given.dtype}")
        if given.shape != (num_queries,):
            raise ValueError(
                f"{name}: expected shape ({num_queries},), one label per query, "
                f"got {tuple(given.shape)}"
            )
        if given.device != device:
            raise ValueError(f"{name}: expected device {device}, got {given.device}")
        if given.is_cuda:  # clamped and flagged: raising would make the host wait
            inside = (given >= 0) & (given < num_labels)
            valid = inside.all()
            if num_labels == 0:
                return Positives.from_pairs(given[:0], given[:0], shape), valid
            given = given.clamp(0, num_labels - 1)
        elif given.numel() and not 0 <= int(given.min()) <= int(given.max()) < num_labels:
            bad = int(given.min()) if int(given.min()) < 0 else int(given.max())
            raise IndexError(f"{name}: index {bad} is out of range for {num_labels} labels")
        given = Positives.from_index(given, num_labels)
    if not isinstance(given, Positives):
        raise TypeError(
            f"{name}: expected None, an integer tensor or Positives, got {type(given).__name__}"
        )
    if given.shape != shape:
        raise ValueError(f"{name}: expected shape {shape} (queries, labels), got {given.shape}")
    if given.device is not None and given.device != device:
        raise ValueError(f"{name}: expected device {device}, got {given.device}")
    return given, valid


def resolve(
    batch: Batch, positives: Positives | Tensor | None, exclude: Positives | Tensor | None
) -> Relation:
    """Dense masks from whatever the caller gave.

    Args:
        batch: B queries and M labels.
        positives: None (the diagonal, B == M), (B,) integers or Positives.
        exclude: None, (B,) integers or Positives.

    Raises:
        ValueError, TypeError, IndexError: naming the argument.
    """
    shape = (batch.similarity.shape[0], batch.similarity.shape[1])
    device = batch.similarity.device
    if positives is None:
        if shape[0] != shape[1]:
            raise ValueError(
                f"positives: the default pairs query i with label i and needs as many labels as "
                f"queries, got {shape[0]} queries and {shape[1]} labels; pass positives"
            )
        positives = Positives.diagonal(shape[0])
    given, valid = _as_relation("positives", positives, shape, device)
    y = given.to_dense(device)
    x = torch.zeros_like(y)
    if exclude is not None:
        given_x, valid_x = _as_relation("exclude", exclude, shape, device)
        x, valid = given_x.to_dense(device), valid & valid_x
    firsts = given.first(device), given.transpose().first(device)
    return Relation(y, x & ~y, *firsts, valid, batch.rounding)


# From one value per row to the loss.


def check_reduction(
    batch: Batch, reduction: str, symmetric: object, row_weight: Tensor | None
) -> None:
    """Raise when ``reduction`` or ``row_weight`` does not fit."""
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction={reduction!r}: expected 'mean' or 'none'")
    if reduction == "none" and symmetric is not False:
        raise ValueError(
            f"reduction='none' with symmetric={symmetric!r}: the column side has no row to be "
            "reported in; use reduction='mean'"
        )
    if row_weight is None:
        return
    rows = batch.similarity.shape[0]
    if not isinstance(row_weight, Tensor):
        raise TypeError(f"row_weight: expected a tensor, got {type(row_weight).__name__}")
    if row_weight.shape != (rows,) or not row_weight.is_floating_point():
        raise ValueError(
            f"row_weight: expected a floating-point tensor of shape ({rows},), "
            f"got shape {tuple(row_weight.shape)}, {row_weight.dtype}"
        )
    if row_weight.device != batch.similarity.device:
        raise ValueError(
            f"row_weight: expected device {batch.similarity.device}, got {row_weight.device}"
        )


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, 0 (with zero gradients) where the denominator is 0."""
    empty = denominator == 0
    return torch.where(empty, 0.0, numerator) / torch.where(empty, 1.0, denominator)


def reduce_rows(
    values: Tensor, rows: Tensor, row_weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """sum_R w l / sum_R w, 0 where that is empty; or w l per row, 0 outside R.

    Args:
        values: (B,) l.
        rows: (B,) bool, R.
        row_weight: (B,) w, None for 1.
        reduction: "mean" (0-d) or "none" (B,).
    """
    weight = torch.ones_like(values) if row_weight is None else row_weight.to(values.dtype)
    weight = torch.where(rows, weight, 0.0)  # (B,)
    weighted = weight * torch.where(rows, values, 0.0)  # (B,)
    if reduction == "none":
        return weighted
    return ratio(weighted.sum(), weight.sum())
