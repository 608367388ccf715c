"""What of a tile of S is a negative, for passes that take the tiles in any order.

``open_tile`` finds out whether a tile may hold a positive or an excluded pair; only then, or past
an edge, has ``keep_negatives`` anything to do. A caller with several products for one tile (one
per prefix width) opens it once. Passes that walk along a row keep the state from tile to tile
themselves (``walk``).
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.launch import given_or
from alc_kernels.backends.triton.tile.relation import any_row, next_entry, open_rows, tile_may_hold
from alc_kernels.engine.interface import PrefixProblem, Problem


class Guard(NamedTuple):
    """What scores may not exceed, as a kernel argument (``interface.Problem``)."""

    KIND: tl.constexpr  # 0 no guard, 1 a limit per row, 2 with slack
    limit_ptr: Tensor  # (B,) float32; of several widths (W, B)
    row_slack_ptr: Tensor  # (B,) and (M,) float32, KIND = 2 only; of several widths (W, ...)
    column_slack_ptr: Tensor


def guard_argument(problem: Problem | PrefixProblem, unused: Tensor) -> Guard:
    """The guard of a problem; ``unused`` stands for what the kernel does not read."""
    slack = problem.slack or (unused, unused)
    kind = 0 if problem.guard is None else 1 if problem.slack is None else 2
    pointers = given_or(problem.guard, unused), slack[0].contiguous(), slack[1].contiguous()
    return Guard(tl.constexpr(kind), *pointers)


@triton.jit
def load_guard(guard, b_row_at, b_row_in):
    """(R,) the rows' limits; what lies outside of the matrix has none."""
    return tl.load(guard.limit_ptr + b_row_at, mask=b_row_in, other=float("inf"))


@triton.jit
def guard_limits(guard, b_guard, b_row_at, b_column_at, b_row_in, b_column_in):
    """What a tile's scores may not exceed: (R, 1), or with slack (R, C).

    b_guard: of ``load_guard``; b_row_at (R,) and b_column_at (C,): places in the slack.
    """
    b_limit = b_guard[:, None]
    if guard.KIND == 2:
        b_row = tl.load(guard.row_slack_ptr + b_row_at, mask=b_row_in, other=0.0)
        b_column = tl.load(guard.column_slack_ptr + b_column_at, mask=b_column_in, other=0.0)
        b_limit = b_limit - b_row[:, None] * b_column[None, :]
    return b_limit


@triton.jit
def tile_limits(guard, b_row_at, b_column_at, b_row_in, b_column_in):
    """``guard_limits`` of a tile that is seen once; zeros without a guard."""
    b_guard = tl.zeros(b_row_at.shape, tl.float32)
    if guard.KIND:
        b_guard = load_guard(guard, b_row_at, b_row_in)
    return guard_limits(guard, b_guard, b_row_at, b_column_at, b_row_in, b_column_in)


@triton.jit
def open_tile(positives, exclude, b_rows, b_row_in, column, num_labels, COLS: tl.constexpr):
    """(positives, excluded, has_positive, has_excluded) of the tile at ``column`` (int64).

    positives and excluded: what ``relation.open_rows`` returns. b_rows (R,) int64.
    """
    opened = open_rows(positives, b_rows, b_row_in, column)
    excluded = open_rows(exclude, b_rows, b_row_in, column)
    has_positive = tile_may_hold(positives, opened[1], column, num_labels, COLS)
    has_excluded = tile_may_hold(exclude, excluded[1], column, num_labels, COLS)
    return opened, excluded, has_positive, has_excluded


@triton.jit
def keep_negatives(
    b_s,
    opened,  # what open_tile returns
    positives,
    exclude,
    row,
    row_stop,
    column,
    num_labels,
    DROP_ROWS: tl.constexpr,
    shape,
):
    """b_s (ROWS, COLS) with -inf at positives, excluded pairs and columns past the last label.

    DROP_ROWS: in the rows from ``row_stop`` on as well. Not for relations of the kind "ids".
    """
    positive_rows, excluded_rows, has_positive, has_excluded = opened
    edge = column + shape.COLS > num_labels
    if DROP_ROWS:
        edge = edge | (row + shape.ROWS > row_stop)
    if edge | has_positive | has_excluded:
        if positives.kind != "empty":
            b_s = drop_pairs(
                positives, positive_rows[0], positive_rows[1], b_s, column, shape.COLS
            )[0]
        if exclude.kind != "empty":
            b_s = drop_pairs(exclude, excluded_rows[0], excluded_rows[1], b_s, column, shape.COLS)[
                0
            ]
        b_in = (column + tl.arange(0, shape.COLS) < num_labels)[None, :]
        if DROP_ROWS:
            b_in = (row + tl.arange(0, shape.ROWS) < row_stop)[:, None] & b_in
        b_s = tl.where(b_in, b_s, float("-inf"))
    return b_s


@triton.jit
def drop_pairs(relation, b_end, at, b_s, column, COLS: tl.constexpr):
    """Set the relation's elements of the tile to -inf: (b_s, at)."""
    b_key, b_next, _next = at
    b_local = tl.arange(0, COLS)[None, :]
    b_here = b_next < column + COLS
    more = any_row(b_here)
    while more:
        b_at = tl.where(b_here, b_next - column, -1).to(tl.int32)[:, None]
        b_s = tl.where(b_at == b_local, float("-inf"), b_s)
        b_key, b_next = next_entry(relation, b_key, b_end, b_next, b_here)
        b_here = b_next < column + COLS
        more = any_row(b_here)
    return b_s, (b_key, b_next, tl.min(b_next, 0))
