"""The gradient of one direction as the passes that compute it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from alc_kernels.engine.bases import FirstPositive, RowLoss, log_sum_exp_over
from alc_kernels.engine.interface import GradientRequest, RowStatistics, WalkRequest
from alc_kernels.engine.specification import Objective
from alc_kernels.engine.threshold import (
    ThresholdTerms,
    hardest_negative_slope,
    single_positive_slope,
)
from alc_kernels.settings import Base, DynamicTriplet, Sigmoid, Softmax, ThresholdMargin, Triplet


@dataclass(frozen=True)
class GradientPlan:
    """A few pairs per row, a pass over all pairs, or both."""

    index: Tensor | None  # (B, t) int64, -1: nothing
    slope: Tensor | None  # (B, t) acc
    dense: GradientRequest | None


def gradient_plan(
    found: RowStatistics,
    rows: RowLoss | None,
    row_scale: Tensor | None,
    threshold: ThresholdMargin | None,
    terms: ThresholdTerms | None,
    one_positive: bool,
    first: FirstPositive,
    want_scalars: bool,
    columns: GradientRequest | None = None,
) -> GradientPlan:
    """What to compute for one direction.

    Args:
        found: the direction's walk.
        rows: its base loss, or None.
        row_scale: (B,) acc, d total / d value_i; None without a base loss.
        threshold, terms: the threshold loss, in the forward direction.
        one_positive: every row has exactly one positive.
        want_scalars: sums for the gradients of temperature, scale and bias.
        columns: of the other direction, for a pass that makes both; see ``GradientRequest``.
    """
    dense: GradientRequest | None = None
    pairs: list[tuple[Tensor, Tensor]] = []
    if rows is not None and row_scale is not None:
        if rows.dense is not None:
            dense = replace(
                rows.dense,
                row_scale=row_scale,
                want_scalars=want_scalars,
                columns=columns,
                similarities=found.similarities,
            )
        elif rows.pair_index is not None and rows.pair_slope is not None:
            pairs.append((rows.pair_index, row_scale[:, None] * rows.pair_slope))
    if threshold is not None and terms is not None:
        margins = replace(dense or GradientRequest(kind=None), active=found.active)
        if threshold.negative_scope == "hardest":
            pairs.append(hardest_negative_slope(found, terms))
        elif threshold.negative_weight:
            margins = replace(
                margins,
                negative_margin=threshold.negative_margin,
                negative_margin_scale=terms.negative_scale,
            )
        if threshold.positive_weight:
            if one_positive and margins.kind is None:
                pairs.append(single_positive_slope(first, threshold, terms))
            else:
                margins = replace(
                    margins,
                    positive_margin=threshold.positive_margin,
                    positive_margin_scale=terms.positive_scale,
                )
        sides = (margins.positive_margin, margins.negative_margin)
        if margins.kind is not None or sides != (None, None):
            dense = margins
    if not pairs:
        return GradientPlan(None, None, dense)
    index = torch.cat([index for index, _ in pairs], dim=1)
    slope = torch.cat([slope for _, slope in pairs], dim=1)
    return GradientPlan(index, slope, dense)


def scalar_gradient(rows: RowLoss, weighted: Tensor, plain: Tensor) -> Tensor:
    """(2,) acc: gradients of the scalars from the sums of ``GradientResult`` over all rows."""
    inverse_temperature = None if rows.dense is None else rows.dense.inverse_temperature
    if inverse_temperature is None:
        return torch.stack([weighted, plain])  # x = scale s + bias
    # z = s / T + offset, so dz/dT = -s / T^2
    slope = -(inverse_temperature * inverse_temperature)
    return torch.stack([weighted * slope, torch.zeros_like(slope)])


# What a walk is asked for, and what ``terms`` and the ALC parts take from it.


def base_request(
    base: Base | None,
    one_positive: bool,
    scalars: Tensor,
    label_offset: Tensor | None,
    **more: Any,
) -> WalkRequest:
    """What the base loss needs of a walk, and ``more``. ``one_positive``: every row has one."""
    return WalkRequest(**_base_fields(base, one_positive, scalars, label_offset) | more)


def walk_request(
    base: Base | None,
    objective: Objective,
    one_positive: bool,
    scalars: Tensor,
    label_offset: Tensor | None,
    **more: Any,
) -> WalkRequest:
    """Everything that the walk over the rows must leave, and ``more``."""
    wanted = _base_fields(base, one_positive, scalars, label_offset) | more
    threshold = objective.threshold
    if threshold is not None:
        wanted["positive_margin"] = threshold.positive_margin
        if threshold.negative_scope == "all":
            wanted["negative_margin"] = threshold.negative_margin
    if objective.mine or (threshold is not None and threshold.negative_scope == "hardest"):
        wanted["top_k"] = max(wanted.get("top_k", 0), 1)
    if objective.mine:
        wanted["hardest_positive"] = True
    return WalkRequest(**wanted)


def _base_fields(
    base: Base | None, one_positive: bool, scalars: Tensor, label_offset: Tensor | None
) -> dict[str, Any]:
    """Fields of ``WalkRequest``."""
    if isinstance(base, Triplet | DynamicTriplet):
        return {"top_k": base.num_negatives, "hardest_positive": base.positive == "hardest"}
    if isinstance(base, Softmax):
        return {
            "softmax": log_sum_exp_over(one_positive, base),
            "inverse_temperature": scalars[0].reciprocal(),
            "label_offset": label_offset,
        }
    if isinstance(base, Sigmoid):
        return {"sigmoid": True, "scale": scalars[0], "bias": scalars[1]}
    return {}


def mined_pairs(
    found: RowStatistics, objective: Objective, acc: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """(B,) scores and (B,) indices of the hardest negatives, (B, 2) pairs.

    Empty where nobody asks for them.
    """
    if not objective.mine:
        score = found.num_positives.new_empty(0, dtype=acc)
        return score, found.num_positives.new_empty(0), found.num_positives.new_empty(0, 2)
    assert found.top_score is not None and found.top_index is not None
    hardest = found.top_index[:, 0]
    if not objective.pair_weight and not objective.gather:
        return found.top_score[:, 0], hardest, found.num_positives.new_empty(0, 2)
    assert found.positive_index is not None
    members = torch.minimum(found.positive_index, hardest) >= 0  # R
    pair = torch.stack([found.positive_index, hardest], dim=1)
    return found.top_score[:, 0], hardest, torch.where(members[:, None], pair, -1)
