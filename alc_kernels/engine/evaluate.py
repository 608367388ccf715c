"""One evaluation: a walk, arithmetic on rows, a gradient pass. The same for every backend.

It is written for many processes, each with its part of the batch (``prepare.Part``): a visit to
all labels for the walk, sums over all rows, a visit for the gradients. A single process is a ring
of one: it sees all labels at once and sums over itself. Only there backends are offered what needs
all pairs of a row and a column at once: the gradient during the walk, and both sides of S.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alc_kernels.engine.interface import RowStatistics, WalkGradient, WalkRequest
from alc_kernels.engine.plan import (
    Direction,
    GradientPlan,
    Gradients,
    PairSlopes,
    RowAverage,
    find_first,
    gradient_plan,
)
from alc_kernels.engine.prepare import Left, Part, Shown, gather_pairs
from alc_kernels.engine.rows import (
    ONE_POSITIVE,
    PositiveSums,
    ThresholdSums,
    ThresholdTerms,
    log_sum_exp_over,
    pair_losses,
    pair_share,
    sigmoid_rows,
    softmax_rows,
    threshold_sums,
    threshold_terms,
    times,
    triplet_rows,
)
from alc_kernels.engine.specification import Evaluation, Given, Objective, Wants
from alc_kernels.settings import Base, DynamicTriplet, Sigmoid, Softmax, Triplet


def evaluate(part: Part, objective: Objective, given: Given, wants: Wants) -> Evaluation:
    """Evaluate ``objective``. Every process must call it, with the same settings."""
    base, threshold, scalars = objective.base, objective.threshold, given.scalars
    want_gradient = wants.queries or wants.labels or wants.scalars
    head, weight = given.head, objective.base_weight * objective.share
    chosen = objective.gathered(part.problem.queries)
    grads = Gradients.zeros(
        part, wants[:2], 0 if head is None else head.weight.numel(), objective.deterministic
    )
    forward, columns = _directions(part, objective, given, wants, grads)
    _walk(part, objective, forward, columns, head is not None or objective.gather)
    found = forward.found
    assert found is not None
    hardest_score, hardest_index, pair_index = mined_pairs(found, objective, scalars.dtype)
    _rows(part, objective, scalars, forward, columns)

    own: dict[str, Tensor] = {}
    values = None
    if forward.rows is not None:
        values = forward.average.hand_in(own, "base", forward.rows.values)
    if columns is not None and columns.rows is not None:
        columns.average.hand_in(own, "columns", columns.rows.values)
    sums = None
    if threshold is not None:
        sums = threshold_sums(found, threshold)
        own["threshold"], own["active"] = sums.values, sums.counts
    pair_slope, mined = None, None
    if head is not None or objective.gather:
        mined = part.mined(pair_index)
    if head is not None and mined is not None:
        problem, index = mined
        members = pair_index[:, :1] >= 0  # (B, 1)
        logits = part.backend.pair_logits(problem, index, head.weight, head.bias)  # (B, 2)
        losses, pair_slope = pair_losses(logits, members)
        own["pair"], own["members"] = losses.sum(), members.sum()
    total = part.summed(own, scalars)

    zero = scalars.new_zeros(())
    base_value = forward.average.value(total, "base") if values is not None else zero
    if columns is not None and columns.rows is not None:
        base_value = objective.share * (base_value + columns.average.value(total, "columns"))
    loss, terms = times(objective.base_weight, base_value), None
    if threshold is not None and sums is not None:
        sums = ThresholdSums(total["threshold"], total["active"], sums.hardest_active)
        terms = threshold_terms(sums, threshold, part.total_queries)
        loss = terms.total if base is None else loss + terms.total
    if objective.reduction == "none" and values is not None:
        loss = times(objective.base_weight, values)
    pair_value, pairs = zero, None
    if head is not None and pair_slope is not None:
        per_row = pair_share(total["members"], scalars.dtype)
        pair_value = total["pair"] * per_row
        pair_slope = pair_slope * (per_row * objective.pair_weight)
        loss = loss + objective.pair_weight * pair_value
        if wants.head or wants.queries or wants.labels:
            pairs = PairSlopes(head, pair_index, pair_slope)

    if want_gradient or pairs is not None:
        plans: tuple[GradientPlan | None, GradientPlan | None] = (None, None)
        if want_gradient:
            plans = _plans(forward, columns, weight, terms, wants.scalars)
        grads.add(*plans, pairs)
    rows, gathered = gather_pairs(part, mined if objective.gather else None, chosen)
    by_scalars = [
        made
        for one in (forward, columns)
        if one is not None and (made := one.scalar_gradient()) is not None
    ]
    return Evaluation(
        loss=loss,
        base=base_value,
        threshold=scalars.new_zeros(2) if terms is None else terms.values,
        pair=pair_value,
        active=scalars.new_zeros(2, dtype=torch.int64) if terms is None else terms.counts,
        hardest_score=hardest_score,
        hardest_index=hardest_index,
        pair_index=pair_index,
        chosen=chosen,
        rows=rows,
        pairs=gathered,
        grad_queries=grads.queries,
        grad_labels=grads.labels,
        grad_scalars=sum(by_scalars[1:], by_scalars[0]) if by_scalars else scalars.new_zeros(2),
        grad_head_weight=grads.head_weight,
        grad_head_bias=zero if pair_slope is None else pair_slope.sum(),
    )


def _directions(
    part: Part, objective: Objective, given: Given, wants: Wants, grads: Gradients
) -> tuple[Direction, Direction | None]:
    """What the walk is asked for over the rows and, for symmetric losses, over the columns."""
    base, problem = objective.base, part.problem
    kind = problem.positives.kind
    one, column_one = kind in ONE_POSITIVE, kind == "diagonal"
    plain = problem.exclude.kind == "empty" and objective.exclude_above is None
    every_row, want_gradient = isinstance(base, Sigmoid), wants.queries or wants.labels
    want_gradient |= wants.scalars
    sizes = part.total_queries, part.total_labels
    # Every row has a positive and a negative, whatever its scores: R holds them all.
    full = every_row or (plain and one and sizes[1] > 1)
    acc, weighted = given.scalars.dtype, (objective.reduction, given.row_weight)
    average = RowAverage(full, problem.queries, sizes[0], *weighted, acc)
    offer = label_offer = None
    if part.whole and want_gradient and isinstance(base, Softmax | Sigmoid):
        offer = _offer(average, objective, grads.queries, grads.labels, wants.scalars)
    more: dict[str, Any] = {"keep_active": want_gradient and part.one_block, "gradient": offer}
    symmetric = bool(getattr(base, "symmetric", False))
    # With a guard, rows and columns exclude different pairs.
    if symmetric and part.whole and isinstance(base, Softmax) and objective.exclude_above is None:
        more["columns"] = log_sum_exp_over(column_one, base)
    request = walk_request(base, one, given.scalars, part.label_offset, objective, **more)
    forward = Direction(part, request, average, one)
    if not symmetric:
        return forward, None
    full = every_row or (plain and column_one and sizes[0] > 1)
    average = RowAverage(full, problem.labels, sizes[1], "mean", None, acc)
    if offer is not None:
        label_offer = _offer(average, objective, grads.labels, grads.queries, wants.scalars)
    # An offset shifts every logit of a column alike and so cancels on that side.
    request = walk_request(
        base, column_one, given.scalars, None,
        keep_active=want_gradient and part.whole, gradient=label_offer,
    )  # fmt: skip
    return forward, Direction(part, request, average, column_one, columns=True)


def _offer(
    average: RowAverage,
    objective: Objective,
    grad_rows: Tensor | None,
    grad_columns: Tensor | None,
    want_scalars: bool,
) -> WalkGradient:
    weight = objective.base_weight * objective.share
    row_scale = partial(average.over_counts, weight)
    known = average.known_scale(weight)
    return WalkGradient(row_scale, grad_rows, grad_columns, want_scalars, known)


def _walk(
    part: Part,
    objective: Objective,
    forward: Direction,
    columns: Direction | None,
    want_pairs: bool,
) -> None:
    """Fill in what both directions find, in one visit to all labels."""
    base = objective.base
    if objective.exclude_above is not None:
        forward.first, label_first = find_first(part, columns is not None)
        if columns is not None:
            columns.first = label_first
        part.exclude(forward.first, label_first, objective.exclude_above)
    by_first = isinstance(base, Triplet | DynamicTriplet) and base.positive == "first"
    want_first = by_first and forward.first is None and not forward.one_positive
    want_label_first = by_first and columns is not None and columns.first is None

    def visitor(shown: Shown) -> Left:
        request = forward.request
        if request.label_offset is not shown.label_offset:
            request = replace(request, label_offset=shown.label_offset)
        here = part.backend.walk(shown.problem, request)
        forward.found = part.merge(forward.found, here, shown.start)
        if want_first:
            forward.first = part.first(forward.first, shown)
        if want_pairs:
            part.keep_pairs(forward.found, shown)
        if columns is None:
            return Left()
        found = forward.found.columns  # of the same pass
        if found is None:
            found = part.backend.walk(shown.exchanged, columns.request)
        return Left(found, part.first(None, shown, columns=True) if want_label_first else None)

    left = part.visit({}, visitor)
    if columns is not None:
        columns.found, columns.first = left.found, left.first or columns.first
    for one in (forward, columns):
        if one is not None and one.found is not None:
            one.add(one.found.gradient)


def _rows(
    part: Part,
    objective: Objective,
    scalars: Tensor,
    forward: Direction,
    columns: Direction | None,
) -> None:
    """The base loss's rows in both directions, and which of them are averaged."""
    base = objective.base
    sums: tuple[PositiveSums, PositiveSums] = (None, None)
    if isinstance(base, Softmax) and base.decoupled:
        sums = _positive_sums(part, scalars, forward, columns)
    for one, own in zip((forward, columns), sums, strict=True):
        if one is None or one.found is None:
            continue
        found, full = one.found, one.average.every_row
        if isinstance(base, Triplet | DynamicTriplet):
            positive = one.leading_positive(base.positive == "hardest")
            one.rows = triplet_rows(found, base, positive, full)
        elif isinstance(base, Softmax):
            offset = one.request.label_offset
            one.rows = softmax_rows(found, base, scalars[0], offset, one.one_positive, own, full)
        elif isinstance(base, Sigmoid):
            one.rows = sigmoid_rows(found, scalars[0], scalars[1])
        if one.rows is not None:
            one.average.over(one.rows.members)


def _positive_sums(
    part: Part, scalars: Tensor, forward: Direction, columns: Direction | None
) -> tuple[PositiveSums, PositiveSums]:
    """What ``Backend.positive_pass`` gives in both directions; None with one positive a row."""
    slope, backend = scalars[0].reciprocal(), part.backend
    own: PositiveSums = None
    extra: dict[str, Tensor] = {}
    if columns is not None and columns.found is not None and not columns.one_positive:
        assert columns.found.log_sum_exp is not None
        extra["log_sum_exp"] = columns.found.log_sum_exp
    log_sum_exp = None
    if forward.found is not None and not forward.one_positive:
        log_sum_exp = forward.found.log_sum_exp
    if log_sum_exp is None and not extra:
        return None, None

    def visitor(shown: Shown) -> Left:
        nonlocal own
        if log_sum_exp is not None:
            here = backend.positive_pass(shown.problem, log_sum_exp, slope, shown.label_offset)
            own = here if own is None else (own[0] + here[0], own[1] + here[1])
        if not extra:
            return Left()
        of_labels = shown.extra["log_sum_exp"]
        return Left(sums=backend.positive_pass(shown.exchanged, of_labels, slope, None))

    left = part.visit(extra, visitor)
    return own, left.sums


def _plans(
    forward: Direction,
    columns: Direction | None,
    weight: float,
    terms: ThresholdTerms | None,
    want_scalars: bool,
) -> tuple[GradientPlan | None, GradientPlan | None]:
    """Of both directions; None where there is nothing left to do."""
    assert forward.found is not None
    joint = None
    # Statistics of both sides from one pass: their coefficients are made in one pass as well.
    if forward.found.columns is not None and not forward.made:
        columns, joint = None, columns
    plan = label_plan = None
    if not forward.made or terms is not None:
        plan = gradient_plan(forward, weight, terms, want_scalars, joint)
    if columns is not None and not columns.made:
        label_plan = gradient_plan(columns, weight, None, want_scalars)
    return plan, label_plan


def hardest_negatives(part: Part, k: int, exclude_above: float | None) -> tuple[Tensor, Tensor]:
    """Of the own queries among all labels: scores (B, k) acc, descending, and int64 indices.

    -inf and -1 where there is none.
    """
    objective = Objective(exclude_above=exclude_above)
    rows, acc = part.problem.queries, part.poison.dtype
    average = RowAverage(True, rows, part.total_queries, "mean", None, acc)
    forward = Direction(part, WalkRequest(top_k=k), average, one_positive=False)
    _walk(part, objective, forward, None, want_pairs=False)
    part.summed({})
    found = forward.found
    assert found is not None and found.top_score is not None and found.top_index is not None
    return found.top_score, found.top_index


# What a walk is asked for, and what ``terms`` and the ALC parts take from it.


def walk_request(
    base: Base | None,
    one_positive: bool,
    scalars: Tensor,
    label_offset: Tensor | None,
    objective: Objective | None = None,
    **more: Any,
) -> WalkRequest:
    """What the base loss needs of a walk, and ``more``.

    Args:
        one_positive: every row has one.
        objective: of the walk over the rows, which leaves everything else too.
    """
    wanted: dict[str, Any] = {}
    if isinstance(base, Triplet | DynamicTriplet):
        wanted = {"top_k": base.num_negatives, "hardest_positive": base.positive == "hardest"}
    elif isinstance(base, Softmax):
        wanted = {
            "softmax": log_sum_exp_over(one_positive, base),
            "inverse_temperature": scalars[0].reciprocal(),
            "label_offset": label_offset,
        }
    elif isinstance(base, Sigmoid):
        wanted = {"sigmoid": True, "scale": scalars[0], "bias": scalars[1]}
    if objective is None:
        return WalkRequest(**wanted | more)
    threshold = objective.threshold
    if threshold is not None:
        wanted["positive_margin"] = threshold.positive_margin
        if threshold.negative_scope == "all":
            wanted["negative_margin"] = threshold.negative_margin
    if objective.mine or (threshold is not None and threshold.negative_scope == "hardest"):
        wanted["top_k"] = max(wanted.get("top_k", 0), 1)
    # The walk meets each row's only positive anyway: its score need not be computed again.
    if objective.mine or (one_positive and not isinstance(base, Softmax | Sigmoid)):
        wanted["hardest_positive"] = True
    return WalkRequest(**wanted | more)


def mined_pairs(
    found: RowStatistics, objective: Objective, acc: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """(B,) scores and (B,) indices of the hardest negatives, (B, 2) pairs.

    Empty where nobody asks for them.
    """
    if not objective.mine:
        score = found.num_positives.new_empty(0, dtype=acc)
        return score, found.num_positives.new_empty(0), found.num_positives.new_empty(0, 2)
    assert found.top_score is not None and found.top_index is not None
    hardest = found.top_index[:, 0]
    if not objective.pair_weight and not objective.gather:
        return found.top_score[:, 0], hardest, found.num_positives.new_empty(0, 2)
    assert found.positive_index is not None
    members = torch.minimum(found.positive_index, hardest) >= 0  # R
    pair = torch.stack([found.positive_index, hardest], dim=1)
    return found.top_score[:, 0], hardest, torch.where(members[:, None], pair, -1)
