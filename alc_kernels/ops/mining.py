"""Hardest negatives as an operator; the scores are differentiable at the chosen labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from alc_kernels.backends.interface import WalkRequest, accumulation_dtype
from alc_kernels.objective.evaluate import guarded
from alc_kernels.ops.finish import no_second_derivative
from alc_kernels.ops.prepare import plain_arithmetic, prepare


class Mined(NamedTuple):
    """The operator's results. Only ``scores`` carries a gradient."""

    scores: Tensor  # (B, k) acc, descending, -inf where there is none
    indices: Tensor  # (B, k) int64, -1 where there is none
    poison: Tensor  # 0-d acc: 1, or NaN for bad input


@torch.library.custom_op("alc_kernels::hardest_negatives", mutates_args=())
def hardest_negatives_op(
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


@hardest_negatives_op.register_fake
def _(
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


@torch.library.custom_op("alc_kernels::score_gradient", mutates_args=())
def score_gradient_op(
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


@score_gradient_op.register_fake
def _(
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


score_gradient_op.register_autograd(no_second_derivative)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    queries, labels, positives, exclude, _, _, _, _, *plain = inputs
    result = Mined(*output)
    ctx.mark_non_differentiable(result.indices, result.poison)
    ctx.set_materialize_grads(False)
    ctx.plain = plain
    ctx.counts = len(positives), len(exclude)
    ctx.save_for_backward(queries, labels, result.indices, result.poison)


def _backward(ctx: Any, *upstreams: Tensor | None) -> tuple[Any, ...]:
    rest: tuple[Any, ...] = ([None] * ctx.counts[0], [None] * ctx.counts[1], *(None,) * 9)
    if upstreams[0] is None:
        return (None, None, *rest)
    normalize, compute_dtype, backend, deterministic, _ = ctx.plain
    queries, labels, indices, poison = ctx.saved_tensors
    want = ctx.needs_input_grad[:2]
    grads = score_gradient_op(
        queries,
        labels,
        indices,
        upstreams[0].to(poison.dtype),
        poison,
        normalize,
        compute_dtype,
        backend,
        deterministic,
        *want,
    )
    return (grads[0] if want[0] else None, grads[1] if want[1] else None, *rest)


hardest_negatives_op.register_autograd(_backward, setup_context=_setup_context)
