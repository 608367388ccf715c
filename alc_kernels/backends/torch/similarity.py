"""One chunk of similarities with its masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels.engine.interface import Problem, Slack, accumulation_dtype


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


# Row chunks, so that memory does not grow with the number of pairs.


WORKSPACE_BYTES = 64 << 20
# A chunk of S, its masks and the temporaries of the longest formula live at the same time.
TEMPORARIES = 6


def row_chunks(num_rows: int, row_elements: int, item_bytes: int = 4) -> Iterator[tuple[int, int]]:
    """(start, stop) ranges whose temporaries of ``row_elements`` per row fit the workspace."""
    row_bytes = max(row_elements * item_bytes * TEMPORARIES, 1)
    step = max(1, WORKSPACE_BYTES // row_bytes)
    for start in range(0, num_rows, step):
        yield start, min(start + step, num_rows)


def problem_chunks(problem: Problem) -> Iterator[tuple[int, int]]:
    """Row ranges for a pass over all pairs of ``problem``."""
    return row_chunks(problem.queries.shape[0], problem.labels.shape[0], problem.acc.itemsize)


def accumulated(x: Tensor) -> Tensor:
    """``x`` in its accumulation dtype: products of half values are exact there."""
    return x.to(accumulation_dtype(x.dtype))
