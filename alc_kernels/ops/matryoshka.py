"""A base loss and threshold loss at several prefix widths, with gradients, in one operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alc_kernels import checks
from alc_kernels.engine.interface import accumulation_dtype
from alc_kernels.engine.matryoshka import (
    PrefixRows,
    SharedWalk,
    evaluate_widths,
    prefix_rows,
)
from alc_kernels.engine.operator import below_autograd, define, scale_gradient
from alc_kernels.engine.prepare import choose_backend, plain_arithmetic, poison_unless, relation
from alc_kernels.engine.specification import Given, Objective, Wants
from alc_kernels.ops.loss import arguments


class MatryoshkaResult(NamedTuple):
    """The operator's results. ``loss`` carries gradients."""

    loss: Tensor  # 0-d acc: the weighted sum
    losses: Tensor  # (W,) acc, unweighted
    poison: Tensor  # 0-d acc: 1, or NaN for bad input
    grad_queries: Tensor  # (B, d) acc, by the queries as given; empty unless wanted
    grad_labels: Tensor  # (M, d) acc; empty unless wanted
    grad_scalars: Tensor  # (2,) acc


class Call(NamedTuple):
    """The operator's arguments. The first three may want a gradient."""

    queries: Tensor
    labels: Tensor
    scalars: Tensor
    positives: list[Tensor]
    exclude: list[Tensor]
    label_offset: Tensor | None
    row_weight: Tensor | None
    positives_kind: str
    exclude_kind: str
    objective: str
    widths: list[int]
    weights: list[float]
    compute_dtype: torch.dtype
    backend: str
    want_queries: bool
    want_labels: bool
    want_scalars: bool


def matryoshka_loss(
    batch: checks.Batch,
    objective: Objective,
    widths: list[int],
    weights: list[float],
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Check the arguments and call the operator: the weighted sum, and each width's loss (W,)."""
    given = arguments(batch, objective, None, backend, "")._asdict()
    given |= {"widths": widths, "weights": weights}
    call = Call(**{name: given[name] for name in Call._fields})
    result = MatryoshkaResult(*matryoshka_loss_op(*call))
    return result.loss, result.losses


def _matryoshka_loss(call: Call) -> MatryoshkaResult:
    """See ``MatryoshkaResult`` for the results and ``Objective`` for ``objective``."""
    queries, labels, scalars = call.queries, call.labels, call.scalars
    widths, weights, compute_dtype = call.widths, call.weights, call.compute_dtype
    settings = Objective.decode(call.objective)
    acc = accumulation_dtype(compute_dtype)
    with plain_arithmetic(queries.device):
        chosen = choose_backend(call.backend, queries, compute_dtype)
        shape, steps = (queries.shape[0], labels.shape[0]), tuple(widths)
        positive, inside = relation("positives", call.positives_kind, call.positives, *shape)
        excluded, excluded_inside = relation("exclude", call.exclude_kind, call.exclude, *shape)
        rows = prefix_rows(chosen, queries, compute_dtype, settings.normalize, steps)
        columns = prefix_rows(chosen, labels, compute_dtype, settings.normalize, steps)
        poison = poison_unless(acc, rows.finite, columns.finite, inside, excluded_inside)
        shared = SharedWalk(
            chosen, rows, columns, positive, excluded, steps, tuple(weights),
            settings.exclude_above,
        )  # fmt: skip
        wants = Wants(call.want_queries, call.want_labels, call.want_scalars)
        given = Given(scalars, call.row_weight)
        found = evaluate_widths(shared, settings, given, call.label_offset, wants)
        losses = torch.stack([one.loss for one in found]) * poison
        by_queries = _joined(shared, 0, [f.grad_queries for f in found], queries, rows, acc)
        by_labels = _joined(shared, 1, [f.grad_labels for f in found], labels, columns, acc)
        by_scalars = [w * one.grad_scalars for w, one in zip(weights, found, strict=True)]
        total = torch.stack([w * one.loss for w, one in zip(weights, found, strict=True)]).sum()
        return MatryoshkaResult(
            loss=total * poison,
            losses=losses,
            poison=poison,
            grad_queries=by_queries,
            grad_labels=by_labels,
            grad_scalars=torch.stack(by_scalars).sum(dim=0),
        )


def _joined(
    shared: SharedWalk,
    side: int,
    grads: list[Tensor | None],
    x: Tensor,
    prepared: PrefixRows,
    acc: torch.dtype,
) -> Tensor:
    """(n, d) acc: the sum over widths, each taken back through its own norm."""
    if any(grad is None for grad in grads):
        return x.new_empty(0, dtype=acc)
    backend = shared.backend
    joined = shared.joined[side].by_embeddings(shared.weights)
    if joined is None:
        joined = torch.zeros(x.shape, dtype=acc, device=x.device)
    elif not shared.apart:
        return joined
    for grad, inverse, weight in zip(grads, prepared.inverse, shared.weights, strict=True):
        assert grad is not None
        width = grad.shape[1]
        prefix = x[:, :width].to(acc).contiguous()
        norm = None if inverse is None else inverse.to(acc)
        factor = torch.full((), weight, dtype=acc, device=x.device)
        joined[:, :width] += backend.normalize_rows_backward(grad, prefix, norm, factor)
    return joined


def _fake(call: Call) -> MatryoshkaResult:
    acc, device = accumulation_dtype(call.compute_dtype), call.queries.device

    def made(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=acc, device=device)

    return MatryoshkaResult(
        loss=made(),
        losses=made(len(call.widths)),
        poison=made(),
        grad_queries=made(*call.queries.shape) if call.want_queries else made(0),
        grad_labels=made(*call.labels.shape) if call.want_labels else made(0),
        grad_scalars=made(2),
    )


class _Gradients(torch.autograd.Function):
    """The gradients that the operator made, times what comes from above."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, labels: Tensor, scalars: Tensor, result: MatryoshkaResult
    ) -> Tensor:
        made = result.poison, result.grad_queries, result.grad_labels, result.grad_scalars
        ctx.save_for_backward(queries, labels, scalars, *made)
        return result.loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, poison, by_queries, by_labels, by_scalars = ctx.saved_tensors
        made = by_queries, by_labels, by_scalars
        wanted = ctx.needs_input_grad
        grads = [
            scale_gradient(grad, x, upstream * poison) if want else None
            for grad, x, want in zip(made, inputs, wanted[:3], strict=True)
        ]
        return (*grads, None)


def _attach(function: Callable[..., Any], *arguments: Any) -> tuple[Tensor, ...]:
    """Evaluate, and give the loss its backward."""
    result = MatryoshkaResult(*below_autograd(function, *arguments))
    return result._replace(loss=_Gradients.apply(*arguments[:3], result))


matryoshka_loss_op = define(
    "matryoshka_loss", _matryoshka_loss, _fake, 3, _attach, arguments=Call, results=MatryoshkaResult
)
