"""The k largest values per row, kept in registers while a kernel walks over column tiles.

A list of K >= k slots per row (K a power of two), in no order. A tile is looked at only when
some row's maximum beats that row's k-th value; then, round by round, every row's leftmost
maximum replaces the worst entry of its list (the smallest value, among equals the largest
label) if it is strictly larger. Tiles come in ascending order, so among equal values the
smallest labels stay. Missing entries have a negative index; slots k .. K hold +inf and are never
the worst. k = 1 needs no list.
"""

import triton
import triton.language as tl

from alc_kernels.backends.triton.tile.relation import any_row


@triton.jit
def empty_list(TOP: tl.constexpr, ROWS: tl.constexpr, SLOTS: tl.constexpr):
    """(values, indices) (ROWS, SLOTS) of rows that have seen nothing."""
    b_slot = tl.arange(0, SLOTS)
    b_values = tl.where(b_slot < TOP, float("-inf"), float("inf"))
    # Distinct negative indices: exactly one slot is the worst.
    return (
        tl.broadcast_to(b_values[None, :], (ROWS, SLOTS)),
        tl.broadcast_to(-1 - b_slot[None, :], (ROWS, SLOTS)),
    )


@triton.jit
def leftmost(b_s, b_max, COLS: tl.constexpr):
    """(R,) first column of the row's maximum."""
    b_local = tl.arange(0, COLS)[None, :]
    return tl.min(tl.where(b_s == b_max[:, None], b_local, COLS), 1)


@triton.jit
def insert_tile(
    b_values,
    b_index,
    b_s,
    b_max,
    first,
    TOP: tl.constexpr,
    SLOTS: tl.constexpr,
    COLS: tl.constexpr,
):
    """Merge a tile into the lists; b_max (R,) its row maxima, ``first`` its first column.

    -inf and NaN never enter a list.
    """
    if TOP == 1:
        b_worst = tl.max(b_values, 1)  # SLOTS = 1
        b_better = b_max > b_worst
        if any_row(b_better):
            b_at = first + leftmost(b_s, b_max, COLS)
            b_values = tl.where(b_better[:, None], b_max[:, None], b_values)
            b_index = tl.where(b_better[:, None], b_at[:, None], b_index)
    else:
        b_local = tl.arange(0, COLS)[None, :]
        b_worst = tl.min(b_values, 1)
        # A while right in the tile loop would keep Triton from pipelining that loop's loads.
        if any_row(b_max > b_worst):
            more = True
            while more:
                b_column = leftmost(b_s, b_max, COLS)
                b_tied = b_values == b_worst[:, None]
                b_last = tl.max(tl.where(b_tied, b_index, -SLOTS - 1), 1)
                b_out = b_tied & (b_index == b_last[:, None]) & (b_max > b_worst)[:, None]
                b_values = tl.where(b_out, b_max[:, None], b_values)
                b_index = tl.where(b_out, (first + b_column)[:, None], b_index)
                b_s = tl.where(b_local == b_column[:, None], float("-inf"), b_s)
                b_max = tl.max(b_s, 1)
                b_worst = tl.min(b_values, 1)
                more = any_row(b_max > b_worst)
    return b_values, b_index


# Maxima of sub-tiles, from which the CUDA kernels find the k hardest (``cuda_kernels.mining``).
#
# The matrix units leave each row of a tile with four threads: thread q of them holds columns
# 8 g + 2 q and 8 g + 2 q + 1 for every g. A sub-tile is what one thread holds of a row in 4 * WIDTH
# neighbouring columns, so its maximum needs no exchange between threads, and a row's maximum, taken
# from those of its sub-tiles, takes as many comparisons as without them.


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
