"""Listed pairs (a few labels per query), unit rows, and the chunks that all passes work in."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.engine.interface import Both, Problem, accumulation_dtype
from alc_kernels.engine.prepare import add_by_label

# Row chunks, so that memory does not grow with the number of pairs.


WORKSPACE_BYTES = 64 << 20
# A chunk of S, its masks and the temporaries of the longest formula live at the same time.
TEMPORARIES = 6


def row_chunks(num_rows: int, row_elements: int, like: Tensor) -> list[tuple[int, int]]:
    """(start, stop) ranges whose temporaries of ``row_elements`` per row fit the workspace."""
    item_bytes = max(like.element_size(), 4)  # in acc
    row_bytes = max(row_elements * item_bytes * TEMPORARIES, 1)
    step = max(1, WORKSPACE_BYTES // row_bytes)
    return [(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]


def accumulated(x: Tensor) -> Tensor:
    """``x`` in its accumulation dtype: products of half values are exact there."""
    return x if x.dtype == torch.float64 else x.float()


# Scores and gradients of listed pairs.


def pair_chunks(problem: Problem, index: Tensor) -> list[tuple[int, int]]:
    """Row ranges whose gathered labels fit the workspace."""
    width = index.shape[1] * problem.labels.shape[1]
    return row_chunks(index.shape[0], width, problem.queries)


def gather_labels(problem: Problem, index: Tensor) -> Tensor:
    """(R, t, d) acc: the labels of ``index`` (R, t); label 0 stands in where it is -1."""
    return accumulated(problem.labels[index.clamp(min=0)])


def score_pairs(problem: Problem, index: Tensor) -> Tensor:
    """See ``interface.Backend.score_pairs``."""
    scores = problem.queries.new_zeros(index.shape, dtype=problem.acc)
    if problem.labels.shape[0] == 0:
        return scores
    for start, stop in pair_chunks(problem, index):
        labels = gather_labels(problem, index[start:stop])
        queries = accumulated(problem.queries[start:stop])
        scores[start:stop] = (labels * queries[:, None]).sum(dim=2)
    return torch.where(index < 0, 0.0, scores)


def pair_gradient(
    problem: Problem,
    index: Tensor,
    coefficient: Tensor,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
    deterministic: bool,
) -> None:
    """See ``interface.Backend.pair_gradient``."""
    if problem.labels.shape[0] == 0:
        return
    coefficient = torch.where(index < 0, 0.0, coefficient)
    for start, stop in pair_chunks(problem, index):
        part, weights = index[start:stop], coefficient[start:stop, :, None]
        if grad_queries is not None:
            grad_queries[start:stop] += (weights * gather_labels(problem, part)).sum(dim=1)
        if grad_labels is not None:
            queries = accumulated(problem.queries[start:stop])
            add_by_label(grad_labels, part, weights * queries[:, None], deterministic)


# The linear pair head on [a; b; |a-b|; a*b] without storing those features for all pairs.


def pair_logits(problem: Problem, index: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See ``interface.Backend.pair_logits``."""
    logits = weight.new_zeros(index.shape)
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


# Unit rows and their gradient.


ZERO_NORM = 1e-12  # a row with a norm up to this is a zero row


def inverse_norms(x: Tensor) -> Tensor:
    """(n,) inverse norms of ``x`` (n, d) acc, 0 for zero rows; no overflow for large rows."""
    if x.shape[1] == 0:
        return x.new_zeros(x.shape[0])
    largest = x.abs().amax(dim=1)
    safe = torch.where(largest > 0, largest, 1.0)
    # Dividing by the largest element first keeps the squares in range.
    scaled_norm = (x / safe[:, None]).square().sum(dim=1).sqrt()
    inverse = (1.0 / scaled_norm) / safe
    return torch.where(scaled_norm * largest <= ZERO_NORM, 0.0, inverse)


def normalize_rows(
    x: Tensor, dtype: torch.dtype, normalize: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """See ``interface.Backend.normalize_rows``."""
    finite = torch.isfinite(x).all()
    if not normalize:
        return x.to(dtype).contiguous(), None, finite
    wide = accumulated(x)
    inverse = inverse_norms(wide)
    rows = (wide * inverse[:, None]).to(x.dtype).to(dtype)
    return rows.contiguous(), inverse, finite


def normalize_both(queries: Tensor, labels: Tensor, dtype: torch.dtype, normalize: bool) -> Both:
    """See ``interface.Backend.normalize_both``."""
    unit_queries, inverse_queries, finite_queries = normalize_rows(queries, dtype, normalize)
    unit_labels, inverse_labels, finite_labels = normalize_rows(labels, dtype, normalize)
    finite = (finite_queries & finite_labels).to(accumulation_dtype(dtype))
    return unit_queries, inverse_queries, unit_labels, inverse_labels, finite / finite


def normalize_rows_backward(
    grad: Tensor, x: Tensor, inverse_norm: Tensor | None, upstream: Tensor
) -> Tensor:
    """See ``interface.Backend.normalize_rows_backward``."""
    if inverse_norm is None:
        return (grad * upstream).to(x.dtype)
    unit = x.to(grad.dtype) * inverse_norm[:, None]
    along = (unit * grad).sum(dim=1, keepdim=True)
    return ((grad - unit * along) * (inverse_norm[:, None] * upstream)).to(x.dtype)
