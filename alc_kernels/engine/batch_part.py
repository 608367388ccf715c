"""The batch part of ALC: pairs of a group attend to each other before they are classified.

Groups are processed one after the other, so that memory does not grow with the batch. Outside
``torch.compile`` a group's gradient is computed at once, while its activations are there; under
it the group is recomputed in the backward, which the compiler understands (one graph per number
of groups).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from alc_kernels.engine.operator import scale_gradient

_log = logging.getLogger("alc_kernels")
WHOLE_BATCH_LIMIT = 8192  # rows in one group

Heads = Mapping[str, nn.Module]  # context_in, context_layer, context_head
GroupLoss = Callable[..., Tensor]  # (queries (c, d), pairs (c, 2, d), members (c,), *parameters)


def pair_features(a: Tensor, b: Tensor) -> Tensor:
    """[a; b; |a-b|; a*b]: (..., d) and (..., d) to (..., 4d)."""
    return torch.cat([a, b, (a - b).abs(), a * b], dim=-1)


def named_parameters(heads: Heads) -> dict[str, Tensor]:
    """The heads' parameters by "head.parameter"."""
    return {f"{head}.{name}": p for head in heads for name, p in heads[head].named_parameters()}


def group_loss(
    heads: Heads, queries: Tensor, pairs: Tensor, members: Tensor, *parameters: Tensor
) -> Tensor:
    """Sum of the binary cross-entropies of one group's 2c tokens, 0-d.

    Args:
        queries: (c, d) acc.
        pairs: (c, 2, d) acc: the positive and the negative label of each row.
        members: (c,) bool: rows with both; the others are neither seen nor counted.
        parameters: in the order of ``named_parameters``, in the dtype to compute in.
    """
    named = dict(zip(named_parameters(heads), parameters, strict=True))

    def call(head: str, *inputs: Tensor, **options: Tensor) -> Tensor:
        prefix = f"{head}."
        own = {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}
        out: Tensor = functional_call(heads[head], own, inputs, options)
        return out

    b = pairs.transpose(0, 1)  # (2, c, d): all positives, then all negatives
    features = pair_features(queries.expand_as(b), b).flatten(0, 1)  # (2c, 4d)
    # A group without a member would leave attention nothing to look at (NaN): let it look at
    # everything, none of it is counted.
    hidden = (~members & members.any()).repeat(2)
    tokens = call("context_in", features)[None]
    tokens = call("context_layer", tokens, src_key_padding_mask=hidden[None])
    logits = call("context_head", tokens)[0, :, 0].to(queries.dtype).view(2, -1)  # (2, c)
    losses = -F.logsigmoid(torch.stack([logits[0], -logits[1]]))
    return torch.where(members, losses, 0.0).sum()


def _groups(size: int | None, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    # A list of views: the compiler of torch 2.15 fails at the end of a generator.
    rows = tensors[0].shape[0]
    return list(zip(*[t.split(size or max(rows, 1)) for t in tensors], strict=True))


class _GroupwiseLoss(torch.autograd.Function):
    """Sum of the groups' losses with the wanted gradients computed in the forward."""

    @staticmethod
    def forward(
        ctx: Any,
        loss_of: GroupLoss,
        size: int | None,
        wanted: list[bool],
        members: Tensor,
        queries: Tensor,
        pairs: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        """``wanted`` says for queries, pairs and each parameter whether to differentiate."""
        acc = queries.dtype
        total = queries.new_zeros(())
        rows: list[list[Tensor]] = [[], []]
        # Sums over groups are taken in the accumulation dtype, whatever the heads' dtype.
        summed = [
            torch.zeros_like(p, dtype=acc) if w else None
            for p, w in zip(parameters, wanted[2:], strict=True)
        ]
        wide = [
            p.detach().to(acc).requires_grad_(w)
            for p, w in zip(parameters, wanted[2:], strict=True)
        ]
        for q, p, inside in _groups(size, queries, pairs, members):
            sides = [x.detach().requires_grad_(w) for x, w in zip((q, p), wanted[:2], strict=True)]
            with torch.set_grad_enabled(any(wanted)):
                value = loss_of(*sides, inside, *wide)
            asked = [x for x, w in zip([*sides, *wide], wanted, strict=True) if w]
            found = iter(torch.autograd.grad(value, asked) if asked else ())
            total += value.detach()
            for part, want in zip(rows, wanted[:2], strict=True):
                if want:
                    part.append(next(found))
            for sum_ in summed:
                if sum_ is not None:
                    sum_ += next(found)
        ctx.wanted = wanted
        inputs = [x for x, w in zip((queries, pairs, *parameters), wanted, strict=True) if w]
        grads = [torch.cat(part) for part in rows if part]
        grads += [sum_ for sum_ in summed if sum_ is not None]
        ctx.save_for_backward(*inputs, *grads)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        half = len(ctx.saved_tensors) // 2
        saved = iter(zip(ctx.saved_tensors[half:], ctx.saved_tensors[:half], strict=True))
        # scale_gradient also refuses a second derivative, clearly.
        grads = [scale_gradient(*next(saved), upstream) if w else None for w in ctx.wanted]
        return (None, None, None, None, *grads)


@lru_cache(maxsize=1)
def warn_about_whole_batch() -> None:
    """Once per process, not in every step."""
    _log.warning(
        "context_size=None attends over the whole batch, more than %d rows: time and memory of "
        "the batch part grow with their square",
        WHOLE_BATCH_LIMIT,
    )


def groupwise_loss(
    heads: Heads, size: int | None, queries: Tensor, pairs: Tensor, members: Tensor
) -> Tensor:
    """Sum of :func:`group_loss` over groups of ``size`` rows (None: one group), 0-d.

    Computes in the embeddings' accumulation dtype, or under autocast as autocast says.
    """
    parameters = list(named_parameters(heads).values())
    if queries.shape[0] == 0:
        # Attached to everything, and zero.
        return sum((x.flatten()[:0].sum().to(queries.dtype) for x in parameters), queries.sum())
    if not torch.compiler.is_compiling():
        inputs = queries, pairs, *parameters
        wanted = [x.requires_grad and torch.is_grad_enabled() for x in inputs]
        loss_of = partial(group_loss, heads)
        total: Tensor = _GroupwiseLoss.apply(loss_of, size, wanted, members, *inputs)
        return total
    wide = [p.to(queries.dtype) for p in parameters]
    parts = [
        checkpoint(partial(group_loss, heads), *group, *wide, use_reentrant=False)
        for group in _groups(size, queries, pairs, members)
    ]
    return torch.stack(parts).sum()
