"""What a walk is asked for, and what ``terms`` and the ALC parts take from it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from alc_kernels.backends.interface import RowStatistics, WalkRequest
from alc_kernels.objective.softmax import log_sum_exp_over
from alc_kernels.objective.specification import Objective
from alc_kernels.settings import Base, DynamicTriplet, Sigmoid, Softmax, Triplet


def base_request(
    base: Base | None, one_positive: bool, scalars: Tensor, label_offset: Tensor | None
) -> WalkRequest:
    """What the base loss needs of a walk. ``one_positive``: every row has exactly one."""
    if isinstance(base, Triplet | DynamicTriplet):
        return WalkRequest(top_k=base.num_negatives, hardest_positive=base.positive == "hardest")
    if isinstance(base, Softmax):
        return WalkRequest(
            softmax=log_sum_exp_over(one_positive, base),
            inverse_temperature=scalars[0].reciprocal(),
            label_offset=label_offset,
        )
    if isinstance(base, Sigmoid):
        return WalkRequest(sigmoid=True, scale=scalars[0], bias=scalars[1])
    return WalkRequest()


def walk_request(
    base: Base | None,
    objective: Objective,
    one_positive: bool,
    scalars: Tensor,
    label_offset: Tensor | None,
) -> WalkRequest:
    """Everything that the walk over the rows must leave."""
    request = base_request(base, one_positive, scalars, label_offset)
    threshold = objective.threshold
    if threshold is not None:
        request = replace(request, positive_margin=threshold.positive_margin)
        if threshold.negative_scope == "all":
            request = replace(request, negative_margin=threshold.negative_margin)
        else:
            request = replace(request, top_k=max(request.top_k, 1))
    if objective.mine:
        request = replace(request, top_k=max(request.top_k, 1), hardest_positive=True)
    return request


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
