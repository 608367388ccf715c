"""Threshold-consistent margin loss from the walk's sums and counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels.backends.interface import RowStatistics
from alc_kernels.objective.rows import FirstPositive, times
from alc_kernels.settings import ThresholdMargin


@dataclass(frozen=True)
class ThresholdTerms:
    """Both sides of the loss, unweighted, and what their gradients need."""

    positive: Tensor  # 0-d acc
    negative: Tensor  # 0-d acc
    active_positives: Tensor  # 0-d int64
    active_negatives: Tensor  # 0-d int64
    positive_scale: Tensor  # 0-d acc: -d total / d s of an active positive
    negative_scale: Tensor  # 0-d acc: +d total / d s of an active negative
    hardest_active: Tensor | None  # (B,) bool with negative_scope="hardest"


@dataclass(frozen=True)
class ThresholdSums:
    """A walk's sums over all rows. They add up over parts of a batch."""

    short: Tensor  # 0-d acc: sum of (positive_margin - s) over the active positives
    over: Tensor  # 0-d acc: sum of (s - negative_margin) over the active negatives
    active_positives: Tensor  # 0-d int64
    active_negatives: Tensor  # 0-d int64
    hardest_active: Tensor | None  # (B,) bool with negative_scope="hardest"


def threshold_sums(found: RowStatistics, settings: ThresholdMargin) -> ThresholdSums:
    """Sum a walk's numbers per row."""
    assert found.positive_margin_sum is not None and found.positive_margin_count is not None
    hardest_active = None
    if settings.negative_scope == "hardest":
        assert found.top_score is not None and found.top_index is not None
        hardest = found.top_score[:, 0]
        hardest_active = (found.top_index[:, 0] >= 0) & (hardest >= settings.negative_margin)
        over = torch.where(hardest_active, hardest - settings.negative_margin, 0.0).sum()
        active_negatives = hardest_active.sum()
    else:
        assert found.negative_margin_sum is not None and found.negative_margin_count is not None
        over, active_negatives = found.negative_margin_sum.sum(), found.negative_margin_count.sum()
    short, active_positives = found.positive_margin_sum.sum(), found.positive_margin_count.sum()
    return ThresholdSums(short, over, active_positives, active_negatives, hardest_active)


def threshold_terms(sums: ThresholdSums, settings: ThresholdMargin, rows: int) -> ThresholdTerms:
    """From the sums of a batch of ``rows`` rows to the two sides of the loss."""
    # An empty set has a sum of 0, so that its count does not matter.
    per_positive: float | Tensor = 1.0 / max(rows, 1)
    per_negative = per_positive
    if settings.reduction == "active":
        per_positive, per_negative = (
            count.clamp(min=1).to(sums.short.dtype).reciprocal()
            for count in (sums.active_positives, sums.active_negatives)
        )
    return ThresholdTerms(
        positive=sums.short * per_positive,
        negative=sums.over * per_negative,
        active_positives=sums.active_positives,
        active_negatives=sums.active_negatives,
        positive_scale=_scale(settings.positive_weight, per_positive, sums.short),
        negative_scale=_scale(settings.negative_weight, per_negative, sums.over),
        hardest_active=sums.hardest_active,
    )


def _scale(weight: float, per_pair: float | Tensor, like: Tensor) -> Tensor:
    """0-d acc: the weight of an active pair."""
    if isinstance(per_pair, Tensor):
        return times(weight, per_pair)
    return torch.full_like(like, weight * per_pair)


def single_positive_slope(
    first: FirstPositive, settings: ThresholdMargin, terms: ThresholdTerms
) -> tuple[Tensor, Tensor]:
    """(B, 1) index and slope of the positive side where every row has exactly one positive."""
    index, score = first()
    active = score <= settings.positive_margin
    return index[:, None], torch.where(active, -terms.positive_scale, 0.0)[:, None]


def hardest_negative_slope(found: RowStatistics, terms: ThresholdTerms) -> tuple[Tensor, Tensor]:
    """(B, 1) index and slope of the negative side over hardest negatives."""
    assert found.top_index is not None and terms.hardest_active is not None
    slope = torch.where(terms.hardest_active, terms.negative_scale, 0.0)
    return found.top_index[:, :1], slope[:, None]
