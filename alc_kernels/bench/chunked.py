"""Softmax and sigmoid in row chunks with PyTorch's own products: bounded memory, S made twice.

What a careful user writes by hand. The forward pass keeps the row sums only; the backward pass
makes each chunk of S again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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


def _own(s: Tensor, start: int) -> tuple[Tensor, Tensor]:
    rows = torch.arange(len(s), device=s.device)
    return rows, rows + start


def _softmax_chunk(s: Tensor, start: int) -> tuple[Tensor, Tensor]:
    z = s / 0.05
    lse = z.logsumexp(dim=1)
    own = _own(s, start)
    value = (lse - z[own]).sum()
    gradient = (z - lse[:, None]).exp()
    gradient[own] -= 1
    return value, gradient / 0.05


def _sigmoid_chunk(s: Tensor, start: int) -> tuple[Tensor, Tensor]:
    z = 10.0 * s - 10.0
    z[_own(s, start)] *= -1
    gradient = 10.0 * z.sigmoid()
    gradient[_own(s, start)] *= -1
    return F.softplus(z).sum(), gradient


def softmax(queries: Tensor, labels: Tensor) -> Tensor:
    """InfoNCE with temperature 0.05."""
    return _Chunks.apply(F.normalize(queries, dim=1), F.normalize(labels, dim=1), _softmax_chunk)


def sigmoid(queries: Tensor, labels: Tensor) -> Tensor:
    """SigLIP's loss with scale 10, bias -10, mean over rows."""
    return _Chunks.apply(F.normalize(queries, dim=1), F.normalize(labels, dim=1), _sigmoid_chunk)
