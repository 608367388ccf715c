"""A walk evaluated naively: the whole of S, in float64, from the inputs as they are rounded.

In float32 (``dtype``) the same code says how much rounding plain PyTorch makes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from alc_kernels.engine.interface import Problem, RowStatistics, WalkRequest


def similarities(problem: Problem, dtype: torch.dtype = torch.float64) -> Tensor:
    """(B, M)."""
    return problem.queries.to(dtype) @ problem.labels.to(dtype).T


def negatives_of(problem: Problem, s: Tensor) -> tuple[Tensor, Tensor]:
    """(positive mask, negative mask), (B, M) bool each."""
    positive = problem.positives.to_dense(s.device)
    negative = ~positive & ~problem.exclude.to_dense(s.device)
    if problem.guard is not None:
        limit = problem.guard.to(s.dtype)[:, None]
        if problem.slack is not None:
            by_row, by_column = (x.to(s.dtype) for x in problem.slack)
            limit = limit - by_row[:, None] * by_column
        negative &= s <= limit
    return positive, negative


def ordered(s: Tensor, member: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest members per row, equal values by smaller column, padded with -inf and -1."""
    b, m = s.shape
    s = torch.where(member, s, float("-inf"))
    value, index = torch.sort(s, dim=1, descending=True, stable=True)
    index = torch.where(member.gather(1, index), index, -1)
    # Members that are themselves -inf do not occur in tests: padding follows all members.
    scores = s.new_full((b, k), float("-inf"))
    labels = index.new_full((b, k), -1)
    n = min(k, m)
    scores[:, :n], labels[:, :n] = value[:, :n], index[:, :n]
    return scores, labels


def dense_walk(
    problem: Problem, request: WalkRequest, dtype: torch.dtype = torch.float64
) -> RowStatistics:
    """Every statistic of the request."""
    s = similarities(problem, dtype)
    positive, negative = negatives_of(problem, s)
    stats = RowStatistics(positive.sum(1), negative.sum(1))

    def total(values: Tensor, member: Tensor) -> Tensor:
        return torch.where(member, values, 0.0).sum(1)

    if request.top_k:
        stats.top_score, stats.top_index = ordered(s, negative, request.top_k)
    if request.hardest_positive:
        score, index = ordered(-s, positive, 1)
        stats.positive_score, stats.positive_index = -score[:, 0], index[:, 0]
    if request.softmax:
        z = s * request.inverse_temperature.to(dtype)
        if request.label_offset is not None:
            z = z + request.label_offset.to(dtype)
        member = positive | negative if request.softmax == "all" else negative
        stats.log_sum_exp = torch.where(member, z, float("-inf")).logsumexp(1)
        stats.positive_logit_sum = total(z, positive)
    if request.sigmoid:
        x = request.scale.to(dtype) * s + request.bias.to(dtype)
        stats.sigmoid_sum = total(softplus(-x), positive) + total(softplus(x), negative)
    if request.positive_margin is not None:
        active = positive & (s <= request.positive_margin)
        stats.positive_margin_sum = total(request.positive_margin - s, active)
        stats.positive_margin_count = active.sum(1)
    if request.negative_margin is not None:
        active = negative & (s >= request.negative_margin)
        stats.negative_margin_sum = total(s - request.negative_margin, active)
        stats.negative_margin_count = active.sum(1)
    return stats


def add_margin_totals(stats: RowStatistics) -> None:
    """Set the margins' totals from the numbers per row, as a backend that adds them up has them."""
    sums = stats.positive_margin_sum, stats.negative_margin_sum
    counts = stats.positive_margin_count, stats.negative_margin_count
    if sums == (None, None):
        return
    zero = torch.zeros((), device=stats.num_positives.device)
    dtype = next(x.dtype for x in sums if x is not None)
    stats.margin_sums = torch.stack([(zero if x is None else x.sum()).to(dtype) for x in sums])
    stats.margin_counts = torch.stack(
        [(zero if x is None else x.sum()).to(torch.int64) for x in counts]
    )


def dense_positive_pass(
    problem: Problem,
    log_sum_exp: Tensor,
    inverse_temperature: Tensor,
    label_offset: Tensor | None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Sums over the positives of softplus(lse - z) and sigmoid(lse - z)."""
    z = similarities(problem, dtype) * inverse_temperature.to(dtype)
    if label_offset is not None:
        z = z + label_offset.to(dtype)
    gap = log_sum_exp.to(dtype)[:, None] - z
    positive = problem.positives.to_dense(z.device)
    zero = torch.zeros_like(z)
    return (
        torch.where(positive, softplus(gap), zero).sum(1),
        torch.where(positive, gap.sigmoid(), zero).sum(1),
    )
