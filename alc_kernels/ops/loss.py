"""Base loss, threshold loss and pair part, with gradients, in one operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alc_kernels import checks
from alc_kernels.distributed.control import refusing
from alc_kernels.distributed.operator import join, push_rows_op
from alc_kernels.distributed.settings import Membership, for_call, scalar_text
from alc_kernels.engine.evaluate import evaluate
from alc_kernels.engine.interface import accumulation_dtype
from alc_kernels.engine.operator import below_autograd, define, scale_gradient
from alc_kernels.engine.prepare import (
    Inputs,
    Part,
    check_backend,
    finish_gradient,
    plain_arithmetic,
    prepare,
)
from alc_kernels.engine.rows import PairHead
from alc_kernels.engine.specification import Given, Objective, Wants
from alc_kernels.settings import Softmax


class Call(NamedTuple):
    """The operator's arguments. The first five may want a gradient."""

    queries: Tensor
    labels: Tensor
    scalars: Tensor
    head_weight: Tensor | None
    head_bias: Tensor | None
    positives: list[Tensor]
    exclude: list[Tensor]
    label_offset: Tensor | None
    row_weight: Tensor | None
    positives_kind: str
    exclude_kind: str
    objective: str
    compute_dtype: torch.dtype
    backend: str
    group: str
    want_queries: bool
    want_labels: bool
    want_scalars: bool
    want_head: bool


class SimilarityLoss(NamedTuple):
    """The operator's results. ``loss``, ``rows`` and ``pairs`` carry gradients."""

    loss: Tensor  # 0-d acc, or (B,) with reduction="none"
    rows: Tensor  # (R, d) acc: the prepared queries; empty unless gathered
    pairs: Tensor  # (R, 2, d) acc: the mined labels, 0 outside R; empty unless gathered
    parts: Tensor  # (4,) acc: base, positive and negative side of TCM, pair part, unweighted
    active: Tensor  # (2,) int64: active positives and negatives of TCM
    hardest_score: Tensor  # (B,) acc, empty unless mined
    hardest_index: Tensor  # (B,) int64, empty unless mined
    # (B, 2) int64: hardest positive and negative, -1 outside R; empty without pair part and gather
    pair_index: Tensor
    chosen: Tensor  # (R,) int64, ascending: the rows that are gathered; empty where all are
    poison: Tensor  # 0-d acc: 1, or NaN for bad input
    grad_queries: Tensor  # (B, d) acc, empty unless wanted
    grad_labels: Tensor  # (M, d) acc, empty unless wanted
    grad_scalars: Tensor  # (2,) acc
    grad_head_weight: Tensor  # (4d,) acc, empty without a pair head
    grad_head_bias: Tensor  # 0-d acc
    inverse_queries: Tensor  # (B,) acc
    inverse_labels: Tensor  # (M,) acc
    sizes: Tensor  # (2, processes) int64 on the CPU: rows and labels of each; empty without a group

    @property
    def members(self) -> Tensor:
        """(R,) bool: which of the gathered rows have a positive and a negative."""
        index = self.pair_index[self.chosen] if self.chosen.shape[0] else self.pair_index
        return index[:, 0] >= 0

    @property
    def kept(self) -> Kept:
        """For the backward."""
        return Kept(*[getattr(self, name) for name in Kept._fields])


class Kept(NamedTuple):
    """Those of the results that the backward needs; see ``SimilarityLoss``."""

    pair_index: Tensor
    chosen: Tensor
    poison: Tensor
    grad_queries: Tensor
    grad_labels: Tensor
    grad_scalars: Tensor
    grad_head_weight: Tensor
    grad_head_bias: Tensor
    inverse_queries: Tensor
    inverse_labels: Tensor
    sizes: Tensor


def wants_gradient(x: Tensor) -> bool:
    """Whether a backward could ask for the gradient of ``x``."""
    return x.requires_grad and torch.is_grad_enabled()


def similarity_loss(
    batch: checks.Batch,
    objective: Objective,
    pair_head: tuple[Tensor, Tensor] | None = None,
    backend: str = "auto",
    group: str = "",
) -> SimilarityLoss:
    """Check the arguments and call the operator.

    ``pair_head`` is the weight (4d,) and bias (0-d) of the pair part, for ``objective.mine``.
    ``group`` is what ``distributed.membership`` made of a process group.
    """
    if not group or torch.compiler.is_compiling():
        return SimilarityLoss(
            *similarity_loss_op(*arguments(batch, objective, pair_head, backend, group))
        )
    with refusing(group):
        call = arguments(batch, objective, pair_head, backend, group)
    return SimilarityLoss(*similarity_loss_op(*call))


def arguments(
    batch: checks.Batch,
    objective: Objective,
    pair_head: tuple[Tensor, Tensor] | None,
    backend: str,
    group: str,
) -> Call:
    """The operator's arguments, checked."""
    queries, labels = batch.queries, batch.labels
    check_backend(backend)
    compute_dtype = checks.check_embeddings(queries, labels)
    guard = checks.check_exclude_above(objective.exclude_above)
    if guard is not None:
        objective = replace(objective, exclude_above=guard)
    checks.check_flag("normalize", objective.normalize)
    checks.check_flag("deterministic", objective.deterministic)
    relation = checks.check_relation("positives", batch, bool(group))
    excluded = checks.check_relation("exclude", batch, bool(group))
    base = objective.base
    if objective.reduction not in ("mean", "none"):
        raise ValueError(f"reduction={objective.reduction!r}: expected 'mean' or 'none'")
    if objective.reduction == "none" and getattr(base, "symmetric", False):
        raise ValueError("reduction='none': a symmetric loss has no value per row; use 'mean'")
    if batch.label_offset is not None and not isinstance(base, Softmax):
        raise ValueError("label_offset: only the softmax losses take one")
    if batch.row_weight is not None and base is None:
        raise ValueError("row_weight: weights the rows of a base loss, and there is none")
    acc = accumulation_dtype(compute_dtype)
    scalars = checks.scalars(base, queries, acc)
    head_weight, head_bias = pair_head if pair_head is not None else (None, None)
    now = objective.reduction == "mean"  # a gradient per row is evaluated in the backward
    if group:
        group = for_call(group, relation, excluded, scalar_text(base))
    return Call(
        queries=queries,
        labels=labels,
        scalars=scalars,
        head_weight=head_weight,
        head_bias=head_bias,
        positives=list(relation.tensors),
        exclude=list(excluded.tensors),
        label_offset=checks.check_vector("label_offset", batch, acc),
        row_weight=checks.check_vector("row_weight", batch, acc),
        positives_kind=relation.kind,
        exclude_kind=excluded.kind,
        objective=objective.encode(),
        compute_dtype=compute_dtype,
        backend=backend,
        group=group,
        want_queries=now and wants_gradient(queries),
        want_labels=now and wants_gradient(labels),
        want_scalars=now and wants_gradient(scalars),
        want_head=head_weight is not None and wants_gradient(head_weight),
    )


def _similarity_loss(call: Call) -> SimilarityLoss:
    """See ``SimilarityLoss`` for the results and ``Objective`` for ``objective``."""
    settings, scalars = Objective.decode(call.objective), call.scalars
    inputs = Inputs(
        call.queries, call.labels, (call.positives_kind, call.positives),
        (call.exclude_kind, call.exclude), call.compute_dtype, settings.normalize, call.backend,
        call.label_offset,
    )  # fmt: skip
    wants = Wants(call.want_queries, call.want_labels, call.want_scalars, call.want_head)
    with plain_arithmetic(call.queries.device):
        head = None
        if call.head_weight is not None and call.head_bias is not None:
            head = PairHead(call.head_weight.to(scalars.dtype), call.head_bias.to(scalars.dtype))
        if call.group:
            vectors = [n for n in ("label_offset", "row_weight") if getattr(call, n) is not None]
            same = {
                "the settings of the loss": call.objective,
                "the optional arguments": ", ".join(vectors),
                "which gradients are wanted": str(tuple(wants)),
            }
            part: Part = join(call.group, inputs, same, scalars)
        else:
            part = prepare(inputs)
        found = evaluate(part, settings, Given(scalars, call.row_weight, head), wants)
        poison = part.poison
        parts = torch.cat([found.base.view(1), found.threshold, found.pair.view(1)])
        return SimilarityLoss(
            loss=found.loss * poison,
            rows=found.rows,
            pairs=found.pairs,
            parts=parts * poison,
            active=found.active,
            hardest_score=found.hardest_score * poison,
            hardest_index=found.hardest_index.contiguous(),  # a column of the k hardest
            pair_index=found.pair_index,
            chosen=found.chosen,
            poison=poison,
            grad_queries=_or_empty(found.grad_queries, scalars),
            grad_labels=_or_empty(found.grad_labels, scalars),
            grad_scalars=found.grad_scalars,
            grad_head_weight=found.grad_head_weight,
            grad_head_bias=found.grad_head_bias,
            inverse_queries=part.inverse_queries,
            inverse_labels=part.inverse_labels,
            sizes=part.sizes,
        )


def _or_empty(x: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if x is None else x


def _fake(call: Call) -> SimilarityLoss:
    settings = Objective.decode(call.objective)
    (rows, width), columns = call.queries.shape, call.labels.shape[0]
    acc, device = accumulation_dtype(call.compute_dtype), call.queries.device

    def made(*shape: int, dtype: torch.dtype = acc) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    mined = rows if settings.mine else 0
    sizes = made(0, dtype=torch.int64)
    if call.group:
        processes = Membership.decode(call.group).world_size
        sizes = torch.empty((2, processes), dtype=torch.int64, device="cpu")
    paired = rows if settings.pair_weight or settings.gather else 0
    gathered, chosen = rows if settings.gather else 0, settings.gathered(call.queries)
    return SimilarityLoss(
        loss=made(rows) if settings.reduction == "none" else made(),
        rows=made(len(chosen) or gathered, width) if settings.gather else made(0),
        pairs=made(len(chosen) or gathered, 2, width) if settings.gather else made(0),
        parts=made(4),
        active=made(2, dtype=torch.int64),
        hardest_score=made(mined),
        hardest_index=made(mined, dtype=torch.int64),
        pair_index=made(paired, 2, dtype=torch.int64),
        chosen=torch.empty_like(chosen),
        poison=made(),
        grad_queries=made(rows, width) if call.want_queries else made(0),
        grad_labels=made(columns, width) if call.want_labels else made(0),
        grad_scalars=made(2),
        grad_head_weight=made(0 if call.head_weight is None else 4 * width),
        grad_head_bias=made(),
        inverse_queries=made(rows if settings.normalize else 0),
        inverse_labels=made(columns if settings.normalize else 0),
        sizes=sizes,
    )


_TENSORS = (*Call._fields[:9],)
_NO_TENSORS: dict[str, Any] = dict.fromkeys(_TENSORS)


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
        inputs = queries, labels, scalars, head_weight, head_bias
        call = Call(*inputs, *rest)
        ctx.set_materialize_grads(False)
        again: tuple[Tensor | None, ...] = ()
        if Objective.decode(call.objective).reduction == "none":
            again = (call.label_offset, call.row_weight, *call.positives, *call.exclude)
        ctx.num_positives = len(call.positives)
        ctx.call = call._replace(**_NO_TENSORS)
        ctx.save_for_backward(*inputs, *result.kept, *again)
        return result.loss, result.rows, result.pairs

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
    loss, rows, pairs = _Gradients.apply(*arguments[:5], arguments[5:], result)
    return result._replace(loss=loss, rows=rows, pairs=pairs)


def _finished(
    ctx: Any,
    want: tuple[bool, ...],
    upstream: Tensor | None,
    upstream_rows: Tensor | None,
    upstream_pairs: Tensor | None,
) -> list[Tensor | None]:
    """Gradients of the operator's five tensors."""
    call: Call = ctx.call
    saved, end = ctx.saved_tensors, 5 + len(Kept._fields)
    inputs, kept, again = saved[:5], Kept(*saved[5:end]), saved[end:]
    objective, group, poison = Objective.decode(call.objective), call.group, kept.poison
    pair_index, at = kept.pair_index, None
    if kept.chosen.shape[0]:
        pair_index, at = pair_index[kept.chosen], kept.chosen[:, None]
    if not objective.gather:  # the two outputs are empty then, and so are their gradients
        upstream_rows = upstream_pairs = None
    elif group and upstream_pairs is None:
        # A process without rows of its own takes part in the exchange all the same.
        upstream_pairs = poison.new_zeros(*pair_index.shape, inputs[0].shape[1])
    grads: list[Tensor | None] = [None] * 5
    if upstream is None and upstream_rows is None and upstream_pairs is None:
        return grads
    if group and upstream is not None:
        upstream = upstream * Membership.decode(group).gradient_factor
    if objective.reduction == "none" and upstream is not None:
        # A gradient per row weights the rows: evaluate again with those weights.
        offset, weight, *relations = again
        weight = upstream if weight is None else upstream * weight
        now = call._replace(
            **dict(zip(Call._fields, inputs, strict=False)),
            positives=relations[: ctx.num_positives],
            exclude=relations[ctx.num_positives :],
            label_offset=offset,
            row_weight=weight,
            objective=replace(objective, reduction="sum").encode(),
            want_queries=want[0],
            want_labels=want[1],
            want_scalars=want[2],
        )
        kept = SimilarityLoss(*similarity_loss_op(*now)).kept
        upstream = torch.ones_like(poison)
    upstream = torch.zeros_like(poison) if upstream is None else upstream
    upstream = upstream * poison
    finish = objective.normalize, objective.deterministic, call.backend
    queries, labels, *small = inputs
    if want[0]:
        sides = kept.grad_queries, queries, kept.inverse_queries, upstream
        if at is not None and upstream_rows is not None:
            upstream_rows = upstream_rows[:, None]
        grads[0] = finish_gradient(*sides, upstream_rows, at, *finish)
    if want[1]:
        index = None if upstream_pairs is None else pair_index
        if group and upstream_pairs is not None:
            upstream_pairs = push_rows_op(
                upstream_pairs, pair_index, labels, kept.sizes, objective.deterministic, group
            )
            index = None  # in place now
        sides = kept.grad_labels, labels, kept.inverse_labels, upstream
        grads[1] = finish_gradient(*sides, upstream_pairs, index, *finish)
    of_small = kept.grad_scalars, kept.grad_head_weight, kept.grad_head_bias
    for i, (grad, x) in enumerate(zip(of_small, small, strict=True), 2):
        if want[i]:
            grads[i] = scale_gradient(grad, x, upstream)
    return grads


similarity_loss_op = define(
    "similarity_loss", _similarity_loss, _fake, 5, _attach, arguments=Call, results=SimilarityLoss
)
