"""The dense gradient pass: G = dL/dS chunk by chunk, multiplied out at once."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.backends.interface import GradientRequest, GradientResult, Problem
from alc_kernels.backends.torch_backend.chunks import accumulated, problem_chunks
from alc_kernels.backends.torch_backend.similarity import Chunk, chunk_of
from alc_kernels.backends.torch_backend.walk import logits


def dense_gradient(
    problem: Problem,
    request: GradientRequest,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
) -> GradientResult:
    """See ``interface.Backend.dense_gradient``."""
    result = GradientResult()
    if request.want_scalars:
        result.weighted_sum = problem.queries.new_zeros(problem.queries.shape[0], dtype=problem.acc)
        result.plain_sum = torch.zeros_like(result.weighted_sum)
    labels = accumulated(problem.labels) if grad_queries is not None else None
    for start, stop in problem_chunks(problem):
        chunk = chunk_of(problem, start, stop)
        coefficient = coefficients(chunk, request, result, start, stop)
        if grad_queries is not None and labels is not None:
            grad_queries[start:stop].addmm_(coefficient, labels)
        if grad_labels is not None:
            grad_labels.addmm_(coefficient.T, accumulated(problem.queries[start:stop]))
    return result


def coefficients(
    chunk: Chunk, request: GradientRequest, result: GradientResult, start: int, stop: int
) -> Tensor:
    """G of one chunk, (R, M); the sums that ``request`` wants go to ``result``."""
    coefficient = torch.zeros_like(chunk.scores)
    if request.kind is not None:
        g, slope = _base_coefficient(chunk, request, start, stop)
        if result.weighted_sum is not None and result.plain_sum is not None:
            result.weighted_sum[start:stop] = (g * chunk.scores).sum(dim=1)
            result.plain_sum[start:stop] = g.sum(dim=1)
        coefficient = g * slope
    return _add_margins(coefficient, chunk, request)


def _base_coefficient(
    chunk: Chunk, request: GradientRequest, start: int, stop: int
) -> tuple[Tensor, Tensor]:
    """(R, M) derivative by the logit, and the logit's slope in s (0-d)."""
    assert request.row_scale is not None
    positive, negative = chunk.positive, chunk.negative
    row_scale = request.row_scale[start:stop, None]
    if request.kind == "sigmoid":
        assert request.scale is not None and request.bias is not None
        x = chunk.scores * request.scale + request.bias
        g = torch.where(positive, -torch.sigmoid(-x), torch.sigmoid(x))
        g = torch.where(positive | negative, g, 0.0)
        return torch.where(row_scale == 0, 0.0, g * row_scale), request.scale
    assert request.inverse_temperature is not None and request.log_sum_exp is not None
    assert request.num_positives is not None
    z = logits(chunk.scores, request.inverse_temperature, request.label_offset)
    lse = request.log_sum_exp[start:stop, None]
    share = 1.0 / request.num_positives[start:stop, None].to(z.dtype)
    if request.kind == "softmax":
        g = torch.where(positive | negative, (z - lse).exp(), 0.0)
        g = g - torch.where(positive, share, 0.0)
    else:
        assert request.negative_scale is not None
        g = torch.where(negative, request.negative_scale[start:stop, None] * (z - lse).exp(), 0.0)
        g = torch.where(positive, -torch.sigmoid(lse - z) * share, g)
    return torch.where(row_scale == 0, 0.0, g * row_scale), request.inverse_temperature


def _add_margins(coefficient: Tensor, chunk: Chunk, request: GradientRequest) -> Tensor:
    if request.positive_margin is not None:
        assert request.positive_margin_scale is not None
        active = chunk.positive & (chunk.scores <= request.positive_margin)
        coefficient = coefficient - torch.where(active, request.positive_margin_scale, 0.0)
    if request.negative_margin is not None:
        assert request.negative_margin_scale is not None
        active = chunk.negative & (chunk.scores >= request.negative_margin)
        coefficient = coefficient + torch.where(active, request.negative_margin_scale, 0.0)
    return coefficient
