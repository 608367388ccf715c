"""The batch part of ALC: pairs of a group attend to each other before they are classified.

Nothing of the size of a group's Γ (2c, 4d), nor of its attention weights, is kept: the first
product is taken apart (W₁q once per query, W₂k, W₃|q - k| and W₄(q ⊙ k) per pair), and PyTorch's
fused attention serves where there is no dropout inside. Groups are processed a few at a time, so
that memory does not grow with the batch. Outside ``torch.compile`` their gradient is computed at
once, while their activations are there; under it they are recomputed in the backward, which the
compiler understands (one graph per number of passes).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alc_kernels.engine.operator import scale_gradient
from alc_kernels.engine.prepare import choose_backend

_log = logging.getLogger("alc_kernels")
WHOLE_BATCH_LIMIT = 8192  # rows in one group
PASS_ROWS = 1024  # small groups are processed together up to this many rows

Heads = Mapping[str, nn.Module]  # context_in, context_layer, context_head


def named_parameters(heads: Heads) -> dict[str, Tensor]:
    """The heads' parameters by "head.parameter"."""
    return {f"{head}.{name}": p for head in heads for name, p in heads[head].named_parameters()}


def pair_tokens(queries: Tensor, pairs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``context_in`` of [q; k; |q - k|; q * k] without that row: (n, 2, c).

    Args:
        queries: (n, d).
        pairs: (n, 2, d).
        weight, bias: (c, 4d), (c,).
    """
    of_query, of_label, of_gap, of_product = weight.chunk(4, dim=1)
    q = queries[:, None]
    tokens = F.linear(pairs, of_label) + F.linear((q - pairs).abs(), of_gap)
    tokens = tokens + F.linear(q * pairs, of_product)
    return tokens + F.linear(queries, of_query, bias)[:, None]


def encoder_layer(
    tokens: Tensor, keys: Tensor | None, layer: nn.TransformerEncoderLayer, named: dict[str, Tensor]
) -> Tensor:
    """A post-norm transformer layer over groups of tokens (g, t, c).

    Args:
        keys: (g, t) bool, tokens that may be attended to, one per group at least; None: all.
        named: the parameters to compute with, by their names in ``layer``.
    """

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, named[f"{name}.weight"], named[f"{name}.bias"])

    def normalized(name: str, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        shape = list(norm.normalized_shape)
        return F.layer_norm(x, shape, named[f"{name}.weight"], named[f"{name}.bias"], norm.eps)

    def dropped(x: Tensor, p: float) -> Tensor:
        return F.dropout(x, p, layer.training)

    attend = layer.self_attn
    mixed = F.linear(tokens, named["self_attn.in_proj_weight"], named["self_attn.in_proj_bias"])
    mixed = mixed.unflatten(-1, (3, attend.num_heads, -1)).permute(2, 0, 3, 1, 4)
    inside = attend.dropout if layer.training else 0.0
    mask = None if keys is None else keys[:, None, None]
    q, k, v = mixed.unbind()
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=inside)
    attended = linear("self_attn.out_proj", attended.transpose(1, 2).flatten(2))
    x = normalized("norm1", tokens + dropped(attended, layer.dropout1.p), layer.norm1)
    hidden = dropped(F.gelu(linear("linear1", x)), layer.dropout.p)
    return normalized(
        "norm2", x + dropped(linear("linear2", hidden), layer.dropout2.p), layer.norm2
    )


def group_loss(
    heads: Heads,
    size: int,
    complete: bool,
    queries: Tensor,
    pairs: Tensor,
    members: Tensor,
    *parameters: Tensor,
) -> Tensor:
    """Sum of the binary cross-entropies of whole groups of ``size`` rows, 0-d.

    Args:
        complete: every row is a member.
        queries: (n, d) acc, n a multiple of ``size``.
        pairs: (n, 2, d) acc: the positive and the negative label of each row.
        members: (n,) bool: rows with both; the others are neither seen nor counted.
        parameters: in the order of ``named_parameters``, in the dtype to compute in.
    """
    named = dict(zip(named_parameters(heads), parameters, strict=True))
    tokens = pair_tokens(queries, pairs, named["context_in.weight"], named["context_in.bias"])
    keys = None
    if not complete:
        keys = members.view(-1, size).repeat_interleave(2, dim=1)
        # A group without a member would leave attention nothing to look at (NaN): let it look at
        # everything, none of it is counted.
        keys = keys | ~keys.any(dim=1, keepdim=True)
    layer = heads["context_layer"]
    assert isinstance(layer, nn.TransformerEncoderLayer)
    own = {k.removeprefix("context_layer."): p for k, p in named.items() if "_layer." in k}
    tokens = encoder_layer(tokens.reshape(-1, 2 * size, tokens.shape[-1]), keys, layer, own)
    logits = F.linear(tokens, named["context_head.weight"], named["context_head.bias"])
    logits = logits.to(queries.dtype).view(-1, 2)  # (n, 2)
    losses = -F.logsigmoid(torch.stack([logits[:, 0], -logits[:, 1]]))
    return (losses if complete else torch.where(members, losses, 0.0)).sum()


def _passes(size: int, *tensors: Tensor) -> list[tuple[int, tuple[Tensor, ...]]]:
    """(rows per group, rows of whole groups): a few groups at a time, the last one by itself."""
    rows = tensors[0].shape[0]
    whole = rows - rows % size
    step = max(PASS_ROWS // size, 1) * size
    ends = [*range(step, whole, step), whole, rows] if whole else [rows]
    begins = [0, *ends[:-1]]
    # A list of views: the compiler of torch 2.15 fails at the end of a generator.
    return [
        (min(size, end - begin), tuple(x[begin:end] for x in tensors))
        for begin, end in zip(begins, ends, strict=True)
        if end > begin
    ]


# Rows (n, d) and pairs (n, 2, d), the parameters, and which of rows, pairs and parameters to
# differentiate by, to the sum of the losses and its gradients, the parameters' in one piece.
Compute = Callable[
    [tuple[Tensor, Tensor], list[Tensor], Sequence[bool]], tuple[Tensor, list[Tensor | None]]
]


def _in_passes(
    heads: Heads,
    size: int,
    members: Tensor | None,
    sides: tuple[Tensor, Tensor],
    parameters: list[Tensor],
    wanted: Sequence[bool],
) -> tuple[Tensor, list[Tensor | None]]:
    """``Compute`` by :func:`group_loss`."""
    total = sides[0].new_zeros(())
    rows: tuple[list[Tensor], list[Tensor]] = ([], [])
    summed = [torch.zeros_like(p) for p in parameters] if wanted[2] else []
    leaves = [p.requires_grad_(wanted[2]) for p in parameters]
    complete = members is None
    inside = sides[0].new_ones(len(sides[0]), dtype=torch.bool) if members is None else members
    for own, (q, p, seen) in _passes(size, *sides, inside):
        part = [x.detach().requires_grad_(w) for x, w in zip((q, p), wanted, strict=False)]
        with torch.set_grad_enabled(any(wanted)):
            value = group_loss(heads, own, complete, *part, seen, *leaves)
        asked = [x for x, w in zip(part, wanted, strict=False) if w]
        asked += leaves if wanted[2] else []
        found = iter(torch.autograd.grad(value, asked) if asked else ())
        total += value.detach()
        for made, want in zip(rows, wanted, strict=False):
            if want:
                made.append(next(found))
        for sum_ in summed:
            sum_ += next(found)
    joined = [torch.cat(made) if made else None for made in rows]
    flat = torch.cat([sum_.flatten() for sum_ in summed]) if summed else None
    return total, [*joined, flat]


class _GroupwiseLoss(torch.autograd.Function):
    """Sum of the groups' losses with the wanted gradients computed in the forward."""

    @staticmethod
    def forward(
        ctx: Any,
        compute: Compute,
        wanted: list[bool],
        queries: Tensor,
        pairs: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        """``wanted`` says for queries, pairs and each parameter whether to differentiate."""
        # Sums over groups are taken in the accumulation dtype, whatever the heads' dtype.
        wide = [p.detach().to(queries.dtype) for p in parameters]
        asked = [*wanted[:2], any(wanted[2:])]
        total, grads = compute((queries.detach(), pairs.detach()), wide, asked)
        ctx.wanted = wanted
        ctx.save_for_backward(queries, pairs, *parameters, *grads)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        *inputs, of_queries, of_pairs, flat = ctx.saved_tensors
        # scale_gradient also refuses a second derivative, clearly.
        made: list[Tensor | None] = [
            None if grad is None else scale_gradient(grad, x, upstream)
            for grad, x in zip((of_queries, of_pairs), inputs, strict=False)
        ]
        if flat is not None:  # of all parameters at once
            one = inputs[ctx.wanted.index(True, 2)]
            parts = scale_gradient(flat, one, upstream).split([x.numel() for x in inputs[2:]])
            made += [g.view_as(x).to(x.dtype) for g, x in zip(parts, inputs[2:], strict=True)]
        made += [None] * (len(inputs) - len(made))
        return (None, None, *(g if w else None for g, w in zip(made, ctx.wanted, strict=True)))


@lru_cache(maxsize=1)
def warn_about_whole_batch() -> None:
    """Once per process, not in every step."""
    _log.warning(
        "context_size=None attends over the whole batch, more than %d rows: time and memory of "
        "the batch part grow with their square",
        WHOLE_BATCH_LIMIT,
    )


def groupwise_loss(
    heads: Heads,
    size: int | None,
    queries: Tensor,
    pairs: Tensor,
    members: Tensor,
    backend: str = "torch",
) -> Tensor:
    """Sum of :func:`group_loss` over groups of ``size`` rows (None: one group), 0-d.

    Computes in the embeddings' accumulation dtype, or under autocast as autocast says. ``backend``
    as for the losses: "native" has a kernel of its own where it serves these settings.
    """
    parameters = list(named_parameters(heads).values())
    rows = queries.shape[0]
    if rows == 0:
        # Attached to everything, and zero.
        return sum((x.flatten()[:0].sum().to(queries.dtype) for x in parameters), queries.sum())
    size = min(size or rows, rows)
    if torch.compiler.is_compiling():
        wide = [p.to(queries.dtype) for p in parameters]
        parts = [
            checkpoint(partial(group_loss, heads, own, False), *of, *wide, use_reentrant=False)
            for own, of in _passes(size, queries, pairs, members)
        ]
        return torch.stack(parts).sum()
    # The host knows without waiting only on a CPU.
    complete = members.device.type == "cpu" and bool(members.all())
    seen, layer = None if complete else members, heads["context_layer"]
    compute: Compute = partial(_in_passes, heads, size, seen)
    own = None
    if backend != "torch":
        own = getattr(choose_backend(backend, queries, queries.dtype), "batch_part", None)
    if own is not None and own.serves(layer, size):
        compute = partial(own.context_loss, layer, size, members=seen)
    inputs = queries, pairs, *parameters
    wanted = [x.requires_grad and torch.is_grad_enabled() for x in inputs]
    total: Tensor = _GroupwiseLoss.apply(compute, wanted, *inputs)
    return total
