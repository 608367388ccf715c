"""Threshold-consistent margin, TCM."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from alc_kernels.positives import Positives
from alc_kernels.reference.batch import Batch, Relation, outside_autocast, prepare, ratio, resolve
from alc_kernels.reference.mining import largest
from alc_kernels.settings import ThresholdMargin


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
        exclude_above: false-negative guard, see ``reference.relation.Relation.negatives``.
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
