"""The k hardest per row through the CUDA kernels: how wide sub-tiles are, how many rows at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alc_kernels.backends.cuda import operators
from alc_kernels.backends.cuda.library import enabled
from alc_kernels.engine.interface import Problem

MAX_WIDTH = 32


def subtile_width(k: int, num_labels: int, d: int, item_bytes: int, tile: int) -> int:
    """Columns of a sub-tile: the power of two that moves fewest bytes; 0 where none fits.

    Per row, k * width rows of labels are gathered, d * item_bytes each, and 8 M / width bytes of
    maxima are written and read. The sum is least at sqrt(8 M / (k d item_bytes)).

    Args:
        k: of the k hardest.
        num_labels: M.
        d: width of the embeddings.
        item_bytes: of an element.
        tile: columns of the walk's tile, of which 4 * width is a divisor.
    """
    most = min(tile // operators.GROUP, operators.CAPACITY // (k + operators.GROUP - 1), MAX_WIDTH)
    if most < 2:
        return 0
    best = math.sqrt(8 * num_labels / max(k * d * item_bytes, 1))
    width = 2 ** round(math.log2(max(best, 1.0)))
    return min(max(width, 2), 2 ** int(math.log2(most)))


def width_for(problem: Problem, k: int, tile: int, precision: str) -> int:
    """The sub-tile width for a walk, or 0: it keeps the k hardest in another way.

    The guard stays on Triton, since a score that is summed in another order could fall on its
    other side; so does tf32, whose products are rounded in the matrix units.
    """
    rows, (num_labels, d) = problem.queries, problem.labels.shape
    if not 2 <= k <= operators.MAX_K or problem.guard is not None or d > operators.MAX_WIDTH:
        return 0
    if rows.dtype == torch.float32 and precision != "ieee":
        return 0
    if num_labels >= 2**31 - 1 or not enabled("mining", rows):
        return 0
    return subtile_width(k, num_labels, d, rows.element_size(), tile)


def num_subtiles(num_labels: int, tile: int, width: int) -> int:
    """Sub-tiles of a row."""
    return -(-num_labels // tile) * (tile // width)


def select(
    problem: Problem,
    positives: tuple[str, Tensor, Tensor],
    exclude: tuple[str, Tensor, Tensor],
    maxima: Tensor,
    start: int,
    tile: int,
    width: int,
    found: tuple[Tensor, Tensor],
) -> None:
    """Write the k hardest of the rows from ``start`` on, as many as ``maxima`` has.

    Args:
        positives, exclude: (kind, row_ptr, col_ptr) as ``triton.tile.relation`` has them.
        maxima: (rows, num_subtiles) float32.
        found: scores and labels (B, k), float32 and int64, of which these rows are written.
    """
    scores, labels = found
    stop = start + len(maxima)
    scores[start:stop], labels[start:stop] = operators.select_subtiles(
        maxima, problem.queries[start:stop], problem.labels, tile, width,
        *_of_rows(*positives, start, stop), *_of_rows(*exclude, start, stop), scores.shape[1],
    )  # fmt: skip


def _of_rows(
    kind: str, row: Tensor, col: Tensor, start: int, stop: int
) -> tuple[str, Tensor, Tensor]:
    """A relation's arguments for the rows ``start`` .. ``stop`` alone."""
    if kind == "diagonal":
        return "index", torch.arange(start, stop, device=row.device), col
    if kind in ("index", "ranges"):
        return kind, row[start:stop], col
    if kind == "csr":
        return kind, row[start : stop + 1], col
    return kind, row, col
