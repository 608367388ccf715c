"""Hardest negatives as an operator; the scores are differentiable at the chosen labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload

from alc_kernels.backends.interface import WalkRequest, accumulation_dtype
from alc_kernels.objective.evaluate import guarded
from alc_kernels.ops.operator import below_autograd, define
from alc_kernels.ops.prepare import plain_arithmetic, prepare


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
    with plain_arithmetic(queries.device):
        prepared = prepare(
            queries,
            labels,
            (positives_kind, positives),
            (exclude_kind, exclude),
            compute_dtype,
            normalize,
            backend,
        )
        problem = guarded(prepared.backend, prepared.problem, exclude_above)
        found = prepared.backend.walk(problem, WalkRequest(top_k=k))
        assert found.top_score is not None and found.top_index is not None
        return Mined(found.top_score * prepared.poison, found.top_index, prepared.poison)


def _hardest_negatives_fake(
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
    want_queries: bool,
    want_labels: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients by queries and labels of the scores at ``indices``; empty where not wanted."""
    with plain_arithmetic(queries.device):
        none: tuple[str, list[Tensor]] = ("empty", [])
        prepared = prepare(queries, labels, none, none, compute_dtype, normalize, backend)
        problem, acc = prepared.problem, upstream.dtype
        grads = [
            torch.zeros(x.shape, dtype=acc, device=x.device) if want else None
            for x, want in ((queries, want_queries), (labels, want_labels))
        ]
        prepared.backend.pair_gradient(
            problem, indices, upstream, grads[0], grads[1], deterministic
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


def _score_gradient_fake(
    queries: Tensor,
    labels: Tensor,
    indices: Tensor,
    upstream: Tensor,
    poison: Tensor,
    normalize: bool,
    compute_dtype: torch.dtype,
    backend: str,
    deterministic: bool,
    want_queries: bool,
    want_labels: bool,
) -> tuple[Tensor, Tensor]:
    return (
        queries.new_empty(queries.shape if want_queries else (0,)),
        labels.new_empty(labels.shape if want_labels else (0,)),
    )


score_gradient_op = define("score_gradient", _score_gradient, _score_gradient_fake, 5)


class _Scores(torch.autograd.Function):
    """The scores' gradient at the chosen labels."""

    @staticmethod
    def forward(ctx: Any, operator: OpOverload, *arguments: Any) -> Any:
        result = Mined(*below_autograd(operator, *arguments))
        queries, labels, *_ = arguments
        ctx.mark_non_differentiable(result.indices, result.poison)
        ctx.set_materialize_grads(False)
        ctx.plain = arguments[8:12]
        ctx.save_for_backward(queries, labels, result.indices, result.poison)
        return tuple(result)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        none = (None,) * 14  # the operator and its arguments
        if upstream is None:
            return none
        queries, labels, indices, poison = ctx.saved_tensors
        want = ctx.needs_input_grad[1:3]
        grads = score_gradient_op(
            queries, labels, indices, upstream.to(poison.dtype), poison, *ctx.plain, *want
        )
        return (None, *(g if w else None for g, w in zip(grads, want, strict=True)), *none[3:])


hardest_negatives_op = define(
    "hardest_negatives", _hardest_negatives, _hardest_negatives_fake, 2, _Scores.apply
)
