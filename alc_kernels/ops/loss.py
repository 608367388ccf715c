"""Base loss, threshold loss and pair part, with gradients, in one operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alc_kernels.distributed.operator import global_loss, join, push_rows_op
from alc_kernels.distributed.settings import Membership
from alc_kernels.engine.evaluate import evaluate
from alc_kernels.engine.interface import Problem, accumulation_dtype
from alc_kernels.engine.operator import below_autograd, define, scale_gradient
from alc_kernels.engine.pair_head import PairHead
from alc_kernels.engine.prepare import finish_gradient, plain_arithmetic, prepare
from alc_kernels.engine.specification import Objective

_VECTORS = ("label_offset", "row_weight")


class SimilarityLoss(NamedTuple):
    """The operator's results. ``loss``, ``rows`` and ``pairs`` carry gradients."""

    loss: Tensor  # 0-d acc, or (B,) with reduction="none"
    rows: Tensor  # (B, d) acc: the prepared queries; empty unless gathered
    pairs: Tensor  # (B, 2, d) acc: the mined labels, 0 outside R; empty unless gathered
    parts: Tensor  # (4,) acc: base, positive and negative side of TCM, pair part, unweighted
    active: Tensor  # (2,) int64: active positives and negatives of TCM
    hardest_score: Tensor  # (B,) acc, empty unless mined
    hardest_index: Tensor  # (B,) int64, empty unless mined
    # (B, 2) int64: hardest positive and negative, -1 outside R; empty without pair part and gather
    pair_index: Tensor
    poison: Tensor  # 0-d acc: 1, or NaN for bad input
    grad_queries: Tensor  # (B, d) acc, empty unless wanted
    grad_labels: Tensor  # (M, d) acc, empty unless wanted
    grad_scalars: Tensor  # (2,) acc
    grad_head_weight: Tensor  # (4d,) acc, empty without a pair head
    grad_head_bias: Tensor  # 0-d acc
    inverse_queries: Tensor  # (B,) acc
    inverse_labels: Tensor  # (M,) acc
    sizes: Tensor  # (2, processes) int64 on the CPU: rows and labels of each; empty without a group


def _similarity_loss(
    queries: Tensor,
    labels: Tensor,
    scalars: Tensor,
    head_weight: Tensor | None,
    head_bias: Tensor | None,
    positives: list[Tensor],
    exclude: list[Tensor],
    label_offset: Tensor | None,
    row_weight: Tensor | None,
    positives_kind: str,
    exclude_kind: str,
    objective: str,
    compute_dtype: torch.dtype,
    backend: str,
    group: str,
    want_queries: bool,
    want_labels: bool,
    want_scalars: bool,
    want_head: bool,
) -> tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
]:  # fmt: skip
    """See ``SimilarityLoss`` for the results and ``Objective`` for ``objective``."""
    settings = Objective.decode(objective)
    inputs = queries, labels, (positives_kind, positives), (exclude_kind, exclude), compute_dtype
    vectors = label_offset, row_weight
    wants = want_queries, want_labels, want_scalars, want_head
    with plain_arithmetic(queries.device):
        head = None
        if head_weight is not None and head_bias is not None:
            head = PairHead(head_weight.to(scalars.dtype), head_bias.to(scalars.dtype))
        if group:
            given = [name for name, x in zip(_VECTORS, vectors, strict=True) if x is not None]
            same = {
                "the settings of the loss": objective,
                "the optional arguments": ", ".join(given),
                "which gradients are wanted": str(wants),
            }
            joined = join(group, *inputs, settings.normalize, backend, label_offset, same, scalars)
            prepared, sizes = joined.prepared, joined.sizes.encode()
            found, mined, poison = global_loss(
                joined, labels.shape[0], settings, scalars, *vectors, head, wants
            )
            rows, pairs = _mined_rows(prepared.problem, found.pair_index, mined, settings.gather)
        else:
            prepared = prepare(*inputs, settings.normalize, backend)
            found = evaluate(
                prepared.backend, prepared.problem, settings, scalars, *vectors, head, *wants
            )
            rows, pairs = _gather(prepared.problem, found.pair_index, settings.gather)
            poison, sizes = prepared.poison, scalars.new_empty(0, dtype=torch.int64)
        parts = torch.stack([found.base, *found.threshold.unbind(), found.pair])
        return SimilarityLoss(
            loss=found.loss * poison,
            rows=rows,
            pairs=pairs,
            parts=parts * poison,
            active=found.active,
            hardest_score=found.hardest_score * poison,
            hardest_index=found.hardest_index.contiguous(),  # a column of the k hardest
            pair_index=found.pair_index,
            poison=poison,
            grad_queries=_or_empty(found.grad_queries, scalars),
            grad_labels=_or_empty(found.grad_labels, scalars),
            grad_scalars=found.grad_scalars,
            grad_head_weight=found.grad_head_weight,
            grad_head_bias=found.grad_head_bias,
            inverse_queries=prepared.inverse_queries,
            inverse_labels=prepared.inverse_labels,
            sizes=sizes,
        )


def _or_empty(x: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if x is None else x


def _gather(problem: Problem, index: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    """The embeddings of the mined pairs in acc, zeros where the index is -1."""
    rows = problem.queries
    if not wanted:
        return rows.new_empty(0, dtype=problem.acc), rows.new_empty(0, dtype=problem.acc)
    wide = rows.to(problem.acc, copy=True)
    if problem.labels.shape[0] == 0:
        return wide, wide.new_zeros(*index.shape, rows.shape[1])
    pairs = problem.labels[index.clamp(min=0)].to(problem.acc)
    return wide, torch.where((index < 0)[..., None], 0.0, pairs)


def _mined_rows(
    problem: Problem, index: Tensor, mined: Tensor | None, wanted: bool
) -> tuple[Tensor, Tensor]:
    """As ``_gather``, from embeddings (B, 2, d) that other processes have sent."""
    rows = problem.queries
    if not wanted or mined is None:
        return rows.new_empty(0, dtype=problem.acc), rows.new_empty(0, dtype=problem.acc)
    pairs = torch.where((index < 0)[..., None], 0.0, mined.to(problem.acc))
    return rows.to(problem.acc, copy=True), pairs


def _fake(
    queries: Tensor,
    labels: Tensor,
    head_weight: Tensor | None,
    objective: str,
    compute_dtype: torch.dtype,
    group: str,
    want_queries: bool,
    want_labels: bool,
    **_: Any,
) -> tuple[Tensor, ...]:
    settings = Objective.decode(objective)
    (rows, width), columns = queries.shape, labels.shape[0]
    acc = accumulation_dtype(compute_dtype)

    def made(*shape: int, dtype: torch.dtype = acc) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=queries.device)

    mined = rows if settings.mine else 0
    sizes = made(0, dtype=torch.int64)
    if group:
        processes = Membership.decode(group).world_size
        sizes = torch.empty((2, processes), dtype=torch.int64, device="cpu")
    paired = rows if settings.pair_weight or settings.gather else 0
    return SimilarityLoss(
        loss=made(rows) if settings.reduction == "none" else made(),
        rows=made(rows, width) if settings.gather else made(0),
        pairs=made(rows, 2, width) if settings.gather else made(0),
        parts=made(4),
        active=made(2, dtype=torch.int64),
        hardest_score=made(mined),
        hardest_index=made(mined, dtype=torch.int64),
        pair_index=made(paired, 2, dtype=torch.int64),
        poison=made(),
        grad_queries=made(rows, width) if want_queries else made(0),
        grad_labels=made(columns, width) if want_labels else made(0),
        grad_scalars=made(2),
        grad_head_weight=made(0 if head_weight is None else 4 * width),
        grad_head_bias=made(),
        inverse_queries=made(rows if settings.normalize else 0),
        inverse_labels=made(columns if settings.normalize else 0),
        sizes=sizes,
    )


class _Gradients(torch.autograd.Function):
    """The gradients that the operator made, times what comes from above."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        labels: Tensor,
        scalars: Tensor,
        head_weight: Tensor | None,
        head_bias: Tensor | None,
        rest: tuple[Any, ...],
        result: SimilarityLoss,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``rest``: the operator's other arguments, in order."""
        positives, exclude, label_offset, row_weight, *plain = rest
        ctx.set_materialize_grads(False)
        ctx.plain = plain[:6]
        ctx.num_positives = len(positives)
        again: tuple[Tensor, ...] = ()
        if Objective.decode(plain[2]).reduction == "none":
            again = (label_offset, row_weight, *positives, *exclude)
        ctx.save_for_backward(queries, labels, scalars, head_weight, head_bias, *result[7:], *again)
        return result[:3]

    @staticmethod
    def backward(
        ctx: Any,
        upstream: Tensor | None,
        upstream_rows: Tensor | None,
        upstream_pairs: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:5]
        return (*_finished(ctx, wanted, upstream, upstream_rows, upstream_pairs), None, None)


def _attach(function: Callable[..., Any], *arguments: Any) -> tuple[Tensor, ...]:
    """Evaluate, and give the three results that carry gradients their backward."""
    result = SimilarityLoss(*below_autograd(function, *arguments))
    return (*_Gradients.apply(*arguments[:5], arguments[5:], result), *result[3:])


def _finished(
    ctx: Any,
    want: tuple[bool, ...],
    upstream: Tensor | None,
    upstream_rows: Tensor | None,
    upstream_pairs: Tensor | None,
) -> list[Tensor | None]:
    """Gradients of the operator's five tensors."""
    saved = ctx.saved_tensors
    inputs, again = saved[:5], saved[15:]
    pair_index, poison, *gradients, sizes = saved[5:15]
    objective = Objective.decode(ctx.plain[2])
    if not objective.gather:  # the two outputs are empty then, and so are their gradients
        upstream_rows = upstream_pairs = None
    elif ctx.plain[5] and upstream_pairs is None:
        # A process without rows of its own takes part in the exchange all the same.
        upstream_pairs = poison.new_zeros(*pair_index.shape, inputs[0].shape[1])
    grads: list[Tensor | None] = [None] * 5
    if upstream is None and upstream_rows is None and upstream_pairs is None:
        return grads
    split, kinds, (dtype, backend, group) = ctx.num_positives, ctx.plain[:2], ctx.plain[3:]
    if group and upstream is not None:
        upstream = upstream * Membership.decode(group).gradient_factor
    if objective.reduction == "none" and upstream is not None:
        # A gradient per row weights the rows: evaluate again with those weights.
        offset, weight, *relations = again
        weight = upstream if weight is None else upstream * weight
        summed = replace(objective, reduction="sum").encode()
        output = similarity_loss_op(
            *inputs, relations[:split], relations[split:], offset, weight,
            *kinds, summed, dtype, backend, group, *want[:3], False,
        )  # fmt: skip
        gradients = list(SimilarityLoss(*output)[9:16])
        upstream = torch.ones_like(poison)
    by_queries, by_labels, by_scalars, by_weight, by_bias, inverse_q, inverse_k = gradients
    upstream = torch.zeros_like(poison) if upstream is None else upstream
    upstream = upstream * poison
    finish = objective.normalize, objective.deterministic, backend
    queries, labels, *small = inputs
    if want[0]:
        sides = by_queries, queries, inverse_q, upstream, upstream_rows, None
        grads[0] = finish_gradient(*sides, *finish)
    if want[1]:
        index = None if upstream_pairs is None else pair_index
        if group and upstream_pairs is not None:
            upstream_pairs = push_rows_op(
                upstream_pairs, pair_index, labels, sizes, objective.deterministic, group
            )
            index = None  # in place now
        sides = by_labels, labels, inverse_k, upstream, upstream_pairs, index
        grads[1] = finish_gradient(*sides, *finish)
    for i, (grad, x) in enumerate(zip((by_scalars, by_weight, by_bias), small, strict=True), 2):
        if want[i]:
            grads[i] = scale_gradient(grad, x, upstream)
    return grads


similarity_loss_op = define("similarity_loss", _similarity_loss, _fake, 5, _attach)
