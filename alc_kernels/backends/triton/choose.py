"""The gradient pass: sparse where only the margins have a part in it, else dense."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alc_kernels.backends.triton.active.product import active_prefix_gradient, add_active
from alc_kernels.backends.triton.dense import launch as coefficients
from alc_kernels.backends.triton.one_pass import both_sides
from alc_kernels.backends.triton.one_pass import launch as one_pass
from alc_kernels.backends.triton.tile.bits import MAX_LABELS, ActiveBits
from alc_kernels.backends.triton.walk import launch as walk_launch
from alc_kernels.backends.triton.walk.launch import walk_bits
from alc_kernels.engine.interface import (
    GradientRequest,
    GradientResult,
    PrefixProblem,
    PrefixSides,
    PrefixTargets,
    Problem,
    RowStatistics,
    WalkRequest,
)


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


# The dense gradients of several prefix widths, with S computed once for all of them.
#
# Of a base loss: a kernel writes the coefficients dL/dS of every width of a chunk into the
# workspace, a plane per width; the library's products then add G K and G^T Q of each. Of margins
# alone: it writes the bits of the active pairs of every width, and their sparse products follow.
# A chunk is what fits in the workspace with the planes of all widths.


def prefix_gradient(
    problem: PrefixProblem,
    requests: list[GradientRequest],
    sides: list[PrefixSides],
    targets: Callable[[], PrefixTargets],
) -> bool:
    """See ``interface.Backend.prefix_gradient``. Every request is served."""
    first = requests[0]
    rows, labels = problem.queries.shape[0], problem.labels.shape[0]
    wanted = any(s.grad_queries is not None or s.grad_labels is not None for s in sides)
    margins = (first.positive_margin, first.negative_margin)
    if rows == 0 or labels == 0 or not wanted or (first.kind is None and margins == (None, None)):
        return True
    if first.kind is None and labels <= MAX_LABELS:
        active_prefix_gradient(problem, requests, sides)
    else:
        coefficients.dense_prefix_gradient(problem, requests, sides)
    return True


# Which of the walks serves a request.


def walk(problem: Problem, request: WalkRequest) -> RowStatistics:
    """See ``interface.Backend.walk``."""
    if one_pass.serves(problem, request):
        return one_pass.walk(problem, request)
    if both_sides.serves(problem, request):
        return both_sides.walk(problem, request)
    return walk_launch.walk(problem, request)
