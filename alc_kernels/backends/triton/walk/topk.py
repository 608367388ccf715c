"""The k largest values per row, kept in registers while a kernel walks over column tiles.

A list of K >= k slots per row (K a power of two), in no order. A tile is looked at only when
some row's maximum beats that row's k-th value; then, round by round, every row's leftmost
maximum replaces the worst entry of its list (the smallest value, among equals the largest
label) if it is strictly larger. Tiles come in ascending order, so among equal values the
smallest labels stay. Missing entries have a negative index; slots k .. K hold +inf and are never
the worst. k = 1 needs no list.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.tile.negatives import guard_limits
from alc_kernels.backends.triton.tile.relation import any_row


class TopLists(NamedTuple):
    """The lists of a walk's splits as a kernel argument."""

    TOP: tl.constexpr  # k; 0: none are kept
    SLOTS: tl.constexpr  # the power of two from k on
    value_ptr: Tensor  # (splits, rows, SLOTS) float32; of several widths (W, ...)
    index_ptr: Tensor  # the same, int32: columns counted from the split's first


class Groups(NamedTuple):
    """Where a walk leaves the maxima of groups of columns, from which lists are made later."""

    MAXIMA: tl.constexpr  # columns of a group (``selection``), 0 for none
    SUBTILE: tl.constexpr  # columns of a sub-tile (see below), 0 for none; then MAXIMA = TOP = 0
    ptr: Tensor  # (groups, rows) or (rows, sub-tiles) float32


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
    b_values, b_index, b_s, b_max, first, TOP: tl.constexpr, SLOTS: tl.constexpr, COLS: tl.constexpr
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


# Maxima of sub-tiles, from which the CUDA kernels find the k hardest (``cuda.mining``).
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
def tile_maxima(b_s, MAXIMA: tl.constexpr, SUBTILE: tl.constexpr, shape):
    """Maxima of a tile's groups of columns, (R, COLS / MAXIMA), and of its rows, (R,).

    The former only where there are several groups in a tile; with SUBTILE those of sub-tiles.
    """
    if SUBTILE > 0:
        b_group = subtile_maxima(b_s, SUBTILE, shape.ROWS, shape.COLS)
        b_row = tl.max(b_group, 1)
    elif MAXIMA == 0 or MAXIMA == shape.COLS:
        b_row = tl.max(b_s, 1)
        b_group = b_row
    else:
        b_group = tl.max(tl.reshape(b_s, (shape.ROWS, shape.COLS // MAXIMA, MAXIMA)), 2)
        b_row = tl.max(b_group, 1)
    return b_group, b_row


@triton.jit
def drop_above_guard(
    b_s,
    b_group_max,  # what ``tile_maxima`` returns
    b_tile_max,
    b_removed,  # (R,) int32
    guard,
    b_guard,  # of ``load_guard``
    b_row_at,  # places in the slack, see ``guard_limits``
    b_column_at,
    b_row_in,
    b_column_in,
    MAXIMA: tl.constexpr,
    SUBTILE: tl.constexpr,
    shape,
):
    """Set a tile's scores above the guard to -inf: (b_s, its maxima, b_removed with them)."""
    b_limit = guard_limits(guard, b_guard, b_row_at, b_column_at, b_row_in, b_column_in)
    b_least = b_guard
    if guard.KIND == 2:
        b_least = tl.min(b_limit, 1)
    if any_row(b_tile_max > b_least):
        b_above = b_s > b_limit
        b_removed += tl.sum(b_above.to(tl.int32), 1)
        b_s = tl.where(b_above, float("-inf"), b_s)
        b_group_max, b_tile_max = tile_maxima(b_s, MAXIMA, SUBTILE, shape)
    return b_s, b_group_max, b_tile_max, b_removed


@triton.jit
def store_maxima(
    groups, b_group_max, b_tile_max, column, num_rows, num_labels, b_row, b_row_in, shape
):
    """Leave a tile's maxima; b_row (ROWS,) int64, counted from the launch's first."""
    if groups.MAXIMA == shape.COLS:
        b_at = (column // shape.COLS) * num_rows + b_row
        tl.store(groups.ptr + b_at, b_tile_max, mask=b_row_in)
    elif groups.MAXIMA > 0:
        b_group = column // groups.MAXIMA + tl.arange(0, shape.COLS // groups.MAXIMA)
        b_at = b_group[None, :] * num_rows + b_row[:, None]
        b_store = b_row_in[:, None] & (b_group * groups.MAXIMA < num_labels)[None, :]
        tl.store(groups.ptr + b_at, b_group_max, mask=b_store)
    if groups.SUBTILE > 0:
        per_tile: tl.constexpr = shape.COLS // groups.SUBTILE
        num_subtiles = tl.cdiv(num_labels, shape.COLS) * per_tile
        b_at = column // groups.SUBTILE + tl.arange(0, per_tile)
        b_ptrs = groups.ptr + b_row[:, None] * num_subtiles + b_at[None, :]
        tl.store(b_ptrs, b_group_max, mask=b_row_in[:, None])
