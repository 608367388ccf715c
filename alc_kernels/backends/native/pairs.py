"""Listed pairs: scores, gradients and the linear head on them."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.engine.interface import Both, Problem
from alc_kernels.positives import Positives


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


# Unit rows and the gradient through them.


def normalize_rows(
    x: Tensor, dtype: torch.dtype, normalize: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """See ``interface.Backend.normalize_rows``."""
    rows, inverse, finite = torch.ops.alc_kernels_native.normalize_rows(x, dtype, normalize)
    return rows, inverse if normalize else None, finite


def normalize_both(queries: Tensor, labels: Tensor, dtype: torch.dtype, normalize: bool) -> Both:
    """See ``interface.Backend.normalize_both``: in one operator."""
    made: Both = torch.ops.alc_kernels_native.normalize_both(queries, labels, dtype, normalize)
    if normalize:
        return made
    unit_queries, _, unit_labels, _, poison = made
    return unit_queries, None, unit_labels, None, poison


def normalize_rows_backward(
    grad: Tensor, x: Tensor, inverse_norm: Tensor | None, upstream: Tensor
) -> Tensor:
    """See ``interface.Backend.normalize_rows_backward``."""
    return torch.ops.alc_kernels_native.normalize_rows_backward(grad, x, inverse_norm, upstream)


# A relation as the operators take it.


def arguments(relation: Positives) -> tuple[str, list[Tensor]]:
    """Kind and tensors; of a csr relation the operators need the row pointer and the columns."""
    count = 2 if relation.kind == "csr" else len(relation.tensors)
    return relation.kind, list(relation.tensors[:count])
