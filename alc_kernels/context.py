"""The batch part of ALC: pairs of a group attend to each other before they are classified.

Groups are processed one after the other, so that memory does not grow with the batch. Outside
``torch.compile`` a group's gradient is computed at once, while its activations are there; under
it the group is recomputed in the backward, which the compiler understands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

GroupLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def pair_features(a: Tensor, b: Tensor) -> Tensor:
    """[a; b; |a-b|; a*b]: (..., d) and (..., d) to (..., 4d)."""
    return torch.cat([a, b, (a - b).abs(), a * b], dim=-1)


def group_loss(
    context_in: nn.Linear,
    context_layer: nn.TransformerEncoderLayer,
    context_head: nn.Linear,
    queries: Tensor,
    pairs: Tensor,
    members: Tensor,
) -> Tensor:
    """Sum of the binary cross-entropies of one group's 2c tokens, 0-d.

    Args:
        queries: (c, d) acc.
        pairs: (c, 2, d) acc: the positive and the negative label of each row.
        members: (c,) bool: rows with both; the others are neither seen nor counted.
    """
    b = pairs.transpose(0, 1)  # (2, c, d): all positives, then all negatives
    features = pair_features(queries.expand_as(b), b).flatten(0, 1)  # (2c, 4d)
    if not torch.is_autocast_enabled(features.device.type):
        features = features.to(context_in.weight.dtype)
    # A group without a member would leave attention nothing to look at (NaN): let it look at
    # everything, none of it is counted.
    hidden = (~members & members.any()).repeat(2)
    tokens = context_layer(context_in(features)[None], src_key_padding_mask=hidden[None])
    logits = context_head(tokens)[0, :, 0].to(queries.dtype).view(2, -1)  # (2, c)
    losses = -F.logsigmoid(torch.stack([logits[0], -logits[1]]))
    return torch.where(members, losses, 0.0).sum()


def _groups(size: int | None, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    rows = tensors[0].shape[0]
    yield from zip(*(t.split(size or max(rows, 1)) for t in tensors), strict=True)


class _GroupwiseLoss(torch.autograd.Function):
    """Sum of the groups' losses with their gradients computed in the forward."""

    @staticmethod
    def forward(
        ctx: Any,
        loss_of: GroupLoss,
        size: int | None,
        queries: Tensor,
        pairs: Tensor,
        members: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[2:4] + ctx.needs_input_grad[5:]
        total = queries.new_zeros(())
        rows: list[list[Tensor]] = [[], []]
        summed: list[Tensor | None] = [None] * len(parameters)
        for q, p, inside in _groups(size, queries, pairs, members):
            with torch.enable_grad():
                leaves = [
                    x.detach().requires_grad_(w) for x, w in zip((q, p), wanted, strict=False)
                ]
                inputs = [*leaves, *parameters]
                value = loss_of(leaves[0], leaves[1], inside)
                asked = [x for x, w in zip(inputs, wanted, strict=True) if w]
                found = iter(torch.autograd.grad(value, asked) if asked else ())
            total += value.detach()
            for i, want in enumerate(wanted):
                if not want:
                    continue
                grad = next(found)
                if i < 2:
                    rows[i].append(grad)
                else:
                    before = summed[i - 2]
                    summed[i - 2] = grad if before is None else before.add_(grad)
        ctx.wanted = wanted
        ctx.save_for_backward(
            *(torch.cat(part) for part in rows if part), *(g for g in summed if g is not None)
        )
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        saved = iter(ctx.saved_tensors)
        grads: list[Tensor | None] = []
        for want in ctx.wanted:
            if want:
                grad = next(saved)
                grads.append((grad * upstream).to(grad.dtype))
            else:
                grads.append(None)
        return (None, None, *grads[:2], None, *grads[2:])


def groupwise_loss(
    loss_of: GroupLoss,
    parameters: Sequence[Tensor],
    size: int | None,
    queries: Tensor,
    pairs: Tensor,
    members: Tensor,
) -> Tensor:
    """Sum of ``loss_of`` over groups of ``size`` rows (None: one group), 0-d.

    Args:
        loss_of: (queries (c, d), pairs (c, 2, d), members (c,)) to a 0-d sum.
        parameters: the tensors that ``loss_of`` uses beside its arguments.
    """
    if queries.shape[0] == 0:
        return queries.sum() + pairs.sum()
    if not torch.compiler.is_compiling():
        total: Tensor = _GroupwiseLoss.apply(loss_of, size, queries, pairs, members, *parameters)
        return total
    parts = [
        checkpoint(loss_of, *group, use_reentrant=False)
        for group in _groups(size, queries, pairs, members)
    ]
    return torch.stack(parts).sum()
