"""Hardest negatives as an operator; the scores are differentiable at the chosen labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alc_kernels import checks
from alc_kernels.distributed.control import refusing
from alc_kernels.distributed.operator import join
from alc_kernels.distributed.settings import Membership, for_call
from alc_kernels.engine.evaluate import hardest_negatives
from alc_kernels.engine.interface import accumulation_dtype
from alc_kernels.engine.operator import below_autograd, define
from alc_kernels.engine.plan import GradientPlan, Gradients
from alc_kernels.engine.prepare import Inputs, check_backend, plain_arithmetic, prepare
from alc_kernels.positives import Positives


class Mined(NamedTuple):
    """The operator's results. Only ``scores`` carries a gradient."""

    scores: Tensor  # (B, k) acc, descending, -inf where there is none
    indices: Tensor  # (B, k) int64, -1 where there is none
    poison: Tensor  # 0-d acc: 1, or NaN for bad input


class Call(NamedTuple):
    """The operator's arguments. The first two may want a gradient."""

    queries: Tensor
    labels: Tensor
    positives: list[Tensor]
    exclude: list[Tensor]
    positives_kind: str
    exclude_kind: str
    k: int
    exclude_above: float | None
    normalize: bool
    compute_dtype: torch.dtype
    backend: str
    deterministic: bool
    group: str


class Options(NamedTuple):
    """How to mine."""

    normalize: bool
    exclude_above: float | None
    backend: str
    deterministic: bool
    group: str  # what ``distributed.membership`` made of a process group


def mine(
    batch: checks.Batch, k: int, options: Options, positives: bool = True
) -> tuple[Tensor, Tensor]:
    """Check the arguments and call the operator; ``positives`` False: every label is a negative.

    Returns:
        scores (B, k) acc and indices (B, k) int64, of the ``k`` hardest negatives.
    """
    if not options.group or torch.compiler.is_compiling():
        found = Mined(*hardest_negatives_op(*_arguments(batch, k, options, positives)))
        return found.scores, found.indices
    with refusing(options.group):
        call = _arguments(batch, k, options, positives)
    found = Mined(*hardest_negatives_op(*call))
    return found.scores, found.indices


def _arguments(batch: checks.Batch, k: int, options: Options, positives: bool) -> Call:
    compute_dtype = checks.check_embeddings(batch.queries, batch.labels)
    normalize, exclude_above, backend, deterministic, group = options
    across = bool(group)
    relation = Positives._empty(batch.queries.shape[0], batch.labels.shape[0])
    if positives:
        relation = checks.check_relation("positives", batch, across)
    check_backend(backend)
    checks.check_k(k)
    exclude_above = checks.check_exclude_above(exclude_above)
    checks.check_flag("normalize", normalize)
    checks.check_flag("deterministic", deterministic)
    excluded = checks.check_relation("exclude", batch, across)
    return Call(
        queries=batch.queries,
        labels=batch.labels,
        positives=list(relation.tensors),
        exclude=list(excluded.tensors),
        positives_kind=relation.kind,
        exclude_kind=excluded.kind,
        k=k,
        exclude_above=exclude_above,
        normalize=normalize,
        compute_dtype=compute_dtype,
        backend=backend,
        deterministic=deterministic,
        group=for_call(group, relation, excluded),
    )


def _hardest_negatives(call: Call) -> Mined:
    """The k largest similarities of each row over its negatives."""
    inputs = Inputs(
        call.queries, call.labels, (call.positives_kind, call.positives),
        (call.exclude_kind, call.exclude), call.compute_dtype, call.normalize, call.backend,
    )  # fmt: skip
    with plain_arithmetic(call.queries.device):
        same = {"the settings of mining": str((call.k, call.exclude_above, call.normalize))}
        part = join(call.group, inputs, same) if call.group else prepare(inputs)
        scores, indices = hardest_negatives(part, call.k, call.exclude_above)
        return Mined(scores * part.poison, indices, part.poison)


def _hardest_negatives_fake(call: Call) -> Mined:
    acc, shape = accumulation_dtype(call.compute_dtype), (call.queries.shape[0], call.k)
    device = call.queries.device
    return Mined(
        torch.empty(shape, dtype=acc, device=device),
        torch.empty(shape, dtype=torch.int64, device=device),
        torch.empty((), dtype=acc, device=device),
    )


class GradientCall(NamedTuple):
    """The arguments of its backward."""

    queries: Tensor
    labels: Tensor
    indices: Tensor  # (B, k) int64
    upstream: Tensor  # (B, k) acc
    poison: Tensor
    normalize: bool
    compute_dtype: torch.dtype
    backend: str
    deterministic: bool
    group: str
    want_queries: bool
    want_labels: bool


class GradientPair(NamedTuple):
    """By queries and labels; empty where not wanted."""

    queries: Tensor
    labels: Tensor


def _score_gradient(call: GradientCall) -> GradientPair:
    """Gradients of the scores at ``indices``."""
    none: tuple[str, list[Tensor]] = ("empty", [])
    wants, normalize = (call.want_queries, call.want_labels), call.normalize
    inputs = Inputs(
        call.queries, call.labels, none, none, call.compute_dtype, normalize, call.backend
    )
    with plain_arithmetic(call.queries.device):
        same = {"which gradients are wanted": str(wants)}
        part = join(call.group, inputs, same) if call.group else prepare(inputs)
        grads = Gradients.zeros(part, wants, 0, call.deterministic)
        grads.add(GradientPlan(None, call.indices, call.upstream, None))
        out = []
        sides = (
            (call.queries, part.inverse_queries, grads.queries),
            (call.labels, part.inverse_labels, grads.labels),
        )
        for x, inverse, grad in sides:
            if grad is None:
                out.append(x.new_empty(0))
                continue
            norm = inverse if normalize else None
            out.append(part.backend.normalize_rows_backward(grad, x, norm, call.poison))
        return GradientPair(*out)


def _score_gradient_fake(call: GradientCall) -> GradientPair:
    queries, labels = call.queries, call.labels
    return GradientPair(
        queries.new_empty(queries.shape if call.want_queries else (0,)),
        labels.new_empty(labels.shape if call.want_labels else (0,)),
    )


score_gradient_op = define(
    "score_gradient", _score_gradient, _score_gradient_fake, 5,
    arguments=GradientCall, results=GradientPair,
)  # fmt: skip


class _Scores(torch.autograd.Function):
    """The scores' gradient at the chosen labels."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        result = Mined(*below_autograd(function, *arguments))
        call = Call(*arguments)
        ctx.mark_non_differentiable(result.indices, result.poison)
        ctx.set_materialize_grads(False)
        ctx.plain = (
            call.normalize, call.compute_dtype, call.backend, call.deterministic, call.group,
        )  # fmt: skip
        ctx.save_for_backward(call.queries, call.labels, result.indices, result.poison)
        return tuple(result)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        none = (None,) * (1 + len(Call._fields))  # the operator and its arguments
        if upstream is None:
            return none
        queries, labels, indices, poison = ctx.saved_tensors
        *_, group = ctx.plain
        if group:
            upstream = upstream * Membership.decode(group).gradient_factor
        want = ctx.needs_input_grad[1:3]
        grads = score_gradient_op(
            queries, labels, indices, upstream.to(poison.dtype), poison, *ctx.plain, *want
        )
        return (None, *(g if w else None for g, w in zip(grads, want, strict=True)), *none[3:])


hardest_negatives_op = define(
    "hardest_negatives", _hardest_negatives, _hardest_negatives_fake, 2, _Scores.apply,
    arguments=Call, results=Mined,
)  # fmt: skip
