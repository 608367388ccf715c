"""One pass over S for the softmax of the rows and of the columns: partial sums of both.

A program multiplies one tile and leaves, over its negatives, a base and a sum of 2^(z - base) per
row and per column. The tile's maximum is the base of all of them, so that one exponential per
element serves both sides. Where that is so far above a row or a column that its terms begin to
vanish, the tile is summed up once more with their own maxima. Each slot has one writer: nothing
depends on the order in which programs run.
"""

import triton
import triton.language as tl

from alc_kernels.backends.triton.tile.arithmetic import LOG2_E, tile_of
from alc_kernels.backends.triton.tile.negatives import keep_negatives, open_tile
from alc_kernels.backends.triton.tile.product import row_pointers, tile_product
from alc_kernels.backends.triton.tile.relation import any_row

# Terms down to 2^-66 of a sum are kept at this base: no float32 sum would see less.
LEAST = tl.constexpr(2.0**-60)


@triton.jit(
    do_not_specialize=[
        "num_queries", "num_labels", "row_start", "row_stop", "out_rows", "out_cols",
    ]
)  # fmt: skip
def both_sides_kernel(
    queries_ptr,  # (B, d)
    labels_ptr,  # (M, d)
    positive_row_ptr,  # see relation.py
    positive_col_ptr,
    exclude_row_ptr,
    exclude_col_ptr,
    slope_ptr,  # 0-d float32: derivative of the logit in s
    offset_ptr,  # (M,) float32, HAS_OFFSET only: counts in the rows, cancels in the columns
    row_partial_ptr,  # (2, column tiles, out_rows) float32: bases and sums, in base 2
    col_partial_ptr,  # (2, row tiles of a chunk, out_cols) float32
    num_queries,
    num_labels,
    d,
    row_start,
    row_stop,
    out_rows,
    out_cols,
    POSITIVES: tl.constexpr,
    EXCLUDE: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Partial sums of one tile; a sum of 0 stands for an empty set, whatever its base."""
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    num_row_tiles = tl.cdiv(row_stop - row_start, ROWS).to(tl.int32)
    num_col_tiles = tl.cdiv(num_labels, COLS).to(tl.int32)
    row_tile, col_tile = tile_of(tl.program_id(0), num_row_tiles, num_col_tiles)
    local = row_tile.to(tl.int64) * ROWS
    row = row_start + local
    column = col_tile.to(tl.int64) * COLS
    b_s = tile_product(
        row_pointers(queries_ptr, row, num_queries, d, ROWS),
        row_pointers(labels_ptr, column, num_labels, d, COLS),
        d, ROWS, COLS, DEPTH, EVEN, PRECISION, UPCAST,
    )  # fmt: skip
    b_rows = row + tl.arange(0, ROWS)
    b_cols = column + tl.arange(0, COLS)
    b_row_in = b_rows < row_stop
    b_col_in = b_cols < num_labels
    opened = open_tile(
        POSITIVES, positive_row_ptr, positive_col_ptr, EXCLUDE, exclude_row_ptr, exclude_col_ptr,
        b_rows, b_row_in, column, num_labels, COLS,
    )  # fmt: skip
    b_s = keep_negatives(  # from here on -inf means "no negative"
        b_s, opened, POSITIVES, positive_col_ptr, EXCLUDE, exclude_col_ptr, row, row_stop, column,
        num_labels, True, ROWS, COLS,
    )  # fmt: skip

    b_z = b_s * (tl.load(slope_ptr) * LOG2_E)
    b_offset = tl.zeros((COLS,), tl.float32)
    if HAS_OFFSET:
        b_offset = tl.load(offset_ptr + b_cols, mask=b_col_in, other=0.0) * LOG2_E
        b_z += b_offset[None, :]
    top = tl.max(tl.max(b_z, 1), 0)
    top = tl.where(top > float("-inf"), top, 0.0)
    b_row_base = tl.zeros((ROWS,), tl.float32) + top
    b_col_base = tl.zeros((COLS,), tl.float32) + top
    b_e = tl.exp2(b_z - top)
    b_row_sum = tl.sum(b_e, 1)
    b_col_sum = tl.sum(b_e, 0)
    if any_row(b_row_in & (b_row_sum < LEAST)) | any_row(b_col_in & (b_col_sum < LEAST)):
        b_row_base = tl.max(b_z, 1)
        b_row_base = tl.where(b_row_base > float("-inf"), b_row_base, 0.0)
        b_row_sum = tl.sum(tl.exp2(b_z - b_row_base[:, None]), 1)
        b_col_base = tl.max(b_z, 0)
        b_col_base = tl.where(b_col_base > float("-inf"), b_col_base, 0.0)
        b_col_sum = tl.sum(tl.exp2(b_z - b_col_base[None, :]), 0)

    b_row_ptr = row_partial_ptr + col_tile.to(tl.int64) * out_rows + local + tl.arange(0, ROWS)
    tl.store(b_row_ptr, b_row_base, mask=b_row_in)
    b_row_ptr += num_col_tiles.to(tl.int64) * out_rows
    tl.store(b_row_ptr, b_row_sum, mask=b_row_in)
    b_col_ptr = col_partial_ptr + row_tile.to(tl.int64) * out_cols + b_cols
    tl.store(b_col_ptr, b_col_base - b_offset, mask=b_col_in)
    b_col_ptr += tl.cdiv(out_rows, ROWS).to(tl.int64) * out_cols
    tl.store(b_col_ptr, b_col_sum, mask=b_col_in)
