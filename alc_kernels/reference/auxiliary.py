"""The two ALC auxiliary losses, with the attention layer written out.

Source: arXiv 2510.04551; its full equations were not available, and the fourth part of the pair
representation, the cross-entropies and the unit weights are a reconstruction.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alc_kernels.reference.bases import softplus
from alc_kernels.reference.batch import Batch, outside_autocast, prepare, reduce_rows


def pair_features(a: Tensor, b: Tensor) -> Tensor:
    """[a; b; |a - b|; a * b], (..., d) twice to (..., 4d); d|x|/dx at 0 is 0."""
    return torch.cat([a, b, (a - b).abs(), a * b], dim=-1)


def mined_features(batch: Batch, positive: Tensor, negative: Tensor, rows: Tensor) -> Tensor:
    """(B, 2, 4d): features of each row's positive and negative pair, 0 outside ``rows``."""
    labels = F.pad(batch.labels, (0, 0, 0, 1))  # (M + 1, d), last row 0 for index -1
    index = torch.stack([positive, negative], dim=1)  # (B, 2)
    b = labels[torch.where(index < 0, batch.labels.shape[0], index)]  # (B, 2, d)
    a = batch.queries[:, None].expand_as(b)
    return torch.where(rows[:, None, None], pair_features(a, b), 0.0)


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


def _layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    mean = x.mean(dim=-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=-1, keepdim=True)
    unit = (x - mean) / torch.sqrt(variance + norm.eps)
    return unit * norm.weight.to(x.dtype) + norm.bias.to(x.dtype)


def _dropout(x: Tensor, p: float, layer: nn.Module) -> Tensor:
    return F.dropout(x, p, training=layer.training)


def attention(x: Tensor, keys: Tensor, attend: nn.MultiheadAttention) -> Tensor:
    """Multi-head self-attention.

    Args:
        x: (G, T, c) tokens of G groups.
        keys: (G, T) bool, which tokens may be attended to; at least one per group.
        attend: weights, number of heads and dropout.
    """
    g, t, c = x.shape
    qkv = F.linear(x, attend.in_proj_weight.to(x.dtype), attend.in_proj_bias.to(x.dtype))
    q, k, v = qkv.view(g, t, 3, attend.num_heads, c // attend.num_heads).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (G, heads, T, T)
    weights = scores.masked_fill(~keys[:, None, None], -torch.inf).softmax(dim=-1)
    mixed = _dropout(weights, attend.dropout, attend) @ v  # (G, heads, T, c / heads)
    return _linear(mixed.transpose(1, 2).reshape(g, t, c), attend.out_proj)


def encoder_layer(x: Tensor, keys: Tensor, layer: nn.TransformerEncoderLayer) -> Tensor:
    """A post-norm transformer layer with GELU; shapes as in :func:`attention`."""
    attended = attention(x, keys, layer.self_attn)
    x = _layer_norm(x + _dropout(attended, layer.dropout1.p, layer), layer.norm1)
    hidden = _dropout(F.gelu(_linear(x, layer.linear1)), layer.dropout.p, layer)
    return _layer_norm(
        x + _dropout(_linear(hidden, layer.linear2), layer.dropout2.p, layer), layer.norm2
    )


def binary_cross_entropy(logits: Tensor, rows: Tensor) -> Tensor:
    """1/(2|R|) sum over R of softplus(-f+) + softplus(f-); logits (B, 2) = [f+, f-]."""
    values = 0.5 * (softplus(-logits[:, 0]) + softplus(logits[:, 1]))  # (B,)
    return reduce_rows(values, rows)


def pair_value(
    batch: Batch, positive: Tensor, negative: Tensor, rows: Tensor, pair_head: nn.Linear
) -> Tensor:
    """The pair part of a prepared batch."""
    features = mined_features(batch, positive, negative, rows)
    loss = binary_cross_entropy(_linear(features, pair_head)[..., 0], rows)
    return batch.attach(loss, *pair_head.parameters())


def batch_value(
    batch: Batch,
    positive: Tensor,
    negative: Tensor,
    rows: Tensor,
    context_in: nn.Linear,
    context_layer: nn.TransformerEncoderLayer,
    context_head: nn.Linear,
    sizes: tuple[int | None, int | None] = (1024, None),
) -> Tensor:
    """The batch part of a prepared batch; ``sizes``: rows of a group, rows that take part."""
    context_size, context_rows = sizes
    if context_rows is not None and context_rows < batch.queries.shape[0]:
        # The first of each of as many equal parts.
        total = batch.queries.shape[0]
        chosen = torch.arange(context_rows, device=rows.device) * total // context_rows
        batch = replace(batch, queries=batch.queries[chosen], similarity=batch.similarity[chosen])
        positive, negative, rows = positive[chosen], negative[chosen], rows[chosen]
    total = batch.queries.shape[0]
    size = max(total if context_size is None else min(context_size, total), 1)
    tokens = _linear(mined_features(batch, positive, negative, rows), context_in)  # (B, 2, c)

    # Groups of `size` rows, the last one filled up with rows that count for nothing.
    fill = -total % size
    tokens = F.pad(tokens, (0, 0, 0, 0, 0, fill)).reshape(-1, 2 * size, tokens.shape[-1])
    keys = F.pad(rows, (0, fill)).reshape(-1, size).repeat_interleave(2, dim=1)  # (G, 2 size)
    keys = keys | ~keys.any(dim=1, keepdim=True)  # a group without such rows has no loss
    mixed = encoder_layer(tokens, keys, context_layer)
    logits = _linear(mixed, context_head)[..., 0].reshape(-1, 2)[:total]  # (B, 2)

    loss = binary_cross_entropy(logits, rows)
    heads = (context_in, context_layer, context_head)
    return batch.attach(loss, *(p for head in heads for p in head.parameters()))


def _check_indices(batch: Batch, positive: Tensor, negative: Tensor, rows: Tensor | None) -> Tensor:
    """R, from the indices where it is not given; raises when a shape does not fit."""
    b = batch.queries.shape[0]
    if rows is None:
        rows = (positive >= 0) & (negative >= 0)
    given = {"positive_index": positive, "negative_index": negative, "rows": rows}
    for name, x in given.items():
        if x.shape != (b,):
            raise ValueError(f"{name}: expected shape ({b},), got {tuple(x.shape)}")
    return rows


@outside_autocast
def pair_loss(
    queries: Tensor,
    labels: Tensor,
    positive_index: Tensor,
    negative_index: Tensor,
    rows: Tensor | None,
    pair_head: nn.Linear,
    *,
    normalize: bool = True,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """The pair part of ALC: is this the positive or the negative pair?

    Args:
        queries: (B, d) floating point.
        labels: (M, d).
        positive_index: (B,) int64, each row's hardest positive, -1 where none.
        negative_index: (B,) int64, each row's hardest negative, -1 where none.
        rows: (B,) bool, R; None: the rows that have both.
        pair_head: Linear(4d, 1).
        normalize: use unit rows.
        compute_dtype: dtype the unit rows are rounded to, as under autocast.

    Returns:
        0-d float32 (float64 for float64 inputs); the head computes in that dtype.

    Raises:
        ValueError: an argument does not fit, named in the message.
    """
    batch = prepare(queries, labels, normalize=normalize, compute_dtype=compute_dtype)
    rows = _check_indices(batch, positive_index, negative_index, rows)
    return pair_value(batch, positive_index, negative_index, rows, pair_head)


@outside_autocast
def batch_loss(
    queries: Tensor,
    labels: Tensor,
    positive_index: Tensor,
    negative_index: Tensor,
    rows: Tensor | None,
    context_in: nn.Linear,
    context_layer: nn.TransformerEncoderLayer,
    context_head: nn.Linear,
    *,
    context_size: int | None = 64,
    context_rows: int | None = 1024,
    normalize: bool = True,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """The batch part of ALC: the same question after the pairs of a group attend.

    Args:
        context_in: Linear(4d, c).
        context_layer: TransformerEncoderLayer(c, ..., activation="gelu", batch_first=True,
            norm_first=False); dropout acts as its training flag says.
        context_head: Linear(c, 1).
        context_size: rows per group; None: all that take part.
        context_rows: rows that take part, spread evenly over the batch; None: all.

    The other arguments, the result and the errors are those of :func:`pair_loss`.
    """
    batch = prepare(queries, labels, normalize=normalize, compute_dtype=compute_dtype)
    rows = _check_indices(batch, positive_index, negative_index, rows)
    return batch_value(
        batch,
        positive_index,
        negative_index,
        rows,
        context_in,
        context_layer,
        context_head,
        (context_size, context_rows),
    )
