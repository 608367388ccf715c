"""One chunk of similarities with its masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels.backends.interface import Problem


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


def chunk_of(problem: Problem, start: int, stop: int) -> Chunk:
    """Compute one chunk. No host synchronisation."""
    scores = product(problem.queries[start:stop], problem.labels)
    device = scores.device
    positive = problem.positives.mask(start, stop, device)
    negative = ~positive
    if problem.exclude.kind != "empty":
        negative &= ~problem.exclude.mask(start, stop, device)
    if problem.guard is not None:
        negative &= scores <= problem.guard[start:stop, None]
    return Chunk(scores, positive, negative)
