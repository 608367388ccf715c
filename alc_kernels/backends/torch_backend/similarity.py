"""One chunk of similarities with its masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels.backends.interface import Problem, Slack


@dataclass(frozen=True)
class Chunk:
    """Rows ``start`` to ``stop`` of the problem, R = stop - start."""

    scores: Tensor  # (R, M) acc
    positive: Tensor  # (R, M) bool
    negative: Tensor  # (R, M) bool


def product(rows: Tensor, labels: Tensor) -> Tensor:
    """rows @ labels.T accumulated and returned in the accumulation dtype."""
    if rows.dtype in (torch.float16, torch.bfloat16):
        if rows.is_cuda:
            return torch.mm(rows, labels.T, out_dtype=torch.float32)
        rows, labels = rows.float(), labels.float()
    return rows @ labels.T


def limits(guard: Tensor, slack: Slack, start: int, stop: int) -> Tensor:
    """Of the guard, for the rows of a chunk: (R, 1), or (R, M) where every pair has its own."""
    limit = guard[start:stop, None]
    return limit if slack is None else limit - slack[0][start:stop, None] * slack[1]


def chunk_of(problem: Problem, start: int, stop: int) -> Chunk:
    """Compute one chunk. No host synchronisation."""
    scores = product(problem.queries[start:stop], problem.labels)
    device = scores.device
    positive = problem.positives.mask(start, stop, device)
    negative = ~positive
    if problem.exclude.kind != "empty":
        negative &= ~problem.exclude.mask(start, stop, device)
    if problem.guard is not None:
        negative &= scores <= limits(problem.guard, problem.slack, start, stop)
    return Chunk(scores, positive, negative)
