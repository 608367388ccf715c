"""The linear pair head on [a; b; |a-b|; a*b] without storing those features for all pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.backends.interface import Problem
from alc_kernels.backends.torch_backend.chunks import accumulated
from alc_kernels.backends.torch_backend.pairs import add_by_label, gather_labels, pair_chunks


def pair_logits(problem: Problem, index: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See ``interface.Backend.pair_logits``."""
    logits = problem.queries.new_zeros(index.shape, dtype=problem.acc)
    if problem.labels.shape[0] == 0:
        return logits
    on_query, on_label, on_distance, on_product = weight.chunk(4)
    for start, stop in pair_chunks(problem, index):
        a = accumulated(problem.queries[start:stop])[:, None]  # (R, 1, d)
        b = gather_labels(problem, index[start:stop])  # (R, t, d)
        logits[start:stop] = (
            a @ on_query + b @ on_label + (a - b).abs() @ on_distance + (a * b) @ on_product + bias
        )
    return torch.where(index < 0, 0.0, logits)


def pair_logits_backward(
    problem: Problem,
    index: Tensor,
    weight: Tensor,
    grad: Tensor,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
    deterministic: bool,
) -> Tensor:
    """See ``interface.Backend.pair_logits_backward``."""
    grad_weight = torch.zeros_like(weight)
    if problem.labels.shape[0] == 0:
        return grad_weight
    on_query, on_label, on_distance, on_product = weight.chunk(4)
    grad = torch.where(index < 0, 0.0, grad)
    for start, stop in pair_chunks(problem, index):
        a = accumulated(problem.queries[start:stop])[:, None]  # (R, 1, d)
        b = gather_labels(problem, index[start:stop])  # (R, t, d)
        g = grad[start:stop, :, None]  # (R, t, 1)
        sign = (a - b).sign() * on_distance
        features = (a.expand_as(b), b, (a - b).abs(), a * b)
        grad_weight += torch.cat([(g * part).sum(dim=(0, 1)) for part in features])
        if grad_queries is not None:
            grad_queries[start:stop] += (g * (on_query + sign + on_product * b)).sum(dim=1)
        if grad_labels is not None:
            values = g * (on_label - sign + on_product * a)
            add_by_label(grad_labels, index[start:stop], values, deterministic)
    return grad_weight
