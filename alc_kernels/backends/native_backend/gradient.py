"""The dense gradient, or the sum over the active pairs where the walk kept them."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.backends.interface import GradientRequest, GradientResult, Problem
from alc_kernels.backends.native_backend.relation import arguments
from alc_kernels.backends.native_backend.walk import ActivePairs

KINDS = {None: 0, "softmax": 1, "decoupled": 2, "sigmoid": 3}


def dense_gradient(
    problem: Problem,
    request: GradientRequest,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
) -> GradientResult:
    """See ``interface.Backend.dense_gradient``."""
    if request.kind is None and isinstance(request.active, ActivePairs):
        for grad in (grad_queries, grad_labels):
            if request.fresh and grad is not None:
                grad.zero_()
        _active_gradient(problem, request, request.active, grad_queries, grad_labels)
        return _zero_sums(problem, request)
    columns = request.columns or GradientRequest(kind=None)
    weighted, plain = torch.ops.alc_kernels_native.dense_gradient(
        problem.queries,
        problem.labels,
        *arguments(problem.positives),
        *arguments(problem.exclude),
        problem.guard,
        *(problem.slack or (None, None)),
        KINDS[request.kind],
        request.row_scale,
        request.num_positives,
        request.log_sum_exp,
        request.negative_scale,
        request.inverse_temperature,
        request.label_offset,
        request.scale,
        request.bias,
        request.positive_margin,
        request.positive_margin_scale,
        request.negative_margin,
        request.negative_margin_scale,
        grad_queries,
        grad_labels,
        request.fresh,
        request.want_scalars,
        KINDS[columns.kind],
        columns.row_scale,
        columns.num_positives,
        columns.log_sum_exp,
        columns.negative_scale,
        request.similarities,
    )
    return GradientResult(weighted, plain) if request.want_scalars else GradientResult()


def _zero_sums(problem: Problem, request: GradientRequest) -> GradientResult:
    """The margins have no part in the sums."""
    if not request.want_scalars:
        return GradientResult()
    zeros = problem.queries.new_zeros(problem.queries.shape[0], dtype=problem.acc)
    return GradientResult(zeros, zeros.clone())


def _active_gradient(
    problem: Problem,
    request: GradientRequest,
    active: ActivePairs,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
) -> None:
    sides = []
    if request.positive_margin is not None and request.positive_margin_scale is not None:
        sides.append((active.positive_crow, active.positive_col, -request.positive_margin_scale))
    if request.negative_margin is not None and request.negative_margin_scale is not None:
        sides.append((active.negative_crow, active.negative_col, request.negative_margin_scale))
    for crow, col, slope in sides:
        torch.ops.alc_kernels_native.list_gradient(
            problem.queries, problem.labels, crow, col, slope, grad_queries, grad_labels
        )
