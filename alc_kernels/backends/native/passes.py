"""The walk, with what it keeps for the gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels.backends.native.pairs import arguments
from alc_kernels.engine.interface import (
    GradientRequest,
    GradientResult,
    PrefixProblem,
    PrefixSides,
    PrefixTargets,
    Problem,
    RowStatistics,
    WalkGradient,
    WalkRequest,
)

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


# The dense gradient, or the sum over the active pairs where the walk kept them.


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


# Several prefix widths from one walk, and their dense gradients with shared products.


# Rows of coefficients, a plane per width, that a chunk must hold for its products to be worth it.
MAX_PLANES = 1 << 17  # labels times widths
# Coefficients are multiplied by the scales of both sides: those of prefixes far shorter than
# their rows would leave the range of float32.
MAX_SCALE = 2.0**40
RESULTS = 15  # per width, before its four lists


def prefix_walk(
    problem: PrefixProblem, request: WalkRequest, targets: Callable[[], PrefixTargets] | None = None
) -> list[RowStatistics] | None:
    """See ``interface.Backend.prefix_walk``."""
    if request.gradient is None or targets is None:
        return _walk(problem, request, None, None, None)
    return prefix_walk_gradient(problem, request, request.gradient, targets)


def prefix_walk_gradient(
    problem: PrefixProblem,
    request: WalkRequest,
    offer: WalkGradient,
    targets: Callable[[], PrefixTargets],
) -> list[RowStatistics] | None:
    """See ``prefix_walk``."""
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
    """See ``interface.Backend.prefix_gradient``.

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
