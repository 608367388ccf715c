"""The walk: everything a loss needs to know per row, chunk by chunk."""

from __future__ import annotations

from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor

from alc_kernels.backends.interface import Problem, RowStatistics, WalkRequest
from alc_kernels.backends.torch_backend.chunks import problem_chunks
from alc_kernels.backends.torch_backend.similarity import Chunk, chunk_of
from alc_kernels.backends.torch_backend.topk import exact_topk


def logits(scores: Tensor, inverse_temperature: Tensor, label_offset: Tensor | None) -> Tensor:
    """z = s / temperature + label_offset, (R, M)."""
    z = scores * inverse_temperature
    return z if label_offset is None else z + label_offset


def walk(problem: Problem, request: WalkRequest) -> RowStatistics:
    """See ``interface.Backend.walk``."""
    num_rows = problem.queries.shape[0]
    whole = statistics(chunk_of(problem, 0, 0), request)
    for field in fields(RowStatistics):
        empty = getattr(whole, field.name)
        if empty is not None:
            setattr(whole, field.name, empty.new_empty(num_rows, *empty.shape[1:]))
    # Results go straight to their place: small tensors that outlive a chunk would settle in the
    # gaps between the large ones, and the heap would grow with every chunk.
    for start, stop in problem_chunks(problem):
        part = statistics(chunk_of(problem, start, stop), request)
        for field in fields(RowStatistics):
            found = getattr(part, field.name)
            if found is not None:
                getattr(whole, field.name)[start:stop] = found
    return whole


def statistics(chunk: Chunk, request: WalkRequest) -> RowStatistics:
    """What ``request`` asks for, from one chunk of rows."""
    scores, positive, negative = chunk.scores, chunk.positive, chunk.negative
    found = RowStatistics(positive.sum(dim=1), negative.sum(dim=1))
    if request.top_k:
        masked = scores.masked_fill(~negative, -torch.inf)
        found.top_score, found.top_index = exact_topk(masked, request.top_k)
    if request.hardest_positive:
        found.positive_score, found.positive_index = _hardest_positive(scores, positive)
    if request.softmax is not None:
        assert request.inverse_temperature is not None
        z = logits(scores, request.inverse_temperature, request.label_offset)
        members = negative if request.softmax == "negatives" else positive | negative
        found.log_sum_exp = z.masked_fill(~members, -torch.inf).logsumexp(dim=1)
        found.positive_logit_sum = torch.where(positive, z, 0.0).sum(dim=1)
    if request.sigmoid:
        assert request.scale is not None and request.bias is not None
        x = scores * request.scale + request.bias
        losses = -F.logsigmoid(torch.where(positive, x, -x))
        found.sigmoid_sum = torch.where(positive | negative, losses, 0.0).sum(dim=1)
    if request.positive_margin is not None:
        active = positive & (scores <= request.positive_margin)
        short = torch.where(active, request.positive_margin - scores, 0.0)
        found.positive_margin_sum = short.sum(dim=1)
        found.positive_margin_count = active.sum(dim=1)
    if request.negative_margin is not None:
        active = negative & (scores >= request.negative_margin)
        over = torch.where(active, scores - request.negative_margin, 0.0)
        found.negative_margin_sum = over.sum(dim=1)
        found.negative_margin_count = active.sum(dim=1)
    return found


def _hardest_positive(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    if scores.shape[1] == 0:
        none = torch.full((scores.shape[0],), -1, device=scores.device)
        return scores.new_full((scores.shape[0],), torch.inf), none
    score, index = torch.where(positive, scores, torch.inf).min(dim=1)  # the first minimum
    return score, torch.where(positive.any(dim=1), index, -1)


def positive_pass(
    problem: Problem,
    log_sum_exp: Tensor,
    inverse_temperature: Tensor,
    label_offset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See ``interface.Backend.positive_pass``."""
    softplus_sum = torch.zeros_like(log_sum_exp)
    sigmoid_sum = torch.zeros_like(log_sum_exp)
    for start, stop in problem_chunks(problem):
        chunk = chunk_of(problem, start, stop)
        z = logits(chunk.scores, inverse_temperature, label_offset)
        gap = log_sum_exp[start:stop, None] - z
        softplus_sum[start:stop] = torch.where(chunk.positive, -F.logsigmoid(-gap), 0.0).sum(dim=1)
        sigmoid_sum[start:stop] = torch.where(chunk.positive, gap.sigmoid(), 0.0).sum(dim=1)
    return softplus_sum, sigmoid_sum
