"""One evaluation: walk, arithmetic on rows, gradient pass. The same for every backend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alc_kernels.engine.bases import (
    ONE_POSITIVE,
    RowLoss,
    log_sum_exp_over,
    sigmoid_rows,
    softmax_rows,
    times,
    triplet_rows,
)
from alc_kernels.engine.gradient_sums import GradientSums, RowAverage
from alc_kernels.engine.guard import limits, slack_of
from alc_kernels.engine.interface import (
    Backend,
    GradientResult,
    Problem,
    RowStatistics,
    WalkGradient,
    WalkRequest,
)
from alc_kernels.engine.pair_head import PairHead, PairPart, pair_part
from alc_kernels.engine.plan import (
    base_request,
    gradient_plan,
    mined_pairs,
    scalar_gradient,
    walk_request,
)
from alc_kernels.engine.specification import Objective
from alc_kernels.engine.threshold import ThresholdTerms, sides_of, threshold_sums, threshold_terms
from alc_kernels.settings import Base, DynamicTriplet, Sigmoid, Softmax, Triplet


@dataclass
class Evaluation:
    """Values and, where wanted, gradients by the prepared rows (before un-normalising)."""

    loss: Tensor  # 0-d acc; (B,) with reduction="none"
    base: Tensor  # 0-d acc, unweighted
    threshold: Tensor  # (2,) acc: positive and negative side of TCM, unweighted
    pair: Tensor  # 0-d acc, unweighted
    active: Tensor  # (2,) int64: active positives and negatives of TCM
    hardest_score: Tensor  # (B,) acc, -inf where there is none; empty unless mined
    hardest_index: Tensor  # (B,) int64, -1 where there is none; empty unless mined
    # (B, 2) int64: hardest positive and negative, -1 outside R; empty without pair part and gather
    pair_index: Tensor
    grad_queries: Tensor | None  # (B, d) acc
    grad_labels: Tensor | None  # (M, d) acc
    grad_scalars: Tensor  # (2,) acc: temperature, or scale and bias
    grad_head_weight: Tensor  # (4d,) acc; empty without a pair head
    grad_head_bias: Tensor  # 0-d acc


@dataclass
class _Direction:
    """The base loss over the rows, or over the columns with everything exchanged."""

    problem: Problem
    found: RowStatistics
    rows: RowLoss | None
    average: RowAverage


def evaluate(
    backend: Backend,
    problem: Problem,
    objective: Objective,
    scalars: Tensor,
    label_offset: Tensor | None,
    row_weight: Tensor | None,
    pair_head: PairHead | None,
    want_queries: bool,
    want_labels: bool,
    want_scalars: bool,
    want_head: bool,
) -> Evaluation:
    """Evaluate ``objective``.

    Args:
        problem: prepared embeddings; its guard is set here from ``exclude_above``.
        scalars: (2,) acc: temperature or scale, and bias.
        label_offset: (M,) acc or None.
        row_weight: (B,) acc or None.
        pair_head: the pair part's head, or None to leave it out.
        want_queries, want_labels, want_scalars, want_head: which gradients to compute.
    """
    base = objective.base
    share = 0.5 if getattr(base, "symmetric", False) in (True, "mean") else 1.0
    weight = objective.base_weight * share
    acc = problem.acc
    grads = GradientSums.of(backend, problem, want_queries, want_labels)
    want_gradient = want_queries or want_labels or want_scalars
    every_row = isinstance(base, Sigmoid)
    full = every_row or all_members(problem, objective)
    average = RowAverage(full, problem.queries, objective.reduction, row_weight, acc)
    symmetric = bool(getattr(base, "symmetric", False))
    exchanged = problem.exchanged() if symmetric else None
    offer = None
    if isinstance(base, Softmax | Sigmoid) and want_gradient:
        row_scale = partial(average.over_counts, weight)
        known = average.known_scale(weight)
        offer = WalkGradient(
            row_scale, grads.queries, grads.labels, want_scalars, known, grads.fresh
        )
    one = one_positive(problem)
    more: dict[str, Any] = {"keep_active": want_gradient, "gradient": offer}
    if one and not isinstance(base, Softmax | Sigmoid):
        # The walk meets each row's positive anyway: its score need not be computed again.
        more["hardest_positive"] = True
    # With a guard, rows and columns exclude different pairs.
    if exchanged is not None and isinstance(base, Softmax) and objective.exclude_above is None:
        more["columns"] = log_sum_exp_over(one_positive(exchanged), base)
    request = walk_request(base, objective, one, scalars, label_offset, **more)
    forward = _direction(backend, problem, objective, base, scalars, label_offset, request, average)
    if forward.found.gradient is not None:
        grads.fresh = False
    columns = None
    if exchanged is not None:
        full = every_row or all_members(exchanged, objective)
        columns_average = RowAverage(full, exchanged.queries, "mean", None, acc)
        if offer is not None and forward.found.columns is None:
            row_scale = partial(columns_average.over_counts, weight)
            known = columns_average.known_scale(weight)
            # The rows' gradient may come later: what this walk adds to must be there.
            grads.begin()
            offer = WalkGradient(row_scale, grads.labels, grads.queries, want_scalars, known)
        # An offset shifts every logit of a column alike and so cancels on that side.
        request = base_request(
            base, one_positive(exchanged), scalars, None, keep_active=want_gradient, gradient=offer
        )
        columns = _direction(
            backend, exchanged, objective, base, scalars, None, request, columns_average,
            forward.found.columns,
        )  # fmt: skip

    threshold, terms = objective.threshold, None
    if threshold is not None:
        sums = threshold_sums(forward.found, threshold)
        terms = threshold_terms(sums, threshold, problem.queries.shape[0])
    zero = scalars.new_zeros(())
    base_value = zero
    values = None
    if forward.rows is not None:
        values, base_value = average.of(forward.rows.values)
    if columns is not None and columns.rows is not None:
        base_value = share * (base_value + columns.average.of(columns.rows.values)[1])

    loss = times(objective.base_weight, base_value)
    if terms is not None:
        loss = terms.total if base is None else loss + terms.total
    if objective.reduction == "none" and values is not None:
        loss = times(objective.base_weight, values)

    grad_scalars = None
    if want_gradient:
        # Statistics of both sides from one pass: their coefficients are made in one pass as well.
        joint = None
        if forward.found.columns is not None and forward.found.gradient is None:
            columns, joint = None, columns
        grad_scalars = _add_gradient(
            backend, forward, objective, terms, weight, grads, want_scalars, joint
        )
        if columns is not None:
            grads.begin()
            by_columns = _add_gradient(
                backend, columns, objective, None, weight, grads.exchanged(), want_scalars
            )
            if grad_scalars is not None and by_columns is not None:
                grad_scalars = grad_scalars + by_columns
    found = forward.found
    hardest_score, hardest_index, pair_index = mined_pairs(found, objective, acc)
    pair = PairPart(zero, scalars.new_empty(0), zero)
    if pair_head is not None:
        grads.begin()
        pair = pair_part(
            backend, problem, pair_head, pair_index, objective.pair_weight, grads.queries,
            grads.labels, want_head, objective.deterministic,
        )  # fmt: skip
        loss = loss + objective.pair_weight * pair.value
    sides, active = sides_of(terms, scalars)
    grads.begin()
    return Evaluation(
        loss=loss,
        base=base_value,
        threshold=sides,
        pair=pair.value,
        active=active,
        hardest_score=hardest_score,
        hardest_index=hardest_index,
        pair_index=pair_index,
        grad_queries=grads.queries,
        grad_labels=grads.labels,
        grad_scalars=torch.zeros_like(scalars) if grad_scalars is None else grad_scalars,
        grad_head_weight=pair.grad_weight,
        grad_head_bias=pair.grad_bias,
    )


def guarded(
    backend: Backend, problem: Problem, exclude_above: float | None, normalize: bool
) -> Problem:
    """With the false-negative guard (``guard``). ``normalize``: rows are of unit length."""
    if exclude_above is None:
        return problem
    queries = problem.queries
    guard = limits(*first_positive(backend, problem), exclude_above, queries, normalize)
    return replace(problem, guard=guard, slack=slack_of(queries, problem.labels, normalize))


def first_positive(
    backend: Backend, problem: Problem, found: RowStatistics | None = None
) -> tuple[Tensor, Tensor]:
    """See ``rows.FirstPositive``. A walk that has ``found`` a row's only positive saves a pass."""
    if found is not None and found.positive_index is not None and one_positive(problem):
        assert found.positive_score is not None
        return found.positive_index, found.positive_score
    first = problem.positives.first(problem.queries.device)
    return first, backend.score_pairs(problem, first[:, None])[:, 0]


def one_positive(problem: Problem) -> bool:
    """Every row has exactly one."""
    return problem.positives.kind in ONE_POSITIVE


def all_members(problem: Problem, objective: Objective) -> bool:
    """Every row has a positive and a negative, whatever its scores: R holds them all."""
    rows, columns = problem.positives.shape
    plain = problem.exclude.kind == "empty" and objective.exclude_above is None
    return plain and one_positive(problem) and columns > 1 and rows > 0


def _direction(
    backend: Backend,
    problem: Problem,
    objective: Objective,
    base: Base | None,
    scalars: Tensor,
    label_offset: Tensor | None,
    request: WalkRequest,
    average: RowAverage,
    found: RowStatistics | None = None,
) -> _Direction:
    """Walk, unless ``found`` is known from the other direction's walk, and the rows' values."""
    if found is None:
        problem = guarded(backend, problem, objective.exclude_above, objective.normalize)
        found = backend.walk(problem, request)
    rows = None
    full = all_members(problem, objective)
    if isinstance(base, Triplet | DynamicTriplet):
        first = partial(first_positive, backend, problem, found)
        rows = triplet_rows(found, base, first, full)
    elif isinstance(base, Softmax):

        def positive_sums(log_sum_exp: Tensor) -> tuple[Tensor, Tensor]:
            slope = scalars[0].reciprocal()
            return backend.positive_pass(problem, log_sum_exp, slope, label_offset)

        one = one_positive(problem)
        rows = softmax_rows(found, base, scalars[0], label_offset, one, positive_sums, full)
    elif isinstance(base, Sigmoid):
        rows = sigmoid_rows(found, scalars[0], scalars[1])
    if rows is not None:
        average.over(rows.members)
    return _Direction(problem, found, rows, average)


def _add_gradient(
    backend: Backend,
    direction: _Direction,
    objective: Objective,
    terms: ThresholdTerms | None,
    weight: float,
    grads: GradientSums,
    want_scalars: bool,
    joint: _Direction | None = None,
) -> Tensor | None:
    """Add one direction's gradients, and those of ``joint`` (the other one, a softmax).

    Returns that of the scalars, (2,) acc, where the backend made it.
    """
    problem, found, rows = direction.problem, direction.found, direction.rows
    exchanged = None
    if joint is not None:
        assert joint.rows is not None and joint.rows.dense is not None
        exchanged = replace(joint.rows.dense, row_scale=joint.average.scale(weight))
    made = found.gradient is not None  # the base loss's, during the walk
    if made and terms is None:
        return _scalar_gradient(rows, found.gradient)
    plan = gradient_plan(
        found,
        None if made else rows,
        None if made or rows is None else direction.average.scale(weight),
        objective.threshold,
        terms,
        one_positive(problem),
        partial(first_positive, backend, problem, found),
        want_scalars,
        exchanged,
    )
    if plan.index is not None and (grads.queries is not None or grads.labels is not None):
        assert plan.slope is not None
        grads.begin()
        backend.pair_gradient(
            problem, plan.index, plan.slope, grads.queries, grads.labels, objective.deterministic
        )
    result = GradientResult()
    if plan.dense is not None:
        dense = replace(plan.dense, fresh=True) if grads.take_fresh() else plan.dense
        result = backend.dense_gradient(problem, dense, grads.queries, grads.labels)
    return _scalar_gradient(rows, found.gradient or result)


def _scalar_gradient(rows: RowLoss | None, made: GradientResult | None) -> Tensor | None:
    """(2,) acc: gradients of the scalars, where the backend has made their sums."""
    if made is None or made.weighted_sum is None or made.plain_sum is None or rows is None:
        return None
    return scalar_gradient(rows, made.weighted_sum.sum(), made.plain_sum.sum())


# From settings to passes: the arithmetic on rows that every backend shares.


__all__ = ["Evaluation", "Objective", "evaluate"]
