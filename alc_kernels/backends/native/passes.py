"""The walk, with what it keeps for the gradient; the gradient; both at several prefix widths."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from alc_kernels.backends.native import screening
from alc_kernels.backends.native.library import call
from alc_kernels.backends.native.request import (
    INT32,
    INT64,
    ITEM,
    DenseArguments,
    PairArguments,
    PositiveArguments,
    ProblemArguments,
    WalkArguments,
)
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
MAX_KEPT_BYTES = 16 << 20  # of similarities that a walk keeps: a chunk of the gradient pass
SOFTMAX = {None: 0, "all": 1, "negatives": 2}
KINDS = {None: 0, "softmax": 1, "decoupled": 2, "sigmoid": 3}


@dataclass(frozen=True)
class ActivePairs:
    """The pairs within the margins, by row: the positives, then the negatives."""

    crow: Tensor  # (2, B + 1) int64
    col: Tensor  # (capacity,) int32: those of the positives, then of the negatives, then nothing
    positives: int  # how many
    negatives: int


def active_capacity(own: ProblemArguments, request: WalkRequest) -> int:
    """Active pairs to keep at most; 0: none are wanted."""
    margins = request.positive_margin is not None or request.negative_margin is not None
    if not request.keep_active or not margins or max(own.rows, own.columns) > MAX_INDEX:
        return 0
    return max(64, min(MAX_ACTIVE, own.rows * own.columns // ACTIVE_SHARE))


def _run(
    problem: Problem | PrefixProblem,
    request: WalkRequest,
    offer: WalkGradient | None,
    targets: PrefixTargets | None = None,
    columns: bool = False,
) -> list[RowStatistics]:
    """The statistics of every width.

    Takes up ``offer``, adding to ``targets`` where they are given; ``columns``: those of the
    columns as well.
    """
    own, asked = ProblemArguments(problem), WalkArguments()
    made = asked.put_request(own, request, SOFTMAX)
    capacity = active_capacity(own, request)
    active = asked.put_active(own, capacity) if capacity else None
    gradient = dots = of_columns = None
    if offer is not None:
        asked.put("row_scale", _row_scale(own, offer), own.acc, (own.rows,))
        wanted = (offer.grad_queries, offer.grad_labels)
        if targets is not None:
            wanted = _chosen(offer, targets)
            dots = asked.put_dots(own, targets.weights)
        gradient = asked.put_targets(own, *wanted, offer.want_scalars)
        asked.fresh = offer.fresh and targets is None
    if columns:
        asked.columns_softmax = SOFTMAX[request.columns]
        of_columns = asked.put_columns(own)
        if request.keep_active and own.rows * own.columns * own.acc.itemsize <= MAX_KEPT_BYTES:
            made["similarities"] = asked.make("similarities", own.acc, (own.rows, own.columns))
    screen = screening.asked()
    if screen is not None:
        if isinstance(problem, Problem) and problem.packed is not None:
            screen.packed = problem.packed.data_ptr()
        asked.screening = ctypes.addressof(screen)
    call("alc_walk", own, asked)
    if screen is not None:
        screening.note(screen)
    if targets is not None and dots is not None:
        _add_dots(targets, dots, slice(None))
    found = []
    for n in range(own.count) if own.lead else (None,):
        one = RowStatistics(**(made if n is None else {name: x[n] for name, x in made.items()}))
        if active is not None:
            crow, col, counts = active
            low, high = counts[2 * (n or 0) : 2 * (n or 0) + 2]
            if low >= 0:  # there were not too many
                lists = (crow, col) if n is None else (crow[n], col[n])
                one.active = ActivePairs(*lists, low, high)
        one.gradient, one.columns = gradient, of_columns
        if gradient is not None and gradient.weighted_sum is not None and n is not None:
            assert gradient.plain_sum is not None
            one.gradient = GradientResult(gradient.weighted_sum[n], gradient.plain_sum[n])
        found.append(one)
    return found


def _row_scale(own: ProblemArguments, offer: WalkGradient) -> Tensor:
    if offer.known_scale is not None:
        return offer.known_scale()
    counts = torch.empty(2, own.rows, dtype=INT64, device="cpu")
    call("alc_count_pairs", own, ctypes.c_void_p(counts.data_ptr()))
    return offer.row_scale(*counts.unbind())


def walk(problem: Problem, request: WalkRequest) -> RowStatistics:
    """See ``interface.Backend.walk``."""
    # A row's membership in R must be known before its similarities are: not so with a guard. And
    # with the columns' statistics both directions' gradients are made in one pass afterwards.
    columns = request.columns is not None and problem.guard is None
    few = problem.positives.shape[1] <= MAX_FUSED_LABELS
    offer = request.gradient if few and problem.guard is None and not columns else None
    (found,) = _run(problem, request, offer, columns=columns)
    return found


def positive_pass(
    problem: Problem,
    log_sum_exp: Tensor,
    inverse_temperature: Tensor,
    label_offset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See ``interface.Backend.positive_pass``."""
    own, asked = ProblemArguments(problem), PositiveArguments()
    request = WalkRequest(inverse_temperature=inverse_temperature, label_offset=label_offset)
    asked.put_formula(own, request)
    asked.put("log_sum_exp", log_sum_exp, own.acc, (own.rows,))
    made = asked.make_all(["softplus_sum", "sigmoid_sum"], own.acc, (own.rows,))
    call("alc_positive_pass", own, asked)
    return made["softplus_sum"], made["sigmoid_sum"]


# The dense gradient, or the sum over the active pairs where the walk kept them.


def dense_gradient(
    problem: Problem,
    request: GradientRequest,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
) -> GradientResult:
    """See ``interface.Backend.dense_gradient``."""
    if request.kind is None and isinstance(request.active, ActivePairs):
        return _active_gradient(problem, request, request.active, grad_queries, grad_labels)
    own, asked = ProblemArguments(problem), DenseArguments()
    asked.put_requests(own, [request], KINDS)
    if request.columns is not None:
        asked.put_columns(own, request.columns, KINDS)
    asked.put_target("similarities", request.similarities, own.acc, (own.rows, own.columns))
    asked.fresh = request.fresh
    made = asked.put_targets(own, grad_queries, grad_labels, request.want_scalars)
    call("alc_dense_gradient", own, asked)
    return made


def _active_gradient(
    problem: Problem,
    request: GradientRequest,
    active: ActivePairs,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
) -> GradientResult:
    own = ProblemArguments(problem, relations=False)
    for grad in (grad_queries, grad_labels):
        if request.fresh and grad is not None:
            grad.zero_()
    asked = PairArguments()
    asked.put_targets(own, grad_queries, grad_labels, False)
    crow, col = active.crow.data_ptr(), active.col.data_ptr()
    if request.positive_margin is not None and request.positive_margin_scale is not None:
        asked.crow, asked.col, asked.count = crow, col, active.positives
        asked.put_number("coefficient", -request.positive_margin_scale, own.acc)
        call("alc_pair_gradient", own, asked)
    if request.negative_margin is not None and request.negative_margin_scale is not None:
        asked.crow, asked.count = crow + (own.rows + 1) * ITEM, active.negatives
        asked.col = col + active.positives * INT32.itemsize
        asked.put_number("coefficient", request.negative_margin_scale, own.acc)
        call("alc_pair_gradient", own, asked)
    if not request.want_scalars:
        return GradientResult()
    zeros = problem.queries.new_zeros(own.rows, dtype=own.acc)  # the margins have no part in them
    return GradientResult(zeros, zeros.clone())


# Several prefix widths from one walk, and their dense gradients with shared products.


# Rows of coefficients, a plane per width, that a chunk must hold for its products to be worth it.
MAX_PLANES = 1 << 17  # labels times widths
# Coefficients are multiplied by the scales of both sides: those of prefixes far shorter than
# their rows would leave the range of float32.
MAX_SCALE = 2.0**40


def prefix_walk(
    problem: PrefixProblem, request: WalkRequest, targets: Callable[[], PrefixTargets] | None = None
) -> list[RowStatistics] | None:
    """See ``interface.Backend.prefix_walk``."""
    if request.gradient is None or targets is None:
        return _run(problem, request, None)
    if not _shares_products(problem):
        return None
    return _run(problem, request, request.gradient, targets())


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


def _dense(
    problem: PrefixProblem,
    requests: list[GradientRequest],
    side: PrefixSides,
    targets: PrefixTargets,
    chosen: list[int],
) -> None:
    """Add the gradients of the widths ``chosen``; ``side``: of any width, for what is wanted."""

    def planes(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[chosen]

    slack = problem.slack
    some = replace(
        problem, widths=tuple(problem.widths[n] for n in chosen),
        query_scale=planes(problem.query_scale), label_scale=planes(problem.label_scale),
        guard=planes(problem.guard),
        slack=None if slack is None else (slack[0][chosen], slack[1][chosen]),
    )  # fmt: skip
    own, asked = ProblemArguments(some), DenseArguments()
    asked.put_requests(own, [requests[n] for n in chosen], KINDS)
    asked.put_targets(own, *_chosen(side, targets), False)
    dots = asked.put_dots(own, [targets.weights[n] for n in chosen])
    call("alc_dense_gradient", own, asked)
    _add_dots(targets, dots, chosen)


def _chosen(
    asked: WalkGradient | PrefixSides, targets: PrefixTargets
) -> tuple[Tensor | None, Tensor | None]:
    return (
        None if asked.grad_queries is None else targets.grad_queries,
        None if asked.grad_labels is None else targets.grad_labels,
    )


def _add_dots(
    targets: PrefixTargets, dots: tuple[Tensor, Tensor], chosen: list[int] | slice
) -> None:
    targets.query_dots[chosen] += dots[0]
    targets.label_dots[chosen] += dots[1]
