"""Scores and gradients of listed pairs (a few labels per query)."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.backends.interface import Problem
from alc_kernels.backends.torch_backend.chunks import accumulated, row_chunks


def pair_chunks(problem: Problem, index: Tensor) -> list[tuple[int, int]]:
    """Row ranges whose gathered labels fit the workspace."""
    width = index.shape[1] * problem.labels.shape[1]
    return list(row_chunks(index.shape[0], width, problem.acc.itemsize))


def gather_labels(problem: Problem, index: Tensor) -> Tensor:
    """(R, t, d) acc: the labels of ``index`` (R, t); label 0 stands in where it is -1."""
    return accumulated(problem.labels[index.clamp(min=0)])


def add_by_label(grad_labels: Tensor, index: Tensor, values: Tensor, deterministic: bool) -> None:
    """grad_labels[index[i, t]] += values[i, t]; where the index is -1, values must be 0."""
    flat = index.clamp(min=0).flatten()
    rows = values.flatten(0, 1)
    if deterministic and grad_labels.is_cuda:
        grad_labels.index_put_((flat,), rows, accumulate=True)  # sorts first, adds in order
    else:
        grad_labels.index_add_(0, flat, rows)


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
