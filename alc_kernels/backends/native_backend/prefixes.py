"""Several prefix widths from one walk, and their dense gradients with shared products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alc_kernels.backends.interface import (
    GradientRequest,
    GradientResult,
    Problem,
    RowStatistics,
    WalkGradient,
    WalkRequest,
)
from alc_kernels.backends.native_backend.gradient import KINDS, dense_gradient
from alc_kernels.backends.native_backend.relation import arguments
from alc_kernels.backends.native_backend.walk import SOFTMAX, ActivePairs, active_capacity, name
from alc_kernels.backends.prefix_interface import PrefixProblem, PrefixSides, PrefixTargets

# Rows of coefficients, a plane per width, that a chunk must hold for its products to be worth it.
MAX_PLANES = 1 << 17  # labels times widths
# Coefficients are multiplied by the scales of both sides: those of prefixes far shorter than
# their rows would leave the range of float32.
MAX_SCALE = 2.0**40
RESULTS = 15  # per width, before its four lists


def prefix_walk(problem: PrefixProblem, request: WalkRequest) -> list[RowStatistics]:
    """See ``prefix_interface.PrefixBackend.prefix_walk``. Every request is served."""
    return _walk(problem, request, None, None, None)


def prefix_walk_gradient(
    problem: PrefixProblem,
    request: WalkRequest,
    offer: WalkGradient,
    targets: Callable[[], PrefixTargets],
) -> list[RowStatistics] | None:
    """See ``prefix_interface.PrefixBackend.prefix_walk_gradient``."""
    if not _shares_products(problem):
        return None
    if offer.known_scale is not None:
        row_scale = offer.known_scale()
    else:
        counts = torch.ops.alc_kernels_native.count_pairs(
            problem.queries, problem.labels, *arguments(problem.positives),
            *arguments(problem.exclude),
        )  # fmt: skip
        row_scale = offer.row_scale(*counts)
    return _walk(problem, request, offer, row_scale, targets())


def prefix_gradient(
    problem: PrefixProblem,
    requests: list[GradientRequest],
    sides: list[PrefixSides],
    targets: Callable[[], PrefixTargets],
) -> bool:
    """See ``prefix_interface.PrefixBackend.prefix_gradient``.

    Margins alone whose active pairs the walk has kept are sums over those, width by width.
    """
    first = requests[0]
    listed = [first.kind is None and isinstance(one.active, ActivePairs) for one in requests]
    dense = [n for n, few in enumerate(listed) if not few]
    if dense and not _shares_products(problem):
        return False
    for request, side, few in zip(requests, sides, listed, strict=True):
        if few:
            own = Problem(side.queries, side.labels, problem.positives, problem.exclude, None)
            dense_gradient(own, request, side.grad_queries, side.grad_labels)
    if dense:
        _dense(problem, requests, sides[0], targets(), dense)
    return True


def _shares_products(problem: PrefixProblem) -> bool:
    """Whether the widths' coefficients can be summed: not for many labels, nor short prefixes."""
    rows, columns = problem.positives.shape
    if rows == 0 or columns == 0 or columns * len(problem.widths) > MAX_PLANES:
        return False
    scales = (problem.query_scale, problem.label_scale)
    return all(scale is None or bool(scale.max() <= MAX_SCALE) for scale in scales)


def _walk(
    problem: PrefixProblem,
    request: WalkRequest,
    offer: WalkGradient | None,
    row_scale: Tensor | None,
    targets: PrefixTargets | None,
) -> list[RowStatistics]:
    """The statistics of every width; with ``offer`` the gradient is added to ``targets``."""
    grads = (None, None) if offer is None or targets is None else _wanted(offer, targets)
    want_scalars = offer is not None and offer.want_scalars
    query_dots, label_dots, *out = torch.ops.alc_kernels_native.prefix_walk(
        problem.queries,
        problem.labels,
        *arguments(problem.positives),
        *arguments(problem.exclude),
        list(problem.widths),
        problem.query_scale,
        problem.label_scale,
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
        [] if targets is None else list(targets.weights),
        *grads,
        want_scalars,
    )
    if targets is not None:
        _add_dots(problem, targets, query_dots, label_dots, range(len(problem.widths)))
    made = []
    for n in range(len(problem.widths)):
        own = out[(RESULTS + 4) * n : (RESULTS + 4) * (n + 1)]
        found = name(own, request)
        if offer is not None:
            found.gradient = GradientResult(own[13], own[14]) if want_scalars else GradientResult()
        if own[RESULTS].numel():
            found.active = ActivePairs(*own[RESULTS:])
        made.append(found)
    return made


def _dense(
    problem: PrefixProblem,
    requests: list[GradientRequest],
    side: PrefixSides,
    targets: PrefixTargets,
    chosen: list[int],
) -> None:
    """Add the gradients of the widths ``chosen``; ``side``: of any width, for what is wanted."""
    first, asked = requests[0], [requests[n] for n in chosen]
    plane = [None if x is None else x[chosen] for x in (problem.query_scale, problem.label_scale)]
    query_dots, label_dots = torch.ops.alc_kernels_native.prefix_gradient(
        problem.queries,
        problem.labels,
        *arguments(problem.positives),
        *arguments(problem.exclude),
        [problem.widths[n] for n in chosen],
        *plane,
        *[
            None if x is None else x[chosen]
            for x in (problem.guard, *(problem.slack or (None, None)))
        ],
        KINDS[first.kind],
        _stack([one.row_scale for one in asked]),
        first.num_positives,  # the positives are those of every width
        _stack([one.log_sum_exp for one in asked]),
        _stack([one.negative_scale for one in asked]),
        first.inverse_temperature,
        first.label_offset,
        first.scale,
        first.bias,
        first.positive_margin,
        [float(one.positive_margin_scale or 0.0) for one in asked],
        first.negative_margin,
        [float(one.negative_margin_scale or 0.0) for one in asked],
        [targets.weights[n] for n in chosen],
        *_wanted(side, targets),
    )
    _add_dots(problem, targets, query_dots, label_dots, chosen)


def _wanted(
    asked: WalkGradient | PrefixSides, targets: PrefixTargets
) -> tuple[Tensor | None, Tensor | None]:
    return (
        None if asked.grad_queries is None else targets.grad_queries,
        None if asked.grad_labels is None else targets.grad_labels,
    )


def _stack(tensors: list[Tensor | None]) -> Tensor | None:
    """(W, ...), None where no width has it."""
    found = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(found) if found else None


def _add_dots(
    problem: PrefixProblem,
    targets: PrefixTargets,
    query_dots: Tensor,
    label_dots: Tensor,
    chosen: list[int] | range,
) -> None:
    """The operators leave the labels' own scale out of their sums."""
    for at, n in enumerate(chosen):
        scale = 1.0 if problem.label_scale is None else problem.label_scale[n]
        targets.query_dots[n].add_(query_dots[at])
        targets.label_dots[n].add_(label_dots[at] * scale)
