"""The pair part of ALC: binary cross-entropy of a linear head, features never stored."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from alc_kernels.backends.interface import accumulation_dtype
from alc_kernels.ops.finish import finish_gradient, scale_gradient
from alc_kernels.ops.prepare import plain_arithmetic, prepare


class PairLoss(NamedTuple):
    """The operator's results. Only ``loss`` carries a gradient."""

    loss: Tensor  # 0-d acc
    poison: Tensor  # 0-d acc: 1, or NaN for bad input
    grad_queries: Tensor  # (B, d) acc, empty unless wanted
    grad_labels: Tensor  # (M, d) acc, empty unless wanted
    grad_weight: Tensor  # (4d,) acc
    grad_bias: Tensor  # 0-d acc
    inverse_queries: Tensor  # (B,) acc
    inverse_labels: Tensor  # (M,) acc


@torch.library.custom_op("alc_kernels::pair_loss", mutates_args=())
def pair_loss_op(
    queries: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor,
    index: Tensor,
    members: Tensor,
    normalize: bool,
    compute_dtype: torch.dtype,
    backend: str,
    deterministic: bool,
    group: str,
    want_queries: bool,
    want_labels: bool,
    want_head: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """1/(2|R|) sum over R of softplus(-f(positive pair)) + softplus(f(negative pair)).

    ``index`` (B, 2) int64: the positive and the negative label of each row; ``members`` (B,)
    bool: R; f is linear in [a; b; |a-b|; a*b] with ``weight`` (4d,) and ``bias`` (0-d).
    """
    with plain_arithmetic(queries.device):
        none = ("empty", [])
        prepared = prepare(queries, labels, none, none, compute_dtype, normalize, backend)
        problem, chosen = prepared.problem, prepared.backend
        acc = problem.acc
        wide_weight, wide_bias = weight.to(acc), bias.to(acc)
        index = torch.where(members[:, None], index, -1)
        logits = chosen.pair_logits(problem, index, wide_weight, wide_bias)  # (B, 2)
        sign = _signs(logits)
        count = members.sum()
        share = torch.where(count > 0, 0.5 / count.to(acc), 0.0)
        losses = torch.where(members[:, None], -F.logsigmoid(sign * logits), 0.0)
        slope = torch.where(members[:, None], -sign * torch.sigmoid(-sign * logits), 0.0) * share
        empty = logits.new_empty(0)
        grads = [
            torch.zeros(x.shape, dtype=acc, device=x.device) if want else None
            for x, want in ((queries, want_queries), (labels, want_labels))
        ]
        grad_weight = torch.zeros_like(wide_weight)
        if want_queries or want_labels or want_head:
            grad_weight = chosen.pair_logits_backward(
                problem, index, wide_weight, slope, *grads, deterministic
            )
        return PairLoss(
            loss=losses.sum() * share * prepared.poison,
            poison=prepared.poison,
            grad_queries=empty if grads[0] is None else grads[0],
            grad_labels=empty.clone() if grads[1] is None else grads[1],
            grad_weight=grad_weight,
            grad_bias=slope.sum(),
            inverse_queries=prepared.inverse_queries.clone(),
            inverse_labels=prepared.inverse_labels.clone(),
        )


def _signs(like: Tensor) -> Tensor:
    """(2,) [1, -1] made on the device: copying from the host would break graph capture."""
    return 1.0 - 2.0 * torch.arange(2, device=like.device, dtype=like.dtype)


@pair_loss_op.register_fake
def _(
    queries: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor,
    index: Tensor,
    members: Tensor,
    normalize: bool,
    compute_dtype: torch.dtype,
    backend: str,
    deterministic: bool,
    group: str,
    want_queries: bool,
    want_labels: bool,
    want_head: bool,
) -> tuple[Tensor, ...]:
    acc = accumulation_dtype(compute_dtype)

    def made(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=acc, device=queries.device)

    return PairLoss(
        loss=made(),
        poison=made(),
        grad_queries=made(*queries.shape) if want_queries else made(0),
        grad_labels=made(*labels.shape) if want_labels else made(0),
        grad_weight=made(*weight.shape),
        grad_bias=made(),
        inverse_queries=made(queries.shape[0] if normalize else 0),
        inverse_labels=made(labels.shape[0] if normalize else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    queries, labels, weight, bias, _, _, normalize, _, backend, *_ = inputs
    result = PairLoss(*output)
    ctx.mark_non_differentiable(*result[1:])
    ctx.set_materialize_grads(False)
    ctx.finish = normalize, backend
    ctx.save_for_backward(queries, labels, weight, bias, *result[1:])


def _backward(ctx: Any, *upstreams: Tensor | None) -> tuple[Any, ...]:
    if upstreams[0] is None:
        return (None,) * 14
    queries, labels, weight, bias, *rest = ctx.saved_tensors
    result = PairLoss(upstreams[0], *rest)
    upstream, want = upstreams[0] * result.poison, ctx.needs_input_grad
    sides = (
        (result.grad_queries, queries, result.inverse_queries),
        (result.grad_labels, labels, result.inverse_labels),
    )
    heads = ((result.grad_weight, weight), (result.grad_bias, bias))
    return (
        *(finish_gradient(*side, upstream, *ctx.finish) if want[i] else None
          for i, side in enumerate(sides)),
        *(scale_gradient(*head, upstream) if want[2 + i] else None
          for i, head in enumerate(heads)),
        *(None,) * 10,
    )  # fmt: skip


pair_loss_op.register_autograd(_backward, setup_context=_setup_context)
