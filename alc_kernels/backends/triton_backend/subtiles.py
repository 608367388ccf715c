"""Maxima of sub-tiles, from which the CUDA kernels find the k hardest (``cuda_kernels.mining``).

The matrix units leave each row of a tile with four threads: thread q of them holds columns
8 g + 2 q and 8 g + 2 q + 1 for every g. A sub-tile is what one thread holds of a row in 4 * WIDTH
neighbouring columns, so its maximum needs no exchange between threads, and a row's maximum, taken
from those of its sub-tiles, takes as many comparisons as without them.
"""

import triton
import triton.language as tl


@triton.jit
def subtile_maxima(b_s, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """(ROWS, COLS / WIDTH) maxima of b_s (ROWS, COLS). WIDTH is even, 4 * WIDTH divides COLS."""
    b_split = tl.reshape(b_s, (ROWS, COLS // (4 * WIDTH), WIDTH // 2, 4, 2))
    return tl.reshape(tl.max(tl.max(b_split, 4), 2), (ROWS, COLS // WIDTH))


@triton.jit
def store_subtile_maxima(
    maxima_ptr,  # (rows, num_subtiles) float32
    b_max,  # (ROWS, COLS / WIDTH)
    column,  # the tile's first, int64
    num_labels,
    b_row,  # (ROWS,) int64, counted from the first of ``maxima_ptr``
    b_row_in,
    WIDTH: tl.constexpr,
    COLS: tl.constexpr,
):
    PER_TILE: tl.constexpr = COLS // WIDTH
    num_subtiles = tl.cdiv(num_labels, COLS) * PER_TILE
    b_at = column // WIDTH + tl.arange(0, PER_TILE)
    b_ptrs = maxima_ptr + b_row[:, None] * num_subtiles + b_at[None, :]
    tl.store(b_ptrs, b_max, mask=b_row_in[:, None])
