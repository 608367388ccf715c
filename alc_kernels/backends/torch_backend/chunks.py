"""Row chunks, so that memory does not grow with the number of pairs."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from alc_kernels.backends.interface import Problem, accumulation_dtype

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
