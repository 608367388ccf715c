"""One pass over S that keeps what the gradient needs: un-normalised coefficients of the negatives.

A program multiplies one tile of a chunk of rows and writes, in the compute dtype,

    softmax kinds  E = 2^(z - reference_i), z the logit in base 2: the row sums, known when all
                   columns have been seen, turn it into probabilities by a factor per row;
    sigmoid        G = factor_i / (1 + e^-x), the coefficient itself;

0 at positives (``rows.row_factors_kernel`` writes theirs) and excluded pairs, and the row sums of
the values before they are rounded. One exponential per element, and S is never computed again.

The reference is a guess made before the pass (the row's largest positive). Where the row's
maximum turns out to lie further from it than ``SAFE`` powers of two, numbers may have overflowed
or vanished. ``settle_references_kernel`` finds those rows, and ``repair_kernel`` writes the tiles
of their row blocks anew, with the maximum as the reference; it does nothing where all is well.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.dense.kernel import Space
from alc_kernels.backends.triton.tile.arithmetic import LOG2_E, log1p_unit, own_tile, store_tile
from alc_kernels.backends.triton.tile.negatives import keep_negatives, open_tile
from alc_kernels.backends.triton.tile.product import Rows, Shape, tile_at
from alc_kernels.backends.triton.tile.relation import Relation, any_row


class Logit(NamedTuple):
    """How a score becomes a logit, as a kernel argument."""

    KIND: tl.constexpr  # "softmax", "decoupled" or "sigmoid"
    HAS_OFFSET: tl.constexpr
    slope_ptr: Tensor  # 0-d float32: derivative of the logit in s
    offset_ptr: Tensor  # (M,) float32, HAS_OFFSET only
    bias_ptr: Tensor  # 0-d float32, sigmoid


# E stays within 2^60, a row sum within 2^91, and its inverse times a query in bfloat16's range;
# what lies 66 powers of two below the row's maximum may vanish, which no float32 sum would see.
SAFE = tl.constexpr(60.0)


@triton.jit
def guessed_reference(b_largest):
    """(R,) base 2: the largest positive, 0 where there is none (b_largest is -inf)."""
    return tl.where(b_largest > float("-inf"), b_largest, 0.0)


@triton.jit(do_not_specialize=["row_start", "row_stop", "num_col_tiles", "out_rows"])
def settle_references_kernel(
    largest_ptr,  # (B,) float32: the largest positive
    partial_ptr,  # as in exponentials_kernel
    reference_ptr,  # (out_rows,) float32: written
    row_start,
    row_stop,
    num_col_tiles,
    out_rows,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
):
    """The guess, or the row's maximum where that is too far away."""
    b_local = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    b_row_in = row_start + b_local < row_stop
    b_largest = tl.load(largest_ptr + row_start.to(tl.int64) + b_local, mask=b_row_in, other=0.0)
    b_top = tl.full((ROWS,), float("-inf"), tl.float32)
    if KIND == "softmax":  # the denominator holds the positives as well
        b_top = b_largest
    plane = num_col_tiles.to(tl.int64) * out_rows
    for first in range(0, num_col_tiles, TILES):
        b_tile = first + tl.arange(0, TILES)
        b_at = plane + b_tile.to(tl.int64)[:, None] * out_rows + b_local[None, :]
        b_in = (b_tile < num_col_tiles)[:, None] & b_row_in[None, :]
        b_max = tl.load(partial_ptr + b_at, mask=b_in, other=float("-inf"))
        b_top = tl.maximum(b_top, tl.max(b_max, 0))
    b_reference = guessed_reference(b_largest)
    b_far = (tl.abs(b_top - b_reference) > SAFE) & (b_top > float("-inf"))
    tl.store(reference_ptr + b_local, tl.where(b_far, b_top, b_reference), mask=b_row_in)


@triton.jit
def _write_tile(
    rows,
    positives,
    exclude,
    logit,
    slope,  # what its pointers hold
    bias,
    partial_ptr,
    space,
    b_row,  # (ROWS,) reference or factor
    local,  # the tile's first row within the chunk
    col_tile,  # int64
    num_queries,
    num_labels,
    row_start,
    row_stop,
    num_col_tiles,
    out_rows,
    SCALARS: tl.constexpr,
    MAXIMUM: tl.constexpr,
    shape,
):
    row = row_start + local.to(tl.int64)
    column = col_tile * shape.COLS
    b_s = tile_at(rows, row, column, num_queries, num_labels, shape)
    b_rows = row + tl.arange(0, shape.ROWS)
    b_row_in = b_rows < row_stop
    opened = open_tile(positives, exclude, b_rows, b_row_in, column, num_labels, shape.COLS)
    b_s = keep_negatives(  # from here on -inf means "no negative"
        b_s, opened, positives, exclude, row, row_stop, column, num_labels, False, shape
    )

    plane = num_col_tiles.to(tl.int64) * out_rows
    b_partial_ptr = partial_ptr + col_tile * out_rows + local + tl.arange(0, shape.ROWS)
    if logit.KIND == "sigmoid":
        b_x = b_s * slope + bias
        b_e = tl.exp2(tl.abs(b_x) * -LOG2_E)
        b_out = b_s > float("-inf")
        b_softplus = tl.maximum(b_x, 0.0) + log1p_unit(b_e)
        tl.store(b_partial_ptr, tl.sum(tl.where(b_out, b_softplus, 0.0), 1), mask=b_row_in)
        b_e = tl.where(b_x >= 0, 1.0, b_e) / (1.0 + b_e)
        b_e = tl.where(b_out, b_e, 0.0)
        if SCALARS:
            b_weighted = tl.sum(tl.where(b_out, b_e * b_s, 0.0), 1)
            tl.store(b_partial_ptr + 2 * plane, b_weighted, mask=b_row_in)
            tl.store(b_partial_ptr + 3 * plane, tl.sum(b_e, 1), mask=b_row_in)
        b_e *= b_row[:, None]
    else:
        b_z = b_s * (slope * LOG2_E)
        if logit.HAS_OFFSET:
            b_cols = tl.minimum(column + tl.arange(0, shape.COLS), num_labels - 1)
            b_z += (tl.load(logit.offset_ptr + b_cols) * LOG2_E)[None, :]
        if MAXIMUM:
            tl.store(b_partial_ptr + plane, tl.max(b_z, 1), mask=b_row_in)
        b_e = tl.exp2(b_z - b_row[:, None])
        tl.store(b_partial_ptr, tl.sum(b_e, 1), mask=b_row_in)
        if SCALARS:
            b_weighted = tl.sum(tl.where(b_s > float("-inf"), b_e * b_s, 0.0), 1)
            tl.store(b_partial_ptr + 2 * plane, b_weighted, mask=b_row_in)
    store_tile(space.ptr, local.to(tl.int64), column, space.stride, b_e, shape)


@triton.jit(do_not_specialize=["num_queries", "num_labels", "row_start", "row_stop", "out_rows"])
def exponentials_kernel(
    rows: Rows,
    positives: Relation,
    exclude: Relation,
    logit: Logit,
    row_ptr,  # (B,) float32: softmax kinds, the largest positive; sigmoid, the factor
    partial_ptr,  # (2 or with SCALARS 4, column tiles, out_rows) float32, see below
    space: Space,
    num_queries,
    num_labels,
    row_start,
    row_stop,
    out_rows,
    SCALARS: tl.constexpr,
    shape: Shape,
):
    """One tile. Slots of the partial results, sums over the tile's negatives unless said:
    0 E (sigmoid: softplus x), 1 maximum of z (softmax kinds), and SCALARS: 2 E s (sigmoid: g s),
    3 g (sigmoid).
    """
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    row_tile, col_tile, num_col_tiles = own_tile(row_stop - row_start, num_labels, shape)
    local = row_tile * shape.ROWS
    b_rows = row_start + local.to(tl.int64) + tl.arange(0, shape.ROWS)
    b_row = tl.load(row_ptr + b_rows, mask=b_rows < row_stop, other=0.0)
    slope = tl.load(logit.slope_ptr)
    bias = 0.0
    if logit.KIND == "sigmoid":
        bias = tl.load(logit.bias_ptr)
    else:
        b_row = guessed_reference(b_row)
    _write_tile(
        rows, positives, exclude, logit, slope, bias, partial_ptr, space, b_row, local,
        col_tile.to(tl.int64), num_queries, num_labels, row_start, row_stop, num_col_tiles,
        out_rows, SCALARS, True, shape,
    )  # fmt: skip


@triton.jit(do_not_specialize=["num_queries", "num_labels", "row_start", "row_stop", "out_rows"])
def repair_kernel(
    rows: Rows,
    positives: Relation,
    exclude: Relation,
    logit: Logit,  # softmax kinds
    largest_ptr,  # (B,) float32: the largest positive
    reference_ptr,  # (out_rows,) float32: settled
    partial_ptr,
    space: Space,
    num_queries,
    num_labels,
    row_start,
    row_stop,
    out_rows,
    SCALARS: tl.constexpr,
    shape: Shape,
):
    """Every tile of the row blocks that hold a moved reference, with the settled references."""
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    num_row_tiles = tl.cdiv(row_stop - row_start, shape.ROWS).to(tl.int32)
    num_col_tiles = tl.cdiv(num_labels, shape.COLS).to(tl.int32)
    local = (tl.program_id(0) % num_row_tiles) * shape.ROWS
    b_local = local + tl.arange(0, shape.ROWS)
    b_row_in = row_start + b_local < row_stop
    b_row = tl.load(reference_ptr + b_local, mask=b_row_in, other=0.0)
    b_largest = tl.load(largest_ptr + row_start.to(tl.int64) + b_local, mask=b_row_in, other=0.0)
    moved = any_row(b_row_in & (b_row != guessed_reference(b_largest)))
    slope = tl.load(logit.slope_ptr)
    bias = 0.0
    step = tl.num_programs(0) // num_row_tiles
    first = tl.program_id(0) // num_row_tiles
    stop = tl.where(moved, num_col_tiles, 0)
    for tile in range(first, stop, step):
        col_tile = tile + tl.zeros((), tl.int64)
        _write_tile(
            rows, positives, exclude, logit, slope, bias, partial_ptr, space, b_row, local,
            col_tile, num_queries, num_labels, row_start, row_stop, num_col_tiles, out_rows,
            SCALARS, False, shape,
        )  # fmt: skip
