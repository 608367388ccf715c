"""Softmax cross-entropy, plain and decoupled: value per row from the log-sum-exp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from alc_kernels.backends.interface import GradientRequest, RowStatistics
from alc_kernels.objective.rows import RowLoss
from alc_kernels.settings import Softmax

LINEAR = 50.0  # softplus(x) is x from here on, in float64 too
ONE_POSITIVE = ("diagonal", "index")  # relations with exactly one positive in every row


def log_sum_exp_over(one_positive: bool, base: Softmax) -> Literal["all", "negatives"]:
    """Which labels the walk's log-sum-exp takes in.

    With one positive in every row both forms are the same loss. That of the negatives has no
    cancellation: 1 - exp(z_p) / D is sigmoid(lse_N - z_p), however close to 0.
    """
    return "negatives" if base.decoupled or one_positive else "all"


def softmax_rows(
    found: RowStatistics,
    base: Softmax,
    temperature: Tensor,
    label_offset: Tensor | None,
    one_positive: bool,
    positive_sums: Callable[[Tensor], tuple[Tensor, Tensor]],
    full: bool = False,
) -> RowLoss:
    """Mean over a row's positives of -log(exp(z_p) / D_p).

    Args:
        one_positive: every row has exactly one.
        positive_sums: (B,) log_sum_exp to what ``Backend.positive_pass`` returns for it.
        full: every row is known to have a positive and a negative.
    """
    assert found.log_sum_exp is not None and found.positive_logit_sum is not None
    negative_scale = None
    of_negatives = log_sum_exp_over(one_positive, base) == "negatives"
    if of_negatives:
        # D_p = exp(z_p) + sum over negatives, so -log(exp(z_p) / D_p) = softplus(lse_N - z_p).
        if one_positive:
            gap = found.log_sum_exp - found.positive_logit_sum
            values = F.softplus(gap, threshold=LINEAR)
            if found.gradient is None:
                negative_scale = gap.sigmoid()
        else:
            count = found.num_positives.clamp(min=1)
            softplus_sum, sigmoid_sum = positive_sums(found.log_sum_exp)
            values, negative_scale = softplus_sum / count, sigmoid_sum / count
    else:
        values = found.log_sum_exp - found.positive_logit_sum / found.num_positives.clamp(min=1)
    members = None
    if not full:
        members = (found.num_positives > 0) & (found.num_negatives > 0)  # R
        values = torch.where(members, values, 0.0)
    return RowLoss(
        values=values,
        members=members,
        dense=GradientRequest(
            kind="decoupled" if of_negatives else "softmax",
            num_positives=found.num_positives,
            log_sum_exp=found.log_sum_exp,
            negative_scale=negative_scale,
            inverse_temperature=temperature.reciprocal(),
            label_offset=label_offset,
        ),
    )
