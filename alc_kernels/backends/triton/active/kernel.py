"""The pairs within the margins at several prefix widths, as bits, from one pass over the tiles.

As ``walk`` keeps them for one width (``tile.bits``): a plane of words per width and side.
"""

import triton
import triton.language as tl

from alc_kernels.backends.triton.tile.arithmetic import own_tile
from alc_kernels.backends.triton.tile.bits import WORD, Bits, pack_bits, store_words
from alc_kernels.backends.triton.tile.negatives import (
    Guard,
    keep_negatives,
    open_tile,
    tile_limits,
)
from alc_kernels.backends.triton.tile.product import (
    Rows,
    Scales,
    Shape,
    add_width,
    row_pointers,
    scale_tile,
)
from alc_kernels.backends.triton.tile.relation import Relation, any_row
from alc_kernels.backends.triton.walk.positives import pack_active_positives


@triton.jit(
    do_not_specialize=[
        "row_start", "row_stop", "num_queries", "num_labels", "num_widths", "num_words",
        "bits_stride",
    ]
)  # fmt: skip
def prefix_bits_kernel(
    rows: Rows,
    scales: Scales,
    positives: Relation,
    exclude: Relation,
    guard: Guard,
    widths_ptr,  # (W + 1,) int32, the first is 0
    bits: Bits,  # (W, num_words, bits_stride) int32
    positive_margin,
    negative_margin,
    num_queries,
    num_labels,
    num_widths,
    row_start,
    row_stop,
    num_words,
    bits_stride,
    shape: Shape,
):
    """The tiles of the rows row_start .. row_stop with all labels."""
    row_start = row_start.to(tl.int64)
    row_tile, col_tile, _tiles = own_tile(row_stop - row_start, num_labels, shape)
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    row = row_start + row_tile.to(tl.int64) * shape.ROWS
    column = col_tile.to(tl.int64) * shape.COLS
    b_q_ptrs = row_pointers(rows.queries_ptr, row, num_queries, rows.d, shape.ROWS)
    b_k_ptrs = row_pointers(rows.labels_ptr, column, num_labels, rows.d, shape.COLS)
    b_rows = row + tl.arange(0, shape.ROWS)
    b_cols = column + tl.arange(0, shape.COLS)
    b_inside = tl.minimum(b_cols, num_labels - 1)
    b_row_in = b_rows < row_stop
    b_local_row = b_rows - row_start
    opened = open_tile(positives, exclude, b_rows, b_row_in, column, num_labels, shape.COLS)
    positive_rows, _excluded, has_positive, _has_excluded = opened
    plane = num_words.to(tl.int64) * bits_stride

    b_raw = tl.zeros((shape.ROWS, shape.COLS), tl.float32)
    for n in range(num_widths):
        b_raw = add_width(b_raw, b_q_ptrs, b_k_ptrs, widths_ptr, n, shape)
        wide = num_queries * 0 + n  # 64 bits; the interpreter counts in plain numbers
        b_at = wide * num_queries + b_rows
        b_column_at = wide * num_labels + b_inside
        b_s = scale_tile(b_raw, scales, b_at, b_column_at, b_row_in)
        if bits.KEEP_POSITIVE:
            b_words = tl.zeros((shape.ROWS, shape.COLS // WORD), tl.int32)
            if has_positive:
                b_words = pack_active_positives(
                    positives, positive_rows[0], positive_rows[1], b_s, column, positive_margin,
                    shape.ROWS, shape.COLS,
                )  # fmt: skip
            store_words(
                bits.positive_ptr + wide * plane, bits_stride, b_words, column, b_local_row,
                b_row_in, shape.COLS,
            )  # fmt: skip
        if bits.KEEP_NEGATIVE:
            b_s = keep_negatives(  # from here on -inf means "no negative"
                b_s, opened, positives, exclude, row, row_stop, column, num_labels, False, shape
            )
            b_above = b_s >= negative_margin
            if guard.KIND:
                b_above &= b_s <= tile_limits(
                    guard, b_at, b_column_at, b_row_in, b_cols < num_labels
                )
            b_words = tl.zeros((shape.ROWS, shape.COLS // WORD), tl.int32)
            if any_row(tl.max(b_above.to(tl.int32), 1) > 0):
                b_words = pack_bits(b_above, shape.ROWS, shape.COLS)
            store_words(
                bits.negative_ptr + wide * plane, bits_stride, b_words, column, b_local_row,
                b_row_in, shape.COLS,
            )  # fmt: skip
