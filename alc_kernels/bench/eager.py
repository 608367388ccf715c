"""The losses as plain PyTorch, S stored: what a user has without this library.

Diagonal positives, written the way the published code bases write them. Each takes (B, d)
queries and labels and returns a 0-d loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def similarities(queries: Tensor, labels: Tensor) -> Tensor:
    """(B, B) cosine similarities in the embeddings' dtype."""
    return F.normalize(queries, dim=1) @ F.normalize(labels, dim=1).T


def _own(s: Tensor) -> Tensor:
    return torch.eye(len(s), dtype=torch.bool, device=s.device)


def triplet_of(s: Tensor, num_negatives: int) -> Tensor:
    """NGAME/PRIME-style margin loss over the hardest negatives of a stored matrix."""
    negatives = s.masked_fill(_own(s), -torch.inf).topk(num_negatives, dim=1).values.float()
    loss = (0.3 - (s.diagonal().float()[:, None] - negatives)).relu()
    active = loss > 0
    weight = torch.where(active, negatives / 0.1, -torch.inf).softmax(dim=1)
    weight = torch.where(active, weight, 0.0)
    return (weight * loss).sum(dim=1).mean()


def threshold_of(s: Tensor, negative_margin: float) -> Tensor:
    """The published threshold-consistent margin loss of a stored matrix."""
    short = (0.9 - s.diagonal().float()).relu()
    over = torch.where(_own(s), 0.0, (s.float() - negative_margin).relu())
    return short.sum() / (short > 0).sum().clamp(min=1) + over.sum() / (over > 0).sum().clamp(min=1)


def triplet_threshold(
    queries: Tensor, labels: Tensor, num_negatives: int = 10, negative_margin: float = 0.5
) -> Tensor:
    """Triplet over the hardest negatives plus TCM."""
    s = similarities(queries, labels)
    return triplet_of(s, num_negatives) + threshold_of(s, negative_margin)


def threshold(queries: Tensor, labels: Tensor, negative_margin: float = 0.5) -> Tensor:
    """TCM alone."""
    return threshold_of(similarities(queries, labels), negative_margin)


def mining(queries: Tensor, labels: Tensor, negative_margin: float = 0.5) -> Tensor:
    """Each row's hardest negative, then TCM: (B + 1,); forward only."""
    s = similarities(queries, labels)
    hardest = s.masked_fill(_own(s), -torch.inf).max(dim=1).values.float()
    return torch.cat([hardest, threshold_of(s, negative_margin)[None]])


def hardest_threshold_of(s: Tensor, hardest: Tensor) -> Tensor:
    """The threshold margin over each row's hardest negative (B,), averaged over the rows."""
    short, over = (0.9 - s.diagonal().float()).relu(), (hardest.float() - 0.5).relu()
    return (short.sum() + over.sum()) / len(s)


def pair_features(a: Tensor, b: Tensor) -> Tensor:
    """[a; b; |a - b|; a * b], (..., 4d)."""
    return torch.cat([a, b, (a - b).abs(), a * b], dim=-1)


def batch_part(queries: Tensor, pairs: Tensor, heads: Any, size: int) -> Tensor:
    """ALC's batch part with PyTorch's fused attention.

    Args:
        queries: (n, d); n a multiple of ``size``, the rows of a group.
        pairs: (n, 2, d), the positive and the negative label.
        heads: ``context_in``, ``context_layer`` and ``context_head`` of :class:`ALCLoss`.
    """
    layer: Any = heads.context_layer
    attend = layer.self_attn
    x = heads.context_in(pair_features(queries[:, None].expand_as(pairs), pairs))  # (n, 2, c)
    x = x.reshape(-1, 2 * size, x.shape[-1])
    mixed = F.linear(x, attend.in_proj_weight, attend.in_proj_bias)
    mixed = mixed.unflatten(-1, (3, attend.num_heads, -1)).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(mixed[0], mixed[1], mixed[2])
    x = layer.norm1(x + attend.out_proj(attended.transpose(1, 2).flatten(2)))
    x = layer.norm2(x + layer.linear2(F.gelu(layer.linear1(x))))
    logits = heads.context_head(x).view(-1, 2)
    sign = logits.new_tensor([-1.0, 1.0])
    return F.softplus(sign * logits).mean()


def alc(queries: Tensor, labels: Tensor, heads: Any) -> Tensor:
    """The default loss without dropout: triplet, both ALC parts, threshold margin.

    ``heads``: an :class:`ALCLoss`, whose parameters and settings are used.
    """
    q, k = F.normalize(queries, dim=1), F.normalize(labels, dim=1)
    s = q @ k.T
    hardest, index = s.masked_fill(_own(s), -torch.inf).max(dim=1)
    pairs = torch.stack([k, k[index]], dim=1)  # (B, 2, d)
    part = heads.auxiliary
    logits = heads.pair_head(pair_features(q[:, None].expand_as(pairs), pairs))[..., 0]
    loss = triplet_of(s, 10) + hardest_threshold_of(s, hardest)
    loss = loss + part.pair_weight * F.softplus(logits * logits.new_tensor([-1.0, 1.0])).mean()
    rows, size = part.context_rows or len(q), part.context_size or len(q)
    if rows < len(q):
        chosen = torch.arange(rows, device=q.device) * len(q) // rows
        q, pairs = q[chosen], pairs[chosen]
    return loss + part.batch_weight * batch_part(q, pairs, heads, min(size, len(q)))


def softmax(queries: Tensor, labels: Tensor) -> Tensor:
    """InfoNCE with temperature 0.05."""
    s = similarities(queries, labels)
    return F.cross_entropy(s.float() / 0.05, torch.arange(len(s), device=s.device))


def decoupled_softmax(queries: Tensor, labels: Tensor) -> Tensor:
    """DEXML's form; with one positive per row it equals InfoNCE."""
    z = similarities(queries, labels).float() / 0.05
    return F.softplus(z.masked_fill(_own(z), -torch.inf).logsumexp(dim=1) - z.diagonal()).mean()


def symmetric_softmax(queries: Tensor, labels: Tensor) -> Tensor:
    """InfoNCE over rows and columns, as CLIP has it."""
    z = similarities(queries, labels).float() / 0.05
    target = torch.arange(len(z), device=z.device)
    return (F.cross_entropy(z, target) + F.cross_entropy(z.T, target)) / 2


def sigmoid(queries: Tensor, labels: Tensor) -> Tensor:
    """SigLIP's loss with scale 10, bias -10, mean over rows."""
    s = similarities(queries, labels).float()
    sign = 2.0 * torch.eye(len(s), device=s.device) - 1.0
    return -F.logsigmoid(sign * (10.0 * s - 10.0)).sum(dim=1).mean()


# Softmax and sigmoid in row chunks with PyTorch's own products: bounded memory, S made twice.
#
# What a careful user writes by hand. The forward pass keeps the row sums only; the backward pass
# makes each chunk of S again.


ROWS = 2048

# chunk of S (r, M) in float32, first row -> (sum of the chunk's row values, gradient by S)
Chunk = Callable[[Tensor, int], tuple[Tensor, Tensor]]


class _Chunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, labels: Tensor, chunk: Chunk) -> Tensor:
        total = queries.new_zeros((), dtype=torch.float32)
        for start in range(0, len(queries), ROWS):
            s = (queries[start : start + ROWS] @ labels.T).float()
            total += chunk(s, start)[0]
        ctx.save_for_backward(queries, labels)
        ctx.chunk = chunk
        return total / len(queries)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        queries, labels = ctx.saved_tensors
        scale = upstream[0] / len(queries)
        dq = torch.empty_like(queries)
        dk = torch.zeros_like(labels, dtype=torch.float32)
        for start in range(0, len(queries), ROWS):
            part = queries[start : start + ROWS]
            s = (part @ labels.T).float()
            gradient = (ctx.chunk(s, start)[1] * scale).to(queries.dtype)  # (r, M)
            dq[start : start + ROWS] = gradient @ labels
            dk += (gradient.T @ part).float()
        return dq, dk.to(labels.dtype), None


def _own_places(s: Tensor, start: int) -> tuple[Tensor, Tensor]:
    rows = torch.arange(len(s), device=s.device)
    return rows, rows + start


def _softmax_chunk(s: Tensor, start: int) -> tuple[Tensor, Tensor]:
    z = s / 0.05
    lse = z.logsumexp(dim=1)
    own = _own_places(s, start)
    value = (lse - z[own]).sum()
    gradient = (z - lse[:, None]).exp()
    gradient[own] -= 1
    return value, gradient / 0.05


def _sigmoid_chunk(s: Tensor, start: int) -> tuple[Tensor, Tensor]:
    z = 10.0 * s - 10.0
    z[_own_places(s, start)] *= -1
    gradient = 10.0 * z.sigmoid()
    gradient[_own_places(s, start)] *= -1
    return F.softplus(z).sum(), gradient


def chunked_softmax(queries: Tensor, labels: Tensor) -> Tensor:
    """InfoNCE with temperature 0.05."""
    return _Chunks.apply(F.normalize(queries, dim=1), F.normalize(labels, dim=1), _softmax_chunk)


def chunked_sigmoid(queries: Tensor, labels: Tensor) -> Tensor:
    """SigLIP's loss with scale 10, bias -10, mean over rows."""
    return _Chunks.apply(F.normalize(queries, dim=1), F.normalize(labels, dim=1), _sigmoid_chunk)
