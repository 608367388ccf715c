"""Listed pairs: scores, gradients and the linear head on them."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.backends.interface import Problem


def score_pairs(problem: Problem, index: Tensor) -> Tensor:
    """See ``interface.Backend.score_pairs``."""
    return torch.ops.alc_kernels_native.score_pairs(problem.queries, problem.labels, index)


def pair_gradient(
    problem: Problem,
    index: Tensor,
    coefficient: Tensor,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
    deterministic: bool,
) -> None:
    """See ``interface.Backend.pair_gradient``; always repeatable."""
    torch.ops.alc_kernels_native.pair_gradient(
        problem.queries, problem.labels, index, coefficient, grad_queries, grad_labels
    )


def pair_logits(problem: Problem, index: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See ``interface.Backend.pair_logits``."""
    return torch.ops.alc_kernels_native.pair_logits(
        problem.queries, problem.labels, index, weight, bias
    )


def pair_logits_backward(
    problem: Problem,
    index: Tensor,
    weight: Tensor,
    grad: Tensor,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
    deterministic: bool,
) -> Tensor:
    """See ``interface.Backend.pair_logits_backward``; always repeatable."""
    return torch.ops.alc_kernels_native.pair_logits_backward(
        problem.queries, problem.labels, index, weight, grad, grad_queries, grad_labels
    )
