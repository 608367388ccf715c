"""Unit rows, their rounding, and the stored similarities S = Q K^T."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

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
