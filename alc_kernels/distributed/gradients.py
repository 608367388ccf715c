"""The gradients of the global batch, in one visit to all labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from alc_kernels.distributed.blocks import Block
from alc_kernels.distributed.exchange import Exchange, Tensors, add
from alc_kernels.distributed.passes import Part
from alc_kernels.engine.interface import GradientRequest, GradientResult, Problem, add_by_label
from alc_kernels.engine.pair_head import PairHead
from alc_kernels.engine.plan import GradientPlan

# Of a gradient request, what is per row and so travels with the labels.
_PER_ROW = ("row_scale", "num_positives", "log_sum_exp", "negative_scale")


@dataclass
class Gradients:
    """Gradients by the prepared rows, as they are added up."""

    queries: Tensor | None  # (B, d) acc; None: not wanted
    labels: Tensor | None  # (M, d) acc, there in the end if wanted
    head_weight: Tensor  # (4d,) acc, this process's share; empty without a pair head
    # Sums over rows of ``GradientResult``, of this process's pairs: weighted, plain.
    sums: tuple[Tensor, Tensor] | None = None
    column_sums: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class ColumnGradient:
    """The plan of the labels' direction, cut into what travels and what is the same everywhere."""

    extra: Tensors  # (M, ...) of the own labels
    dense: GradientRequest | None

    @staticmethod
    def of(plan: GradientPlan | None, guard: Tensor | None) -> ColumnGradient | None:
        """``guard``: (M,) acc, of the own labels."""
        if plan is None:
            return None
        extra: Tensors = {} if guard is None else {"guard": guard}
        if plan.index is not None and plan.slope is not None:
            extra.update(pair_index=plan.index, pair_slope=plan.slope)
        if plan.dense is not None:
            for name in _PER_ROW:
                value = getattr(plan.dense, name)
                if value is not None:
                    extra[name] = value
        return ColumnGradient(extra, plan.dense)

    def request(self, block: Block) -> GradientRequest | None:
        """The dense request of a block's rows."""
        if self.dense is None:
            return None
        names = [name for name in _PER_ROW if name in self.extra]
        travelled: dict[str, Any] = {name: block.tensors[name] for name in names}
        return replace(self.dense, **travelled)


def gradients(
    part: Part,
    made: Gradients,
    plan: GradientPlan | None,
    columns: ColumnGradient | None,
    guard: Tensor | None,
    pair_head: PairHead | None,
    pair_index: Tensor,
    pair_slope: Tensor | None,
    want_labels: bool,
    deterministic: bool,
) -> None:
    """Add up all gradients in ``made``.

    Args:
        plan: of the own queries.
        columns: of the labels, for symmetric losses.
        guard: (B,) acc, of the own queries.
        pair_head, pair_index, pair_slope: the pair part with the slopes of its logits, (B, 2).
    """

    def visitor(block: Block) -> Tensors:
        grad_labels = None
        if want_labels:
            grad_labels = block.labels.new_zeros(block.labels.shape, dtype=part.acc)
        problem = part.problem(block, guard)
        if plan is not None:
            _own_rows(part, made, plan, problem, block, grad_labels, deterministic)
        if columns is not None:
            turned = problem.exchanged(block.tensors.get("guard"))
            _labels_rows(part, made, columns, turned, block, grad_labels, deterministic)
        if pair_head is not None and pair_slope is not None:
            made.head_weight += part.backend.pair_logits_backward(
                problem, within(pair_index, block.start, block.stop), pair_head.weight,
                pair_slope, made.queries, grad_labels, deterministic,
            )  # fmt: skip
        return {} if grad_labels is None else {"gradient": grad_labels}

    extra = {} if columns is None else columns.extra
    left = part.exchange.visit(extra, visitor, add)
    made.labels = left.get("gradient")


def _own_rows(
    part: Part,
    made: Gradients,
    plan: GradientPlan,
    problem: Problem,
    block: Block,
    grad_labels: Tensor | None,
    deterministic: bool,
) -> None:
    if plan.index is not None and (made.queries is not None or grad_labels is not None):
        assert plan.slope is not None
        index = within(plan.index, block.start, block.stop)
        part.backend.pair_gradient(
            problem, index, plan.slope, made.queries, grad_labels, deterministic
        )
    if plan.dense is not None:
        request = plan.dense
        if request.label_offset is not None:
            request = replace(request, label_offset=block.tensors["label_offset"])
        found = part.backend.dense_gradient(problem, request, made.queries, grad_labels)
        made.sums = _added(made.sums, found)


def _labels_rows(
    part: Part,
    made: Gradients,
    columns: ColumnGradient,
    problem: Problem,
    block: Block,
    grad_labels: Tensor | None,
    deterministic: bool,
) -> None:
    """The rows are labels here, and the own queries the columns."""
    tensors = block.tensors
    if "pair_index" in columns.extra and (made.queries is not None or grad_labels is not None):
        start = part.sizes.query_start
        index = within(tensors["pair_index"], start, start + part.queries.shape[0])
        part.backend.pair_gradient(
            problem, index, tensors["pair_slope"], grad_labels, made.queries, deterministic
        )
    request = columns.request(block)
    if request is not None:
        found = part.backend.dense_gradient(problem, request, grad_labels, made.queries)
        made.column_sums = _added(made.column_sums, found)


def _added(
    sums: tuple[Tensor, Tensor] | None, found: GradientResult
) -> tuple[Tensor, Tensor] | None:
    if found.weighted_sum is None or found.plain_sum is None:
        return sums
    here = found.weighted_sum.sum(), found.plain_sum.sum()
    return here if sums is None else (sums[0] + here[0], sums[1] + here[1])


def within(index: Tensor, start: int, stop: int) -> Tensor:
    """Global columns as columns of [start, stop), -1 elsewhere."""
    return torch.where((index >= start) & (index < stop), index - start, -1)


def push_rows(exchange: Exchange, values: Tensor, index: Tensor, deterministic: bool) -> Tensor:
    """Add values at labels anywhere: each label's sum over all processes.

    Args:
        values: (B, t, d) acc.
        index: (B, t) int64 global labels, -1: nothing.

    Returns:
        (M, d) acc, of the own labels.
    """

    def visitor(block: Block) -> Tensors:
        size = block.stop - block.start
        made = values.new_zeros(size, values.shape[2])
        local = within(index, block.start, block.stop)
        if size:
            here = torch.where((local < 0)[..., None], 0.0, values)
            add_by_label(made, local, here, deterministic)
        return {"gradient": made}

    return exchange.visit({}, visitor, add)["gradient"]
