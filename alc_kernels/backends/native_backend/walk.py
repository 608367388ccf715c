"""The walk, with what it keeps for the gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels.backends.interface import (
    GradientResult,
    Problem,
    RowStatistics,
    WalkRequest,
)
from alc_kernels.backends.native_backend.relation import arguments

# Active pairs are kept while they are few: the list must fit the memory bound, and adding them
# one by one must cost less than the dense products. One pair costs about as much as a hundred
# elements of the three products.
MAX_ACTIVE = 1 << 20
ACTIVE_SHARE = 128
MAX_INDEX = 2**31 - 1
# A chunk of whole rows must hold enough of them for the products to be worth it.
MAX_FUSED_LABELS = 32768
SOFTMAX = {None: 0, "all": 1, "negatives": 2}


@dataclass(frozen=True)
class ActivePairs:
    """The pairs within the margins, by row."""

    positive_crow: Tensor  # (B + 1,) int64
    positive_col: Tensor  # (n,) int32
    negative_crow: Tensor  # (B + 1,) int64
    negative_col: Tensor  # (n,) int32


def active_capacity(shape: tuple[int, int], request: WalkRequest) -> int:
    """Active pairs to keep at most; 0: none are wanted."""
    rows, columns = shape
    margins = request.positive_margin is not None or request.negative_margin is not None
    if not request.keep_active or not margins or max(rows, columns) > MAX_INDEX:
        return 0
    return max(64, min(MAX_ACTIVE, rows * columns // ACTIVE_SHARE))


def name(out: list[Tensor], request: WalkRequest) -> RowStatistics:
    """The results that the request asked for, by their names."""
    found = RowStatistics(out[0], out[1])
    if request.top_k:
        found.top_score, found.top_index = out[2], out[3]
    if request.hardest_positive:
        found.positive_score, found.positive_index = out[4], out[5]
    if request.softmax is not None:
        found.log_sum_exp, found.positive_logit_sum = out[6], out[7]
    if request.sigmoid:
        found.sigmoid_sum = out[8]
    if request.positive_margin is not None:
        found.positive_margin_sum, found.positive_margin_count = out[9], out[10]
    if request.negative_margin is not None:
        found.negative_margin_sum, found.negative_margin_count = out[11], out[12]
    return found


def walk(problem: Problem, request: WalkRequest) -> RowStatistics:
    """See ``interface.Backend.walk``."""
    columns = problem.positives.shape[1]
    row_scale = grad_queries = grad_labels = None
    want_scalars = False
    gradient = request.gradient
    # A row's membership in R must be known before its similarities are: not so with a guard. And
    # with the columns' statistics both directions' gradients are made in one pass afterwards.
    fused = gradient is not None and problem.guard is None and columns <= MAX_FUSED_LABELS
    both = request.columns is not None and problem.guard is None
    fused = fused and not both
    if gradient is not None and fused:
        if gradient.known_scale is not None:
            row_scale = gradient.known_scale()
        else:
            counts = torch.ops.alc_kernels_native.count_pairs(
                problem.queries, problem.labels, *arguments(problem.positives),
                *arguments(problem.exclude),
            )  # fmt: skip
            row_scale = gradient.row_scale(*counts)
        grad_queries, grad_labels = gradient.grad_queries, gradient.grad_labels
        want_scalars = gradient.want_scalars
    out = torch.ops.alc_kernels_native.walk(
        problem.queries,
        problem.labels,
        *arguments(problem.positives),
        *arguments(problem.exclude),
        problem.guard,
        *(problem.slack or (None, None)),
        request.top_k,
        request.hardest_positive,
        SOFTMAX[request.softmax],
        request.inverse_temperature,
        request.label_offset,
        request.sigmoid,
        request.scale,
        request.bias,
        request.positive_margin,
        request.negative_margin,
        active_capacity(problem.positives.shape, request),
        row_scale,
        grad_queries,
        grad_labels,
        gradient is not None and fused and gradient.fresh,
        want_scalars,
        SOFTMAX[request.columns] if both else 0,
        both and request.keep_active,
    )
    found = name(out, request)
    if fused:
        found.gradient = GradientResult(out[13], out[14]) if want_scalars else GradientResult()
    if both:
        found.columns = RowStatistics(
            out[15], out[16], log_sum_exp=out[17], positive_logit_sum=out[18]
        )
        if out[19].numel():
            found.similarities = out[19]
    if out[20].numel():
        found.margin_sums, found.margin_counts = out[20], out[21]
    if len(out) > 22:
        found.active = ActivePairs(*out[22:])
    return found


def positive_pass(
    problem: Problem,
    log_sum_exp: Tensor,
    inverse_temperature: Tensor,
    label_offset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See ``interface.Backend.positive_pass``."""
    softplus_sum, sigmoid_sum = torch.ops.alc_kernels_native.positive_pass(
        problem.queries,
        problem.labels,
        *arguments(problem.positives),
        log_sum_exp,
        inverse_temperature,
        label_offset,
    )
    return softplus_sum, sigmoid_sum
