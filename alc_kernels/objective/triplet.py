"""Triplet and dynamic triplet: value and slope per row from the mined scores."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.backends.interface import RowStatistics
from alc_kernels.objective.rows import FirstPositive, RowLoss
from alc_kernels.settings import DynamicTriplet, Triplet


def triplet_rows(
    found: RowStatistics, base: Triplet | DynamicTriplet, first: FirstPositive, full: bool = False
) -> RowLoss:
    """Value and slopes of each row's triplets. ``found`` holds the hardest negatives.

    ``full``: every row is known to have a positive and a negative.
    """
    assert found.top_score is not None and found.top_index is not None
    s_n = found.top_score[:, : base.num_negatives]  # (B, k)
    n = found.top_index[:, : base.num_negatives]
    p, s_p = _positive(found, base, first)
    exists = n >= 0
    members = None
    valid = exists
    if not full:
        members = (found.num_positives > 0) & (found.num_negatives > 0)  # R
        valid = exists & members[:, None]
    lead = torch.where(valid, s_p[:, None] - s_n, torch.inf)  # (B, k)
    loss, active, pull = _hinge(lead, base)

    if base.weight_temperature is None:
        count = exists.sum(dim=1, keepdim=True).clamp(min=1)
        values = loss.sum(dim=1) / count[:, 0]
        slope_n = pull / count
        slope_p = -slope_n.sum(dim=1)
    else:
        weight = _weights(s_n, active, base.weight_temperature)
        values = (weight * loss).sum(dim=1)
        # w is a softmax of the scores: d value / d s_n = w (1 + (loss - value) / t)
        slope_n = weight * (1.0 + (loss - values[:, None]) / base.weight_temperature)
        # The terms (loss - value) sum to 0 under w, so the positive carries exactly -sum w.
        slope_p = -weight.sum(dim=1)
        if isinstance(base, DynamicTriplet) and base.band_gradient > 0:
            # Nothing active: equal weights, and what there is lies in the band.
            count = exists.sum(dim=1, keepdim=True).clamp(min=1)
            equal = torch.where(active.any(dim=1, keepdim=True), 0.0, pull / count)
            slope_n = slope_n + equal
            slope_p = slope_p - equal.sum(dim=1)
    return RowLoss(
        values=values,
        members=members,
        pair_index=torch.cat([n, p[:, None]], dim=1),
        pair_slope=torch.cat([slope_n, slope_p[:, None]], dim=1),
    )


def _positive(
    found: RowStatistics, base: Triplet | DynamicTriplet, first: FirstPositive
) -> tuple[Tensor, Tensor]:
    """(B,) index and score of the positive that leads the row's triplets."""
    if base.positive == "hardest":
        assert found.positive_index is not None and found.positive_score is not None
        return found.positive_index, found.positive_score
    return first()


def _hinge(lead: Tensor, base: Triplet | DynamicTriplet) -> tuple[Tensor, Tensor, Tensor]:
    """(B, k) losses, the mask of active ones, and -d loss / d lead; nothing at a lead of +inf."""
    if isinstance(base, DynamicTriplet):
        active = lead < base.min_margin
        margin = lead.abs().clamp(base.min_margin, base.max_margin)
        pull = active.to(lead.dtype)
        if base.band_gradient > 0:
            in_band = ~active & (lead <= base.max_margin)
            pull = torch.where(in_band, base.band_gradient, pull)
    else:
        active = base.margin - lead > 0
        margin = torch.full_like(lead, base.margin)
        pull = active.to(lead.dtype)
    return torch.where(active, margin - lead, 0.0), active, pull


def _weights(s_n: Tensor, active: Tensor, temperature: float) -> Tensor:
    """Softmax of s / temperature over the active negatives, 0 elsewhere."""
    z = torch.where(active, s_n / temperature, -torch.inf)
    largest = z.amax(dim=1, keepdim=True) if z.shape[1] else z
    e = torch.where(active, (z - largest).exp(), 0.0)
    return e / e.sum(dim=1, keepdim=True).clamp(min=torch.finfo(e.dtype).tiny)
