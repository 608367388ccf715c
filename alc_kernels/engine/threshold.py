"""Threshold-consistent margin loss from the walk's sums and counts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from alc_kernels.engine.bases import FirstPositive, times
from alc_kernels.engine.interface import RowStatistics
from alc_kernels.settings import ThresholdMargin


@dataclass
class ThresholdTerms:
    """Both sides of the loss, unweighted, and what their gradients need. Positives come first."""

    values: Tensor  # (2,) acc
    counts: Tensor  # (2,) int64: active pairs
    divisor: Tensor | float  # (2,) int64, or the same for both sides: of a sum, to its value
    settings: ThresholdMargin
    hardest_active: Tensor | None  # (B,) bool with negative_scope="hardest"

    @cached_property
    def share(self) -> Tensor:
        """(2,) acc: of an active pair in its side's value."""
        return torch.ones_like(self.values) / self.divisor

    @property
    def total(self) -> Tensor:
        """0-d acc: the weighted sum of both sides."""
        by_positive, by_negative = self.settings.positive_weight, self.settings.negative_weight
        if by_positive == by_negative:
            return times(by_positive, self.values.sum())
        return times(by_positive, self.values[0]) + times(by_negative, self.values[1])

    @property
    def positive_scale(self) -> Tensor:
        """0-d acc: -d total / d s of an active positive."""
        return times(self.settings.positive_weight, self.share[0])

    @property
    def negative_scale(self) -> Tensor:
        """0-d acc: d total / d s of an active negative."""
        return times(self.settings.negative_weight, self.share[1])


@dataclass
class ThresholdSums:
    """A walk's sums over all rows, of positives and negatives. They add up over parts of a batch.

    ``values`` are the sums of (positive_margin - s) and (s - negative_margin) over active pairs.
    """

    values: Tensor  # (2,) acc
    counts: Tensor  # (2,) int64: active pairs
    hardest_active: Tensor | None  # (B,) bool with negative_scope="hardest"


def threshold_sums(found: RowStatistics, settings: ThresholdMargin) -> ThresholdSums:
    """Sum a walk's numbers per row."""
    hardest_active = None
    if settings.negative_scope == "hardest":
        assert found.top_score is not None and found.top_index is not None
        hardest = found.top_score[:, 0]
        hardest_active = (found.top_index[:, 0] >= 0) & (hardest >= settings.negative_margin)
        over = torch.where(hardest_active, hardest - settings.negative_margin, 0.0)
        active_negatives = hardest_active
    elif found.margin_sums is not None and found.margin_counts is not None:
        return ThresholdSums(found.margin_sums, found.margin_counts, None)
    else:
        assert found.negative_margin_sum is not None and found.negative_margin_count is not None
        over, active_negatives = found.negative_margin_sum, found.negative_margin_count
    assert found.positive_margin_sum is not None and found.positive_margin_count is not None
    return ThresholdSums(
        torch.stack([found.positive_margin_sum.sum(), over.sum()]),
        torch.stack([found.positive_margin_count.sum(), active_negatives.sum()]),
        hardest_active,
    )


def threshold_terms(sums: ThresholdSums, settings: ThresholdMargin, rows: int) -> ThresholdTerms:
    """From the sums of a batch of ``rows`` rows to the two sides of the loss."""
    # An empty set has a sum of 0, so that its count does not matter.
    active = settings.reduction == "active"
    divisor = sums.counts.clamp(min=1) if active else float(max(rows, 1))
    values = sums.values / divisor
    return ThresholdTerms(values, sums.counts, divisor, settings, sums.hardest_active)


def sides_of(terms: ThresholdTerms | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """(2,) values and counts to report; zeros without a threshold loss."""
    if terms is None:
        return like.new_zeros(2), like.new_zeros(2, dtype=torch.int64)
    return terms.values, terms.counts


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
