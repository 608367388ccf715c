"""What of a tile of S is a negative, for passes that take the tiles in any order.

``open_tile`` finds out whether a tile may hold a positive or an excluded pair; only then, or past
an edge, has ``keep_negatives`` anything to do. A caller with several products for one tile (one
per prefix width) opens it once. Passes that walk along a row keep the state from tile to tile
themselves (``walk``).
"""

import triton
import triton.language as tl

from alc_kernels.backends.triton.tile.relation import any_row, next_entry, open_rows, tile_may_hold


@triton.jit
def guard_limits(
    b_guard,  # (R,)
    row_slack_ptr,
    column_slack_ptr,
    b_row_at,  # (R,) and (C,): places in the two
    b_column_at,
    b_row_in,
    b_column_in,
    GUARD: tl.constexpr,
):
    """What a tile's scores may not exceed: (R, 1), or with GUARD = 2 (R, C).

    GUARD, in all kernels: 0 no guard, 1 a limit per row, 2 with slack (``interface.Problem``).
    """
    b_limit = b_guard[:, None]
    if GUARD == 2:
        b_row = tl.load(row_slack_ptr + b_row_at, mask=b_row_in, other=0.0)
        b_column = tl.load(column_slack_ptr + b_column_at, mask=b_column_in, other=0.0)
        b_limit = b_limit - b_row[:, None] * b_column[None, :]
    return b_limit


@triton.jit
def open_tile(
    POSITIVES: tl.constexpr,
    positive_row_ptr,
    positive_col_ptr,
    EXCLUDE: tl.constexpr,
    exclude_row_ptr,
    exclude_col_ptr,
    b_rows,
    b_row_in,
    column,
    num_labels,
    COLS: tl.constexpr,
):
    """(positives, excluded, has_positive, has_excluded) of the tile at ``column`` (int64).

    positives and excluded: the state of ``relation.open_rows``. b_rows (R,) int64.
    """
    positives = open_rows(POSITIVES, positive_row_ptr, positive_col_ptr, b_rows, b_row_in, column)
    excluded = open_rows(EXCLUDE, exclude_row_ptr, exclude_col_ptr, b_rows, b_row_in, column)
    has_positive = tile_may_hold(
        POSITIVES, positive_col_ptr, positives[0], positives[3], column, num_labels, COLS
    )
    has_excluded = tile_may_hold(
        EXCLUDE, exclude_col_ptr, excluded[0], excluded[3], column, num_labels, COLS
    )
    return positives, excluded, has_positive, has_excluded


@triton.jit
def keep_negatives(
    b_s,
    opened,  # what open_tile returns
    POSITIVES: tl.constexpr,
    positive_col_ptr,
    EXCLUDE: tl.constexpr,
    exclude_col_ptr,
    row,
    row_stop,
    column,
    num_labels,
    DROP_ROWS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """b_s (ROWS, COLS) with -inf at positives, excluded pairs and columns past the last label.

    DROP_ROWS: in the rows from ``row_stop`` on as well. Not for relations of the kind "ids".
    """
    positives, excluded, has_positive, has_excluded = opened
    edge = column + COLS > num_labels
    if DROP_ROWS:
        edge = edge | (row + ROWS > row_stop)
    if edge | has_positive | has_excluded:
        if POSITIVES != "empty":
            b_s = drop_pairs(
                POSITIVES, positive_col_ptr, positives[0], positives[1], positives[2], b_s,
                column, COLS,
            )[0]  # fmt: skip
        if EXCLUDE != "empty":
            b_s = drop_pairs(
                EXCLUDE, exclude_col_ptr, excluded[0], excluded[1], excluded[2], b_s, column, COLS
            )[0]
        b_in = (column + tl.arange(0, COLS) < num_labels)[None, :]
        if DROP_ROWS:
            b_in = (row + tl.arange(0, ROWS) < row_stop)[:, None] & b_in
        b_s = tl.where(b_in, b_s, float("-inf"))
    return b_s


@triton.jit
def drop_pairs(
    KIND: tl.constexpr,
    col_ptr,
    b_key,
    b_end,
    b_next,
    b_s,
    column,
    COLS: tl.constexpr,
):
    """Set the relation's elements of the tile to -inf: (b_s, b_key, b_next, next_column)."""
    b_local = tl.arange(0, COLS)[None, :]
    b_here = b_next < column + COLS
    more = any_row(b_here)
    while more:
        b_at = tl.where(b_here, b_next - column, -1).to(tl.int32)[:, None]
        b_s = tl.where(b_at == b_local, float("-inf"), b_s)
        b_key, b_next = next_entry(KIND, col_ptr, b_key, b_end, b_next, b_here)
        b_here = b_next < column + COLS
        more = any_row(b_here)
    return b_s, b_key, b_next, tl.min(b_next, 0)
