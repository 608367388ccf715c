"""Hardest negatives as an operator; the scores are differentiable at the chosen labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alc_kernels.distributed.operator import global_hardest, global_pair_gradient, join
from alc_kernels.distributed.settings import Membership
from alc_kernels.engine.evaluate import guarded
from alc_kernels.engine.interface import WalkRequest, accumulation_dtype
from alc_kernels.engine.operator import below_autograd, define
from alc_kernels.engine.prepare import plain_arithmetic, prepare


class Mined(NamedTuple):
    """The operator's results. Only ``scores`` carries a gradient."""

    scores: Tensor  # (B, k) acc, descending, -inf where there is none
    indices: Tensor  # (B, k) int64, -1 where there is none
    poison: Tensor  # 0-d acc: 1, or NaN for bad input


def _hardest_negatives(
    queries: Tensor,
    labels: Tensor,
    positives: list[Tensor],
    exclude: list[Tensor],
    positives_kind: str,
    exclude_kind: str,
    k: int,
    exclude_above: float | None,
    normalize: bool,
    compute_dtype: torch.dtype,
    backend: str,
    deterministic: bool,
    group: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The k largest similarities of each row over its negatives."""
    inputs = queries, labels, (positives_kind, positives), (exclude_kind, exclude), compute_dtype
    with plain_arithmetic(queries.device):
        if group:
            same = {"the settings of mining": str((k, exclude_above, normalize))}
            joined = join(group, *inputs, normalize, backend, None, same)
            return Mined(*global_hardest(joined, k, exclude_above))
        prepared = prepare(*inputs, normalize, backend)
        problem = guarded(prepared.backend, prepared.problem, exclude_above, normalize)
        found = prepared.backend.walk(problem, WalkRequest(top_k=k))
        assert found.top_score is not None and found.top_index is not None
        return Mined(found.top_score * prepared.poison, found.top_index, prepared.poison)


def _hardest_negatives_fake(
    queries: Tensor, k: int, compute_dtype: torch.dtype, **_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    acc, shape = accumulation_dtype(compute_dtype), (queries.shape[0], k)
    return Mined(
        torch.empty(shape, dtype=acc, device=queries.device),
        torch.empty(shape, dtype=torch.int64, device=queries.device),
        torch.empty((), dtype=acc, device=queries.device),
    )


def _score_gradient(
    queries: Tensor,
    labels: Tensor,
    indices: Tensor,
    upstream: Tensor,
    poison: Tensor,
    normalize: bool,
    compute_dtype: torch.dtype,
    backend: str,
    deterministic: bool,
    group: str,
    want_queries: bool,
    want_labels: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients by queries and labels of the scores at ``indices``; empty where not wanted."""
    with plain_arithmetic(queries.device):
        none: tuple[str, list[Tensor]] = ("empty", [])
        inputs = queries, labels, none, none, compute_dtype, normalize, backend
        wants = want_queries, want_labels
        if group:
            joined = join(group, *inputs, None, {"which gradients are wanted": str(wants)})
            prepared = joined.prepared
            grads = global_pair_gradient(joined, indices, upstream, *wants, deterministic)
        else:
            prepared = prepare(*inputs)
            grads = (
                _zeros(queries, upstream) if want_queries else None,
                _zeros(labels, upstream) if want_labels else None,
            )
            prepared.backend.pair_gradient(
                prepared.problem, indices, upstream, *grads, deterministic
            )
        out = []
        sides = ((queries, prepared.inverse_queries), (labels, prepared.inverse_labels))
        for (x, inverse), grad in zip(sides, grads, strict=True):
            if grad is None:
                out.append(x.new_empty(0))
                continue
            norm = inverse if normalize else None
            out.append(prepared.backend.normalize_rows_backward(grad, x, norm, poison))
        return out[0], out[1]


def _zeros(rows: Tensor, like: Tensor) -> Tensor:
    return torch.zeros(rows.shape, dtype=like.dtype, device=rows.device)


def _score_gradient_fake(
    queries: Tensor, labels: Tensor, want_queries: bool, want_labels: bool, **_: Any
) -> tuple[Tensor, Tensor]:
    return (
        queries.new_empty(queries.shape if want_queries else (0,)),
        labels.new_empty(labels.shape if want_labels else (0,)),
    )


score_gradient_op = define("score_gradient", _score_gradient, _score_gradient_fake, 5)


class _Scores(torch.autograd.Function):
    """The scores' gradient at the chosen labels."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        result = Mined(*below_autograd(function, *arguments))
        queries, labels, *_ = arguments
        ctx.mark_non_differentiable(result.indices, result.poison)
        ctx.set_materialize_grads(False)
        ctx.plain = arguments[8:13]
        ctx.save_for_backward(queries, labels, result.indices, result.poison)
        return tuple(result)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        none = (None,) * 14  # the operator and its arguments
        if upstream is None:
            return none
        queries, labels, indices, poison = ctx.saved_tensors
        if ctx.plain[-1]:
            upstream = upstream * Membership.decode(ctx.plain[-1]).gradient_factor
        want = ctx.needs_input_grad[1:3]
        grads = score_gradient_op(
            queries, labels, indices, upstream.to(poison.dtype), poison, *ctx.plain, *want
        )
        return (None, *(g if w else None for g, w in zip(grads, want, strict=True)), *none[3:])


hardest_negatives_op = define(
    "hardest_negatives", _hardest_negatives, _hardest_negatives_fake, 2, _Scores.apply
)
