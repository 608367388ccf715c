"""The coefficients dL/dS of several prefix widths, from one pass over the tiles.

A program sums one tile's products along the embedding. At each width it scales the sum to that
width's tile of S, makes the coefficients of ``coefficients_kernel`` of it and writes them into
that width's plane of the workspace; then the sum goes on. One body serves all widths, with the
numbers per row loaded where they are used.
"""

import triton
import triton.language as tl

from alc_kernels.backends.triton.dense.kernel import row_numbers, tile_coefficients
from alc_kernels.backends.triton.tile.arithmetic import LOG2_E, store_tile, tile_of
from alc_kernels.backends.triton.tile.negatives import guard_limits, open_tile
from alc_kernels.backends.triton.tile.product import add_width, row_pointers, scale_tile
from alc_kernels.backends.triton.tile.relation import take_tile


@triton.jit(
    do_not_specialize=[
        "row_start", "row_stop", "col_start", "col_stop", "num_queries", "num_labels",
        "num_widths", "out_rows",
    ]
)  # fmt: skip
def prefix_coefficients_kernel(
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
    row_scale_ptr,  # (W, B) float32
    num_positives_ptr,  # (B,) int64, softmax kinds
    log_sum_exp_ptr,  # (W, B) float32, softmax kinds
    negative_scale_ptr,  # (W, B) float32, decoupled
    slope_ptr,  # 0-d float32: derivative of the logit in s
    label_offset_ptr,  # (M,) float32, LABEL_OFFSET only
    bias_ptr,  # 0-d float32, sigmoid
    positive_margin,
    positive_margin_scale_ptr,  # (W,) float32
    negative_margin,
    negative_margin_scale_ptr,  # (W,) float32
    widths_ptr,  # (W + 1,) int32, the first is 0
    out_ptr,  # (W, out_rows, out_stride): G, column 0 is col_start
    out_scale_ptr,  # (W,) float32, OUT_SCALE only
    num_queries,
    num_labels,
    d,
    num_widths,
    row_start,
    row_stop,
    col_start,
    col_stop,
    out_rows,
    out_stride,  # a multiple of 16
    KIND: tl.constexpr,  # "none", "softmax", "decoupled" or "sigmoid"
    POSITIVES: tl.constexpr,
    EXCLUDE: tl.constexpr,
    SCALED: tl.constexpr,
    GUARD: tl.constexpr,
    LABEL_OFFSET: tl.constexpr,
    POSITIVE_MARGIN: tl.constexpr,
    NEGATIVE_MARGIN: tl.constexpr,
    OUT_SCALE: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """See ``interface.GradientRequest`` for the formulas."""
    num_row_tiles = tl.cdiv(row_stop - row_start, ROWS).to(tl.int32)
    num_col_tiles = tl.cdiv(col_stop - col_start, COLS).to(tl.int32)
    row_tile, col_tile = tile_of(tl.program_id(0), num_row_tiles, num_col_tiles)
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    row = row_start + row_tile.to(tl.int64) * ROWS
    column = col_start + col_tile.to(tl.int64) * COLS
    b_q_ptrs = row_pointers(queries_ptr, row, num_queries, d, ROWS)
    b_k_ptrs = row_pointers(labels_ptr, column, num_labels, d, COLS)
    b_rows = row + tl.arange(0, ROWS)
    b_cols = column + tl.arange(0, COLS)
    b_inside = tl.minimum(b_cols, num_labels - 1)
    b_row_in = b_rows < row_stop
    b_col_in = b_cols < col_stop
    slope = 0.0
    if KIND != "none":
        slope = tl.load(slope_ptr)
    b_col_shift = tl.zeros((COLS,), tl.float32)
    if LABEL_OFFSET:
        b_col_shift = tl.load(label_offset_ptr + b_cols, mask=b_col_in, other=0.0) * LOG2_E
    positives, excluded, has_positive, has_excluded = open_tile(
        POSITIVES, positive_row_ptr, positive_col_ptr, EXCLUDE, exclude_row_ptr, exclude_col_ptr,
        b_rows, b_row_in, column, num_labels, COLS,
    )  # fmt: skip
    local, local_column = row - row_start, column - col_start

    b_raw = tl.zeros((ROWS, COLS), tl.float32)
    for n in range(num_widths):
        b_raw = add_width(b_raw, b_q_ptrs, b_k_ptrs, widths_ptr, n, DEPTH, EVEN, PRECISION, UPCAST)
        wide = num_queries * 0 + n  # 64 bits; the interpreter counts in plain numbers
        b_at = wide * num_queries + b_rows
        b_scores = scale_tile(
            b_raw, query_scale_ptr, label_scale_ptr, b_at, wide * num_labels + b_inside, b_row_in,
            SCALED,
        )  # fmt: skip
        b_guard, b_row_scale, b_row_shift, b_share, b_negative_scale = row_numbers(
            b_at, b_rows, b_row_in, guard_ptr, row_scale_ptr, num_positives_ptr,
            log_sum_exp_ptr, negative_scale_ptr, bias_ptr, ROWS, KIND, GUARD,
        )  # fmt: skip
        b_limit = guard_limits(
            b_guard, row_slack_ptr, column_slack_ptr, b_at, wide * num_labels + b_inside, b_row_in,
            b_col_in, GUARD,
        )  # fmt: skip
        out_scale = 1.0
        positive_margin_scale = 0.0
        negative_margin_scale = 0.0
        if OUT_SCALE:
            out_scale = tl.load(out_scale_ptr + n)
        if POSITIVE_MARGIN:
            positive_margin_scale = tl.load(positive_margin_scale_ptr + n) * out_scale
        if NEGATIVE_MARGIN:
            negative_margin_scale = tl.load(negative_margin_scale_ptr + n) * out_scale
        common = slope * out_scale
        if has_positive | has_excluded:
            # Masks would not stay in registers from one width to the next: they are made again.
            b_positive = take_tile(
                POSITIVES, positive_col_ptr, positives[0], positives[1], positives[2], column,
                num_labels, ROWS, COLS,
            )[0]  # fmt: skip
            b_excluded = take_tile(
                EXCLUDE, exclude_col_ptr, excluded[0], excluded[1], excluded[2], column,
                num_labels, ROWS, COLS,
            )[0]  # fmt: skip
            b_total = tile_coefficients(
                b_scores, b_positive, b_excluded, b_limit, slope * LOG2_E, b_row_shift,
                b_col_shift, b_share, b_negative_scale, b_row_scale, common, b_col_in, b_col_shift,
                b_col_shift, b_col_shift, b_col_shift, positive_margin, positive_margin_scale,
                negative_margin, negative_margin_scale, KIND, "none", True, POSITIVES != "empty",
                EXCLUDE != "empty", GUARD, LABEL_OFFSET, POSITIVE_MARGIN, NEGATIVE_MARGIN, False,
            )[0]  # fmt: skip
        else:
            b_total = tile_coefficients(
                b_scores, b_scores, b_scores, b_limit, slope * LOG2_E, b_row_shift, b_col_shift,
                b_share, b_negative_scale, b_row_scale, common, b_col_in, b_col_shift,
                b_col_shift, b_col_shift, b_col_shift, positive_margin, positive_margin_scale,
                negative_margin, negative_margin_scale, KIND, "none", False, POSITIVES != "empty",
                EXCLUDE != "empty", GUARD, LABEL_OFFSET, POSITIVE_MARGIN, NEGATIVE_MARGIN, False,
            )[0]  # fmt: skip
        plane_ptr = out_ptr + wide * out_rows * out_stride
        store_tile(plane_ptr, local, local_column, out_stride, b_total, ROWS, COLS)
