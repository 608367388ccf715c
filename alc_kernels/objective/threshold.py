"""Threshold-consistent margin loss from the walk's sums and counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels.backends.interface import Backend, Problem, RowStatistics
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


def threshold_terms(found: RowStatistics, settings: ThresholdMargin) -> ThresholdTerms:
    """Reduce a walk's sums per row to the two sides of the loss."""
    assert found.positive_margin_sum is not None and found.positive_margin_count is not None
    rows = found.num_positives.numel()
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

    def share(active: Tensor) -> Tensor:
        count = active if settings.reduction == "active" else torch.full_like(active, rows)
        return torch.where(count > 0, 1.0 / count.to(short.dtype), 0.0)

    per_positive, per_negative = share(active_positives), share(active_negatives)
    return ThresholdTerms(
        positive=short * per_positive,
        negative=over * per_negative,
        active_positives=active_positives,
        active_negatives=active_negatives,
        positive_scale=settings.positive_weight * per_positive,
        negative_scale=settings.negative_weight * per_negative,
        hardest_active=hardest_active,
    )


def single_positive_slope(
    backend: Backend, problem: Problem, settings: ThresholdMargin, terms: ThresholdTerms
) -> tuple[Tensor, Tensor]:
    """(B, 1) index and slope of the positive side where every row has exactly one positive."""
    first = problem.positives.first(problem.queries.device)[:, None]
    active = backend.score_pairs(problem, first) <= settings.positive_margin
    return first, torch.where(active, -terms.positive_scale, 0.0)


def hardest_negative_slope(found: RowStatistics, terms: ThresholdTerms) -> tuple[Tensor, Tensor]:
    """(B, 1) index and slope of the negative side over hardest negatives."""
    assert found.top_index is not None and terms.hardest_active is not None
    slope = torch.where(terms.hardest_active, terms.negative_scale, 0.0)
    return found.top_index[:, :1], slope[:, None]
