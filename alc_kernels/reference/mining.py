"""Hardest negatives and positives, retrieval, and the threshold-consistent margin."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from alc_kernels.positives import Positives
from alc_kernels.reference.batch import (
    Batch,
    Relation,
    outside_autocast,
    pick,
    prepare,
    ratio,
    resolve,
)
from alc_kernels.settings import ThresholdMargin


def largest(similarity: Tensor, allowed: Tensor, k: int) -> Tensor:
    """(B, k) int64: columns of the k largest s over ``allowed``, ties by smaller column.

    Descending; -1 where a row has fewer than k. No gradient flows through the choice.
    """
    key = (similarity.detach() + 0.0).masked_fill(~allowed, -torch.inf)  # + 0.0: no -0.0
    order = key.sort(dim=1, descending=True, stable=True).indices[:, :k]
    index = torch.where(allowed.gather(1, order), order, -1)
    return torch.nn.functional.pad(index, (0, k - index.shape[1]), value=-1)


def hardest_positive(similarity: Tensor, positive: Tensor) -> Tensor:
    """(B,) int64: column of the smallest s over the positives, ties by smaller column, else -1."""
    return largest(-similarity, positive, 1)[:, 0]


def rows_in_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """(B,) bool: R, the rows with at least one positive and at least one negative."""
    return positive.any(dim=1) & negative.any(dim=1)


def _check_k(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k: expected an integer >= 1, got {k!r}")


def _scores(batch: Batch, index: Tensor, valid: Tensor | None = None) -> Tensor:
    """(B, k): s at the index, -inf where it is -1, NaN everywhere for non-finite inputs."""
    scores = torch.where(index < 0, -torch.inf, pick(batch.similarity, index))
    return batch.attach(scores, valid=valid)


@outside_autocast
def hardest_negatives(
    queries: Tensor,
    labels: Tensor,
    positives: Positives | Tensor | None = None,
    exclude: Positives | Tensor | None = None,
    k: int = 1,
    *,
    normalize: bool = True,
    exclude_above: float | None = None,
    compute_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Per row the k most similar negatives, most similar first.

    Args:
        queries: (B, d) floating point.
        labels: (M, d).
        positives: None (diagonal, B == M), (B,) integers or Positives (B, M).
        exclude: None, (B,) integers or Positives: pairs that are no negatives either.
        k: how many, >= 1.
        normalize: compare directions only.
        exclude_above: false-negative guard, see ``reference.batch.Relation.negatives``.
        compute_dtype: dtype the unit rows are rounded to, as under autocast.

    Returns:
        scores (B, k), float32 (float64 for float64 inputs), differentiable, and indices (B, k)
        int64. Equal scores by smaller label. Missing places: -inf and -1.

    Raises:
        ValueError, TypeError, IndexError: an argument does not fit, named in the message.
    """
    _check_k(k)
    batch = prepare(queries, labels, normalize=normalize, compute_dtype=compute_dtype)
    relation = resolve(batch, positives, exclude)
    negative = relation.negatives(batch.similarity, exclude_above)
    index = largest(batch.similarity, negative, k)
    return _scores(batch, index, relation.valid), index


@outside_autocast
def topk_similarity(
    queries: Tensor,
    labels: Tensor,
    k: int,
    exclude: Positives | Tensor | None = None,
    *,
    normalize: bool = True,
    compute_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Per row the k most similar labels, without the excluded ones.

    Args, returns and errors as in :func:`hardest_negatives`.
    """
    _check_k(k)
    batch = prepare(queries, labels, normalize=normalize, compute_dtype=compute_dtype)
    b, m = batch.similarity.shape
    none = torch.zeros(0, dtype=torch.int64, device=queries.device)
    nothing = Positives.from_pairs(none, none, (b, m))
    relation: Relation = resolve(batch, nothing, exclude)
    index = largest(batch.similarity, ~relation.excluded, k)
    return _scores(batch, index, relation.valid), index


# Threshold-consistent margin, TCM.


class ThresholdParts(NamedTuple):
    """The two sides before their weights, and how many pairs were active."""

    positive: Tensor  # 0-d acc
    negative: Tensor  # 0-d acc
    active_positives: Tensor  # 0-d int64
    active_negatives: Tensor  # 0-d int64


def threshold_parts(
    batch: Batch,
    relation: Relation,
    settings: ThresholdMargin,
    *,
    exclude_above: float | None = None,
) -> ThresholdParts:
    """Both sides of a prepared batch; rows without positives take part."""
    s = batch.similarity
    negative = relation.negatives(s, exclude_above)
    if settings.negative_scope == "hardest":
        hardest = largest(s, negative, 1)  # (B, 1)
        negative = negative & (torch.arange(s.shape[1], device=s.device) == hardest)
    low = relation.positive & (s <= settings.positive_margin)  # (B, M)
    high = negative & (s >= settings.negative_margin)  # (B, M)
    shortfall = torch.where(low, settings.positive_margin - s, 0.0).sum()
    excess = torch.where(high, s - settings.negative_margin, 0.0).sum()
    divisors = (low.sum(), high.sum())
    if settings.reduction == "rows":
        rows = torch.tensor(s.shape[0], device=s.device)
        divisors = (rows, rows)
    return ThresholdParts(
        batch.attach(ratio(shortfall, divisors[0].to(s.dtype)), valid=relation.valid),
        batch.attach(ratio(excess, divisors[1].to(s.dtype)), valid=relation.valid),
        low.sum(),
        high.sum(),
    )


@outside_autocast
def threshold_margin_loss(
    queries: Tensor,
    labels: Tensor,
    positives: Positives | Tensor | None = None,
    exclude: Positives | Tensor | None = None,
    *,
    positive_margin: float = 0.9,
    negative_margin: float = 0.5,
    positive_weight: float = 1.0,
    negative_weight: float = 1.0,
    negative_scope: Literal["all", "hardest"] = "all",
    reduction: Literal["active", "rows"] = "active",
    normalize: bool = True,
    exclude_above: float | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Threshold-consistent margin loss (arXiv 2307.04047).

    Args:
        queries: (B, d) floating point.
        labels: (M, d).
        positives: None (diagonal, B == M), (B,) integers or Positives (B, M).
        exclude: None, (B,) integers or Positives.
        positive_margin ... reduction: see :class:`alc_kernels.ThresholdMargin`.
        normalize: compare directions only.
        exclude_above: false-negative guard, see ``reference.batch.Relation.negatives``.
        compute_dtype: dtype the unit rows are rounded to, as under autocast.

    Returns:
        0-d float32 (float64 for float64 inputs).

    Raises:
        ValueError, TypeError, IndexError: an argument does not fit, named in the message.
    """
    settings = ThresholdMargin(
        positive_margin,
        negative_margin,
        positive_weight,
        negative_weight,
        negative_scope,
        reduction,
    )
    batch = prepare(queries, labels, normalize=normalize, compute_dtype=compute_dtype)
    relation = resolve(batch, positives, exclude)
    parts = threshold_parts(batch, relation, settings, exclude_above=exclude_above)
    return positive_weight * parts.positive + negative_weight * parts.negative
