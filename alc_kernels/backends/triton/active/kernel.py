"""The pairs within the margins at several prefix widths, as bits, from one pass over the tiles.

As ``walk`` keeps them for one width (``active_bits``): a plane of words per width and side.
"""

import triton
import triton.language as tl

from alc_kernels.backends.triton.tile.arithmetic import tile_of
from alc_kernels.backends.triton.tile.bits import WORD, pack_bits, store_words
from alc_kernels.backends.triton.tile.negatives import guard_limits, keep_negatives, open_tile
from alc_kernels.backends.triton.tile.product import add_width, row_pointers, scale_tile
from alc_kernels.backends.triton.tile.relation import any_row
from alc_kernels.backends.triton.walk.positives import pack_active_positives


@triton.jit(
    do_not_specialize=[
        "row_start", "row_stop", "num_queries", "num_labels", "num_widths", "num_words",
        "bits_stride",
    ]
)  # fmt: skip
def prefix_bits_kernel(
    queries_ptr,  # (B, d)
    labels_ptr,  # (M, d)
    query_scale_ptr,  # (W, B) float32, SCALED only
    label_scale_ptr,  # (W, M)
    positive_row_ptr,  # see relation.py
    positive_col_ptr,
    exclude_row_ptr,
    exclude_col_ptr,
    guard_ptr,  # (W, B) float32, GUARD only
    row_slack_ptr,  # (W, B) and (W, M) float32, GUARD = 2 only
    column_slack_ptr,
    widths_ptr,  # (W + 1,) int32, the first is 0
    positive_bits_ptr,  # (W, num_words, bits_stride) int32, KEEP_POSITIVE only
    negative_bits_ptr,  # the same, KEEP_NEGATIVE only
    positive_margin,
    negative_margin,
    num_queries,
    num_labels,
    d,
    num_widths,
    row_start,
    row_stop,
    num_words,
    bits_stride,
    POSITIVES: tl.constexpr,
    EXCLUDE: tl.constexpr,
    SCALED: tl.constexpr,
    GUARD: tl.constexpr,
    KEEP_POSITIVE: tl.constexpr,
    KEEP_NEGATIVE: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """The tiles of the rows row_start .. row_stop with all labels."""
    row_start = row_start.to(tl.int64)
    num_row_tiles = tl.cdiv(row_stop - row_start, ROWS).to(tl.int32)
    num_col_tiles = tl.cdiv(num_labels, COLS).to(tl.int32)
    row_tile, col_tile = tile_of(tl.program_id(0), num_row_tiles, num_col_tiles)
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    row = row_start + row_tile.to(tl.int64) * ROWS
    column = col_tile.to(tl.int64) * COLS
    b_q_ptrs = row_pointers(queries_ptr, row, num_queries, d, ROWS)
    b_k_ptrs = row_pointers(labels_ptr, column, num_labels, d, COLS)
    b_rows = row + tl.arange(0, ROWS)
    b_cols = column + tl.arange(0, COLS)
    b_inside = tl.minimum(b_cols, num_labels - 1)
    b_row_in = b_rows < row_stop
    b_local_row = b_rows - row_start
    opened = open_tile(
        POSITIVES, positive_row_ptr, positive_col_ptr, EXCLUDE, exclude_row_ptr, exclude_col_ptr,
        b_rows, b_row_in, column, num_labels, COLS,
    )  # fmt: skip
    positives, _excluded, has_positive, _has_excluded = opened
    plane = num_words.to(tl.int64) * bits_stride

    b_raw = tl.zeros((ROWS, COLS), tl.float32)
    for n in range(num_widths):
        b_raw = add_width(b_raw, b_q_ptrs, b_k_ptrs, widths_ptr, n, DEPTH, EVEN, PRECISION, UPCAST)
        wide = num_queries * 0 + n  # 64 bits; the interpreter counts in plain numbers
        b_at = wide * num_queries + b_rows
        b_s = scale_tile(
            b_raw, query_scale_ptr, label_scale_ptr, b_at, wide * num_labels + b_inside, b_row_in,
            SCALED,
        )  # fmt: skip
        if KEEP_POSITIVE:
            b_words = tl.zeros((ROWS, COLS // WORD), tl.int32)
            if has_positive:
                b_words = pack_active_positives(
                    POSITIVES, positive_col_ptr, positives[0], positives[1], positives[2], b_s,
                    column, positive_margin, ROWS, COLS,
                )  # fmt: skip
            store_words(
                positive_bits_ptr + wide * plane, bits_stride, b_words, column, b_local_row,
                b_row_in, COLS,
            )  # fmt: skip
        if KEEP_NEGATIVE:
            b_s = keep_negatives(  # from here on -inf means "no negative"
                b_s, opened, POSITIVES, positive_col_ptr, EXCLUDE, exclude_col_ptr, row, row_stop,
                column, num_labels, False, ROWS, COLS,
            )  # fmt: skip
            b_above = b_s >= negative_margin
            if GUARD:
                b_guard = tl.load(guard_ptr + b_at, mask=b_row_in, other=float("inf"))
                b_above &= b_s <= guard_limits(
                    b_guard, row_slack_ptr, column_slack_ptr, b_at, wide * num_labels + b_inside,
                    b_row_in, b_cols < num_labels, GUARD,
                )  # fmt: skip
            b_words = tl.zeros((ROWS, COLS // WORD), tl.int32)
            if any_row(tl.max(b_above.to(tl.int32), 1) > 0):
                b_words = pack_bits(b_above, ROWS, COLS)
            store_words(
                negative_bits_ptr + wide * plane, bits_stride, b_words, column, b_local_row,
                b_row_in, COLS,
            )  # fmt: skip
