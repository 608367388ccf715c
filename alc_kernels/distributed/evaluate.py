"""One evaluation over the global batch: a visit for the walk, sums, a visit for the gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from alc_kernels.distributed.blocks import First
from alc_kernels.distributed.exchange import Gather
from alc_kernels.distributed.gradients import ColumnGradient, Gradients, gradients
from alc_kernels.distributed.passes import Part, Sums, find_first, positive_sums, walk_all
from alc_kernels.engine.bases import ONE_POSITIVE, RowLoss, sigmoid_rows, softmax_rows, triplet_rows
from alc_kernels.engine.evaluate import Evaluation
from alc_kernels.engine.interface import Problem, RowStatistics, WalkRequest
from alc_kernels.engine.pair_head import PairHead, pair_losses, pair_share
from alc_kernels.engine.plan import (
    base_request,
    gradient_plan,
    mined_pairs,
    scalar_gradient,
    walk_request,
)
from alc_kernels.engine.specification import Objective
from alc_kernels.engine.threshold import ThresholdSums, sides_of, threshold_sums, threshold_terms
from alc_kernels.settings import Base, DynamicTriplet, Sigmoid, Softmax, Triplet


class GlobalEvaluation(NamedTuple):
    """Values of the global batch; what belongs to rows and labels is of the own ones."""

    values: Evaluation
    pairs: Tensor | None  # (B, 2, d) compute dtype: hardest positive and negative, where mined
    poison: Tensor  # 0-d acc: 1, or NaN when the input of any process is bad


@dataclass
class _Direction:
    """The base loss over the own queries, or over the own labels."""

    found: RowStatistics
    rows: RowLoss | None
    weight: Tensor | None = None  # (n,) acc
    row_scale: Tensor | None = None  # (n,) acc: d base / d value_i


def evaluate_globally(
    part: Part,
    num_labels: int,
    objective: Objective,
    scalars: Tensor,
    label_offset: Tensor | None,
    row_weight: Tensor | None,
    pair_head: PairHead | None,
    poison: Tensor,
    unknown_scalars: bool,
    want_queries: bool,
    want_labels: bool,
    want_scalars: bool,
    want_head: bool,
) -> GlobalEvaluation:
    """As ``engine.evaluate``, of the global batch.

    Every process must call it, with the same settings. Gradients are of the own rows and labels;
    those of scalars and heads are this process's share, which sum to the global gradient.

    Args:
        num_labels: M, the own labels.
        scalars: (2,) acc: temperature or scale, and bias.
        label_offset, row_weight: (M,), (B,) acc or None.
        poison: 0-d acc, 1 or NaN: of the own input.
        unknown_scalars: compare ``scalars``: where the processes differ in them, the result is
            NaN on all of them.
    """
    base, threshold, acc = objective.base, objective.threshold, part.acc
    symmetric = bool(getattr(base, "symmetric", False))
    share = 0.5 if getattr(base, "symmetric", False) in (True, "mean") else 1.0
    weight = objective.base_weight * share
    one_positive = part.positives.kind in ONE_POSITIVE
    want_gradient = want_queries or want_labels or want_scalars

    first: First | None = None
    label_first: First | None = None
    guard = label_guard = None
    if objective.exclude_above is not None:
        first, label_first = find_first(part, symmetric)
        guard = part.limits(first.index, first.score, objective.exclude_above)
        if label_first is not None:
            label_guard = part.limits(label_first.index, label_first.score, objective.exclude_above)
    by_first = isinstance(base, Triplet | DynamicTriplet) and base.positive == "first"
    want_first = (
        first is None and (by_first or (threshold is not None and one_positive)),
        label_first is None and by_first and symmetric,
    )
    request = walk_request(base, objective, one_positive, scalars, label_offset)
    # A list of active pairs fits one block of labels only.
    request = replace(request, keep_active=want_gradient and isinstance(part.exchange, Gather))
    label_request = None
    if symmetric:
        label_request = base_request(base, part.positives.kind == "diagonal", scalars, None)
    want_pairs = objective.gather or pair_head is not None
    walked = walk_all(part, request, label_request, guard, label_guard, want_first, want_pairs)
    first, label_first = first or walked.first, label_first or walked.label_first

    forward, columns = _rows(
        part, base, scalars, request, label_request, walked.queries, walked.labels,
        first, label_first, label_offset,
    )  # fmt: skip
    hardest_score, hardest_index, pair_index = mined_pairs(forward.found, objective, acc)
    sums = Sums(poison)
    if unknown_scalars:
        sums.compare(scalars)
    _weigh(sums, "base", forward, row_weight)
    _weigh(sums, "columns", columns, None)
    own_sums = None if threshold is None else threshold_sums(forward.found, threshold)
    if own_sums is not None:
        for name, own in (("threshold", own_sums.values), ("active", own_sums.counts)):
            for side in range(2):
                sums.put(f"{name} {side}", own[side])
    pair_slope = None
    if pair_head is not None:
        assert walked.pairs is not None
        members = pair_index[:, :1] >= 0
        losses, pair_slope = pair_losses(
            _pair_logits(part, pair_head, walked.pairs, pair_index), members
        )
        sums.put("pair", losses.sum())
        sums.put("members", members.sum())
    sums.reduce(part.group)

    zero = scalars.new_zeros(())
    base_value, values = zero, None
    if forward.rows is not None and forward.weight is not None:
        values = forward.weight * forward.rows.values
        base_value = share * _mean(sums, "base", forward, objective.reduction)
    if columns is not None:
        base_value = base_value + share * _mean(sums, "columns", columns, "mean")
    loss = objective.base_weight * base_value
    terms = None
    if threshold is not None and own_sums is not None:
        total = ThresholdSums(
            torch.stack([sums.get(f"threshold {side}") for side in range(2)]),
            torch.stack([sums.get(f"active {side}", torch.int64) for side in range(2)]),
            own_sums.hardest_active,
        )  # fmt: skip
        terms = threshold_terms(total, threshold, part.sizes.total_queries)
        loss = loss + terms.total
    if objective.reduction == "none" and values is not None:
        loss = objective.base_weight * values
    pair_value = zero
    if pair_head is not None and pair_slope is not None:
        per_row = pair_share(sums.get("members"), acc)
        pair_value = sums.get("pair") * per_row
        pair_slope = pair_slope * (per_row * objective.pair_weight)
        loss = loss + objective.pair_weight * pair_value

    made = Gradients(
        queries=part.queries.new_zeros(part.queries.shape, dtype=acc) if want_queries else None,
        labels=None,
        head_weight=zero.new_zeros(0 if pair_head is None else pair_head.weight.numel()),
    )
    grad_scalars = torch.zeros_like(scalars)
    want_pair_head = pair_head is not None and (want_head or want_queries or want_labels)
    if want_gradient or want_pair_head:
        plan = None
        if want_gradient:
            plan = gradient_plan(
                forward.found, forward.rows, _scaled(forward, weight), threshold, terms,
                one_positive, partial(_found_first, first), want_scalars,
            )  # fmt: skip
        column_plan = None
        if columns is not None and want_gradient:
            column_plan = gradient_plan(
                columns.found, columns.rows, _scaled(columns, weight), None, None, False,
                partial(_found_first, label_first), want_scalars,
            )  # fmt: skip
        gradients(
            part, made, plan, ColumnGradient.of(column_plan, label_guard), guard,
            pair_head if want_pair_head else None, pair_index, pair_slope,
            want_labels, objective.deterministic,
        )  # fmt: skip
        for direction, sums_of in ((forward, made.sums), (columns, made.column_sums)):
            if direction is not None and direction.rows is not None and sums_of is not None:
                grad_scalars = grad_scalars + scalar_gradient(direction.rows, *sums_of)
    if want_labels and made.labels is None:
        made.labels = part.queries.new_zeros(num_labels, part.width, dtype=acc)
    sides, active = sides_of(terms, scalars)
    values_found = Evaluation(
        loss=loss,
        base=base_value,
        threshold=sides,
        pair=pair_value,
        active=active,
        hardest_score=hardest_score,
        hardest_index=hardest_index,
        pair_index=pair_index,
        grad_queries=made.queries,
        grad_labels=made.labels,
        grad_scalars=grad_scalars,
        grad_head_weight=made.head_weight,
        grad_head_bias=zero if pair_slope is None else pair_slope.sum(),
    )
    return GlobalEvaluation(values_found, walked.pairs, sums.poison)


def _rows(
    part: Part,
    base: Base | None,
    scalars: Tensor,
    request: WalkRequest,
    label_request: WalkRequest | None,
    found: RowStatistics,
    label_found: RowStatistics | None,
    first: First | None,
    label_first: First | None,
    label_offset: Tensor | None,
) -> tuple[_Direction, _Direction | None]:
    """The base loss's rows in both directions."""
    forward = _Direction(found, None)
    columns = None if label_found is None else _Direction(label_found, None)
    if isinstance(base, Triplet | DynamicTriplet):
        forward.rows = triplet_rows(found, base, partial(_found_first, first))
        if columns is not None:
            columns.rows = triplet_rows(columns.found, base, partial(_found_first, label_first))
    elif isinstance(base, Softmax):
        forward_one = part.positives.kind in ONE_POSITIVE
        column_one = part.positives.kind == "diagonal"
        own = label = None
        if base.decoupled and not (forward_one and (columns is None or column_one)):
            own, label = positive_sums(
                part,
                request,
                None if forward_one else found.log_sum_exp,
                label_request,
                None if columns is None or column_one else columns.found.log_sum_exp,
            )
        forward.rows = softmax_rows(
            found, base, scalars[0], label_offset, forward_one, partial(_known, own)
        )
        if columns is not None:
            columns.rows = softmax_rows(
                columns.found, base, scalars[0], None, column_one, partial(_known, label)
            )
    elif isinstance(base, Sigmoid):
        forward.rows = sigmoid_rows(found, scalars[0], scalars[1])
    return forward, columns


def _known(sums: tuple[Tensor, Tensor] | None, _: Tensor) -> tuple[Tensor, Tensor]:
    assert sums is not None
    return sums


def _found_first(first: First | None) -> tuple[Tensor, Tensor]:
    assert first is not None
    return first.index, first.score


def _weigh(sums: Sums, name: str, direction: _Direction | None, row_weight: Tensor | None) -> None:
    """Hand in the own part of a weighted mean over rows."""
    if direction is None or direction.rows is None:
        return
    rows = direction.rows
    members = rows.members
    if members is None:
        members = torch.ones_like(rows.values, dtype=torch.bool)
    weight = members.to(rows.values.dtype)
    if row_weight is not None:
        weight = torch.where(members, row_weight, 0.0)
    direction.weight = weight
    sums.put(name, (weight * rows.values).sum())
    sums.put(f"{name} weight", weight.sum())


def _mean(sums: Sums, name: str, direction: _Direction, reduction: str) -> Tensor:
    """The mean (or sum) over all processes' rows; keeps the row scale."""
    assert direction.weight is not None
    value, total = sums.get(name), sums.get(f"{name} weight")
    if reduction != "mean":
        direction.row_scale = direction.weight
        return value
    direction.row_scale = torch.where(total != 0, direction.weight / total, 0.0)
    return torch.where(total != 0, value / total, 0.0)


def _scaled(direction: _Direction, weight: float) -> Tensor | None:
    return None if direction.row_scale is None else weight * direction.row_scale


def _pair_logits(part: Part, head: PairHead, pairs: Tensor, pair_index: Tensor) -> Tensor:
    """(B, 2) acc logits of the mined pairs, whose labels are at hand."""
    labels = pairs.flatten(0, 1)  # (2B, d)
    own = torch.arange(labels.shape[0], device=labels.device).view(-1, 2)
    index = torch.where(pair_index >= 0, own, -1)
    problem = Problem(part.queries, labels, part.positives, part.exclude, None)
    return part.backend.pair_logits(problem, index, head.weight, head.bias)
