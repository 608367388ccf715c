"""Base loss and threshold loss, with gradients, in one operator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alc_kernels.backends.interface import accumulation_dtype
from alc_kernels.objective import Objective, evaluate
from alc_kernels.ops.finish import finish_gradient, scale_gradient
from alc_kernels.ops.prepare import plain_arithmetic, prepare


class SimilarityLoss(NamedTuple):
    """The operator's results. Only ``loss`` carries a gradient."""

    loss: Tensor  # 0-d acc, or (B,) with reduction="none"
    parts: Tensor  # (3,) acc: base, positive and negative side of TCM, unweighted
    active: Tensor  # (2,) int64: active positives and negatives of TCM
    hardest_score: Tensor  # (B,) acc, empty unless mined
    hardest_index: Tensor  # (B,) int64, empty unless mined
    positive_index: Tensor  # (B,) int64, empty unless mined
    members: Tensor  # (B,) bool: rows with a positive and a negative
    poison: Tensor  # 0-d acc: 1, or NaN for bad input
    grad_queries: Tensor  # (B, d) acc, empty unless wanted
    grad_labels: Tensor  # (M, d) acc, empty unless wanted
    grad_scalars: Tensor  # (2,) acc
    inverse_queries: Tensor  # (B,) acc
    inverse_labels: Tensor  # (M,) acc


@torch.library.custom_op("alc_kernels::similarity_loss", mutates_args=())
def similarity_loss_op(
    queries: Tensor,
    labels: Tensor,
    scalars: Tensor,
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
) -> tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
    Tensor, Tensor,
]:  # fmt: skip
    """See ``SimilarityLoss`` for the results and ``Objective`` for ``objective``."""
    settings = Objective.decode(objective)
    with plain_arithmetic(queries.device):
        prepared = prepare(
            queries,
            labels,
            (positives_kind, positives),
            (exclude_kind, exclude),
            compute_dtype,
            settings.normalize,
            backend,
        )
        found = evaluate(
            prepared.backend,
            prepared.problem,
            settings,
            scalars,
            label_offset,
            row_weight,
            want_queries,
            want_labels,
            want_scalars,
        )
        poison = prepared.poison
        none = scalars.new_empty(0)
        return SimilarityLoss(
            loss=found.loss * poison,
            parts=torch.stack([found.base, found.tcm_positive, found.tcm_negative]) * poison,
            active=torch.stack([found.active_positives, found.active_negatives]),
            hardest_score=found.hardest_score * poison,
            hardest_index=found.hardest_index.clone(),
            positive_index=found.positive_index.clone(),
            members=found.members,
            poison=poison,
            grad_queries=none if found.grad_queries is None else found.grad_queries,
            grad_labels=none.clone() if found.grad_labels is None else found.grad_labels,
            grad_scalars=found.grad_scalars.clone(),
            inverse_queries=prepared.inverse_queries.clone(),
            inverse_labels=prepared.inverse_labels.clone(),
        )


@similarity_loss_op.register_fake
def _(
    queries: Tensor,
    labels: Tensor,
    scalars: Tensor,
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
) -> tuple[Tensor, ...]:
    settings = Objective.decode(objective)
    rows, columns = queries.shape[0], labels.shape[0]
    acc = accumulation_dtype(compute_dtype)

    def made(*shape: int, dtype: torch.dtype = acc) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=queries.device)

    mined = rows if settings.mine else 0
    return SimilarityLoss(
        loss=made(rows) if settings.reduction == "none" else made(),
        parts=made(3),
        active=made(2, dtype=torch.int64),
        hardest_score=made(mined),
        hardest_index=made(mined, dtype=torch.int64),
        positive_index=made(mined, dtype=torch.int64),
        members=made(rows, dtype=torch.bool),
        poison=made(),
        grad_queries=made(*queries.shape) if want_queries else made(0),
        grad_labels=made(*labels.shape) if want_labels else made(0),
        grad_scalars=made(2),
        inverse_queries=made(rows if settings.normalize else 0),
        inverse_labels=made(columns if settings.normalize else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    result = SimilarityLoss(*output)
    ctx.mark_non_differentiable(*result[1:])
    ctx.set_materialize_grads(False)
    (queries, labels, scalars, positives, exclude, label_offset, row_weight, *plain) = inputs
    ctx.plain = plain
    ctx.counts = len(positives), len(exclude)
    saved = (queries, labels, scalars, label_offset, row_weight)
    gradients = (
        result.grad_queries,
        result.grad_labels,
        result.grad_scalars,
        result.inverse_queries,
        result.inverse_labels,
        result.poison,
    )
    ctx.save_for_backward(*saved, *gradients, *positives, *exclude)


def _backward(ctx: Any, *upstreams: Tensor | None) -> tuple[Any, ...]:
    nothing: tuple[Any, ...] = (None,) * 3
    num_positives, num_exclude = ctx.counts
    relations = ([None] * num_positives, [None] * num_exclude)
    upstream = upstreams[0]
    if upstream is None:
        return (*nothing, *relations, *(None,) * 11)
    queries, labels, scalars, label_offset, row_weight, *rest = ctx.saved_tensors
    grad_queries, grad_labels, grad_scalars, inverse_q, inverse_k, poison, *rest = rest
    (positives_kind, exclude_kind, text, compute_dtype, backend, group, *_) = ctx.plain
    objective = Objective.decode(text)
    want = ctx.needs_input_grad[:3]
    if objective.reduction == "none":
        # A gradient per row weights the rows: evaluate again with those weights.
        weight = upstream if row_weight is None else upstream * row_weight
        again = SimilarityLoss(
            *similarity_loss_op(
                queries,
                labels,
                scalars,
                rest[:num_positives],
                rest[num_positives:],
                label_offset,
                weight,
                positives_kind,
                exclude_kind,
                replace(objective, reduction="sum").encode(),
                compute_dtype,
                backend,
                group,
                *want,
            )
        )
        grad_queries, grad_labels = again.grad_queries, again.grad_labels
        grad_scalars, upstream = again.grad_scalars, torch.ones_like(poison)
    upstream = upstream * poison
    finish = objective.normalize, backend
    return (
        finish_gradient(grad_queries, queries, inverse_q, upstream, *finish) if want[0] else None,
        finish_gradient(grad_labels, labels, inverse_k, upstream, *finish) if want[1] else None,
        scale_gradient(grad_scalars, scalars, upstream) if want[2] else None,
        *relations,
        *(None,) * 11,
    )


similarity_loss_op.register_autograd(_backward, setup_context=_setup_context)
