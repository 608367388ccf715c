"""One pass over S that keeps what the gradient needs: un-normalised coefficients of the negatives.

A program multiplies one tile of a chunk of rows and writes, in the compute dtype,

    softmax kinds  E = 2^(z - reference_i), z the logit in base 2: the row sums, known when all
                   columns have been seen, turn it into probabilities by a factor per row;
    sigmoid        G = factor_i / (1 + e^-x), the coefficient itself;

0 at positives (``row_factors`` writes theirs) and excluded pairs, and the row sums of the values
before they are rounded. One exponential per element, and S is never computed again.

The reference is a guess made before the pass (the row's largest positive). Where the row's
maximum turns out to lie further from it than ``SAFE`` powers of two, numbers may have overflowed
or vanished. ``settle_references_kernel`` finds those rows, and ``repair_kernel`` writes the tiles
of their row blocks anew, with the maximum as the reference; it does nothing where all is well.
"""

import triton
import triton.language as tl

from alc_kernels.backends.triton.tile.arithmetic import LOG2_E, log1p_unit, store_tile, tile_of
from alc_kernels.backends.triton.tile.negatives import keep_negatives, open_tile
from alc_kernels.backends.triton.tile.product import row_pointers, tile_product
from alc_kernels.backends.triton.tile.relation import any_row

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
    queries_ptr,
    labels_ptr,
    positive_row_ptr,
    positive_col_ptr,
    exclude_row_ptr,
    exclude_col_ptr,
    slope,
    offset_ptr,
    bias,
    partial_ptr,
    out_ptr,
    b_row,  # (ROWS,) reference or factor
    local,  # the tile's first row within the chunk
    col_tile,  # int64
    num_queries,
    num_labels,
    d,
    row_start,
    row_stop,
    num_col_tiles,
    out_rows,
    out_stride,
    KIND: tl.constexpr,
    POSITIVES: tl.constexpr,
    EXCLUDE: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    SCALARS: tl.constexpr,
    MAXIMUM: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    row = row_start + local.to(tl.int64)
    column = col_tile * COLS
    b_s = tile_product(
        row_pointers(queries_ptr, row, num_queries, d, ROWS),
        row_pointers(labels_ptr, column, num_labels, d, COLS),
        d, ROWS, COLS, DEPTH, EVEN, PRECISION, UPCAST,
    )  # fmt: skip
    b_rows = row + tl.arange(0, ROWS)
    b_row_in = b_rows < row_stop
    opened = open_tile(
        POSITIVES, positive_row_ptr, positive_col_ptr, EXCLUDE, exclude_row_ptr, exclude_col_ptr,
        b_rows, b_row_in, column, num_labels, COLS,
    )  # fmt: skip
    b_s = keep_negatives(  # from here on -inf means "no negative"
        b_s, opened, POSITIVES, positive_col_ptr, EXCLUDE, exclude_col_ptr, row, row_stop, column,
        num_labels, False, ROWS, COLS,
    )  # fmt: skip

    plane = num_col_tiles.to(tl.int64) * out_rows
    b_partial_ptr = partial_ptr + col_tile * out_rows + local + tl.arange(0, ROWS)
    if KIND == "sigmoid":
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
        if HAS_OFFSET:
            b_cols = tl.minimum(column + tl.arange(0, COLS), num_labels - 1)
            b_z += (tl.load(offset_ptr + b_cols) * LOG2_E)[None, :]
        if MAXIMUM:
            tl.store(b_partial_ptr + plane, tl.max(b_z, 1), mask=b_row_in)
        b_e = tl.exp2(b_z - b_row[:, None])
        tl.store(b_partial_ptr, tl.sum(b_e, 1), mask=b_row_in)
        if SCALARS:
            b_weighted = tl.sum(tl.where(b_s > float("-inf"), b_e * b_s, 0.0), 1)
            tl.store(b_partial_ptr + 2 * plane, b_weighted, mask=b_row_in)
    store_tile(out_ptr, local.to(tl.int64), column, out_stride, b_e, ROWS, COLS)


@triton.jit(do_not_specialize=["num_queries", "num_labels", "row_start", "row_stop", "out_rows"])
def exponentials_kernel(
    queries_ptr,  # (B, d)
    labels_ptr,  # (M, d)
    positive_row_ptr,  # see relation.py
    positive_col_ptr,
    exclude_row_ptr,
    exclude_col_ptr,
    slope_ptr,  # 0-d float32: derivative of the logit in s
    offset_ptr,  # (M,) float32, HAS_OFFSET only
    bias_ptr,  # 0-d float32, sigmoid
    row_ptr,  # (B,) float32: softmax kinds, the largest positive; sigmoid, the factor
    partial_ptr,  # (2 or with SCALARS 4, column tiles, out_rows) float32, see below
    out_ptr,  # (out_rows, out_stride), whole tiles
    num_queries,
    num_labels,
    d,
    row_start,
    row_stop,
    out_rows,
    out_stride,
    KIND: tl.constexpr,  # "softmax", "decoupled" or "sigmoid"
    POSITIVES: tl.constexpr,
    EXCLUDE: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    SCALARS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """One tile. Slots of the partial results, sums over the tile's negatives unless said:
    0 E (sigmoid: softplus x), 1 maximum of z (softmax kinds), and SCALARS: 2 E s (sigmoid: g s),
    3 g (sigmoid).
    """
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    num_row_tiles = tl.cdiv(row_stop - row_start, ROWS).to(tl.int32)
    num_col_tiles = tl.cdiv(num_labels, COLS).to(tl.int32)
    row_tile, col_tile = tile_of(tl.program_id(0), num_row_tiles, num_col_tiles)
    col_tile = col_tile.to(tl.int64)
    local = row_tile * ROWS
    b_rows = row_start + local.to(tl.int64) + tl.arange(0, ROWS)
    b_row = tl.load(row_ptr + b_rows, mask=b_rows < row_stop, other=0.0)
    slope = tl.load(slope_ptr)
    bias = 0.0
    if KIND == "sigmoid":
        bias = tl.load(bias_ptr)
    else:
        b_row = guessed_reference(b_row)
    _write_tile(
        queries_ptr, labels_ptr, positive_row_ptr, positive_col_ptr, exclude_row_ptr,
        exclude_col_ptr, slope, offset_ptr, bias, partial_ptr, out_ptr, b_row, local, col_tile,
        num_queries, num_labels, d, row_start, row_stop, num_col_tiles, out_rows, out_stride,
        KIND, POSITIVES, EXCLUDE, HAS_OFFSET, SCALARS, True, ROWS, COLS, DEPTH, EVEN, PRECISION,
        UPCAST,
    )  # fmt: skip


@triton.jit(do_not_specialize=["num_queries", "num_labels", "row_start", "row_stop", "out_rows"])
def repair_kernel(
    queries_ptr,  # (B, d)
    labels_ptr,  # (M, d)
    positive_row_ptr,  # see relation.py
    positive_col_ptr,
    exclude_row_ptr,
    exclude_col_ptr,
    slope_ptr,  # 0-d float32: derivative of the logit in s
    offset_ptr,  # (M,) float32, HAS_OFFSET only
    largest_ptr,  # (B,) float32: the largest positive
    reference_ptr,  # (out_rows,) float32: settled
    partial_ptr,
    out_ptr,
    num_queries,
    num_labels,
    d,
    row_start,
    row_stop,
    out_rows,
    out_stride,
    KIND: tl.constexpr,  # "softmax" or "decoupled"
    POSITIVES: tl.constexpr,
    EXCLUDE: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    SCALARS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Every tile of the row blocks that hold a moved reference, with the settled references."""
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    num_row_tiles = tl.cdiv(row_stop - row_start, ROWS).to(tl.int32)
    num_col_tiles = tl.cdiv(num_labels, COLS).to(tl.int32)
    local = (tl.program_id(0) % num_row_tiles) * ROWS
    b_local = local + tl.arange(0, ROWS)
    b_row_in = row_start + b_local < row_stop
    b_row = tl.load(reference_ptr + b_local, mask=b_row_in, other=0.0)
    b_largest = tl.load(largest_ptr + row_start.to(tl.int64) + b_local, mask=b_row_in, other=0.0)
    moved = any_row(b_row_in & (b_row != guessed_reference(b_largest)))
    slope = tl.load(slope_ptr)
    bias = 0.0
    step = tl.num_programs(0) // num_row_tiles
    first = tl.program_id(0) // num_row_tiles
    stop = tl.where(moved, num_col_tiles, 0)
    for tile in range(first, stop, step):
        col_tile = tile + tl.zeros((), tl.int64)
        _write_tile(
            queries_ptr, labels_ptr, positive_row_ptr, positive_col_ptr, exclude_row_ptr,
            exclude_col_ptr, slope, offset_ptr, bias, partial_ptr, out_ptr, b_row, local,
            col_tile, num_queries, num_labels, d, row_start, row_stop, num_col_tiles, out_rows,
            out_stride, KIND, POSITIVES, EXCLUDE, HAS_OFFSET, SCALARS, False, ROWS, COLS, DEPTH,
            EVEN, PRECISION, UPCAST,
        )  # fmt: skip
