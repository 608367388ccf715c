"""The gradient pass: sparse where only the margins have a part in it, else dense."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.backends.interface import GradientRequest, GradientResult, Problem, WalkRequest
from alc_kernels.backends.triton_backend import coefficients
from alc_kernels.backends.triton_backend.active_bits import MAX_LABELS, ActiveBits
from alc_kernels.backends.triton_backend.active_product import add_active
from alc_kernels.backends.triton_backend.walk_launch import walk_bits


def dense_gradient(
    problem: Problem,
    request: GradientRequest,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
) -> GradientResult:
    """See ``interface.Backend.dense_gradient``.

    The margins' part by itself is that of the active pairs: from the bits that the walk kept, or
    from another walk's, chunk by chunk, where they did not fit in the workspace.
    """
    if request.kind is not None or problem.labels.shape[0] > MAX_LABELS:
        return coefficients.dense_gradient(problem, request, grad_queries, grad_labels)
    if grad_queries is not None or grad_labels is not None:
        again = WalkRequest(
            positive_margin=request.positive_margin, negative_margin=request.negative_margin
        )
        kept = _kept(problem, request)
        for active in walk_bits(problem, again) if kept is None else [kept]:
            add_active(
                problem, active, request.positive_margin_scale, request.negative_margin_scale,
                grad_queries, grad_labels,
            )  # fmt: skip
    if not request.want_scalars:
        return GradientResult()
    # The margins have no part in the sums.
    zeros = torch.zeros(problem.queries.shape[0], device=problem.queries.device)
    return GradientResult(zeros, zeros.clone())


def _kept(problem: Problem, request: GradientRequest) -> ActiveBits | None:
    """What the walk kept, if that is all that the request asks for."""
    active = request.active
    if not isinstance(active, ActiveBits):
        return None
    has_positives = problem.positives.kind != "empty"
    missing = request.positive_margin is not None and has_positives and active.positive is None
    missing |= request.negative_margin is not None and active.negative is None
    return None if missing else active
