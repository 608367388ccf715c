"""What a walk is asked for, and what ``terms`` and the ALC parts take from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alc_kernels.backends.interface import RowStatistics, WalkRequest
from alc_kernels.objective.softmax import log_sum_exp_over
from alc_kernels.objective.specification import Objective
from alc_kernels.settings import Base, DynamicTriplet, Sigmoid, Softmax, Triplet


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
