"""The kernel of the dense gradient pass: one tile of S turned into coefficients dL/dS.

Masks are built only in tiles that hold a positive or an excluded pair: the plain tile costs the
product and the formula of a negative, element by element, so that S and G share registers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from alc_kernels.backends.triton.tile.arithmetic import LOG2_E, store_tile, tile_of
from alc_kernels.backends.triton.tile.negatives import guard_limits, open_tile
from alc_kernels.backends.triton.tile.product import row_pointers, tile_product
from alc_kernels.backends.triton.tile.relation import take_tile

# What the kernels that write coefficients read per row of a tile.


@triton.jit
def row_numbers(
    b_at,  # (R,) int64: the rows' places in what follows
    b_rows,  # (R,) int64: their numbers
    b_row_in,
    guard_ptr,  # GUARD only
    row_scale_ptr,
    num_positives_ptr,  # read at b_rows
    log_sum_exp_ptr,
    negative_scale_ptr,
    bias_ptr,  # 0-d
    ROWS: tl.constexpr,
    KIND: tl.constexpr,
    GUARD: tl.constexpr,
):
    """(guard, row scale, shift of the logit in units of log 2, 1 / P, negative scale).

    (R,) float32 each; 0, or 1 for 1 / P, where the formula has no such number.
    """
    b_none = tl.zeros((ROWS,), tl.float32)
    b_guard = b_none
    b_row_scale = b_none
    b_row_shift = b_none
    b_share = b_none + 1.0
    b_negative_scale = b_none
    if GUARD:
        b_guard = tl.load(guard_ptr + b_at, mask=b_row_in, other=0.0)
    if KIND != "none":
        b_row_scale = tl.load(row_scale_ptr + b_at, mask=b_row_in, other=0.0)
    if KIND == "sigmoid":
        b_row_shift -= tl.load(bias_ptr) * LOG2_E
    elif KIND != "none":
        # Rows that do not count may hold anything: 2^(z - inf) = 0 and a share of 1 are finite.
        b_counts = b_row_in & (b_row_scale != 0)
        b_row_shift = tl.load(log_sum_exp_ptr + b_at, mask=b_counts, other=float("inf"))
        b_row_shift *= LOG2_E
        b_number = tl.load(num_positives_ptr + b_rows, mask=b_counts, other=1)
        b_share = 1.0 / tl.maximum(b_number, 1).to(tl.float32)
        if KIND == "decoupled":
            b_negative_scale = tl.load(negative_scale_ptr + b_at, mask=b_counts, other=0.0)
    return b_guard, b_row_scale, b_row_shift, b_share, b_negative_scale


@triton.jit
def _own_term(b_z, b_share, KIND: tl.constexpr):
    """G / (row_scale * slope) of positives. b_z: z - log_sum_exp, or x, in units of log 2.

    What overflows in 1 / (1 + 2^z) gives the 0 that it should.
    """
    if KIND == "softmax":
        b_term = tl.exp2(b_z) - b_share
    else:
        b_term = -b_share / (1.0 + tl.exp2(b_z))
    return b_term


@triton.jit
def _term(b_z, b_negative_scale, KIND: tl.constexpr):
    """The same of negatives."""
    if KIND == "softmax":
        b_term = tl.exp2(b_z)
    elif KIND == "decoupled":
        b_term = b_negative_scale[:, None] * tl.exp2(b_z)
    else:
        b_term = 1.0 / (1.0 + tl.exp2(-b_z))
    return b_term


@triton.jit
def tile_coefficients(
    b_scores,
    b_positive,  # masks (R, C), MASKED only
    b_excluded,
    b_limit,  # (R, 1) or (R, C): of ``guard_limits``, GUARD only
    slope,  # of the logit in s, in units of log 2
    b_row_shift,  # (R,) what is taken from the logit, in units of log 2
    b_col_shift,  # (C,) what is added to it, LABEL_OFFSET only
    b_share,  # (R,) 1 / P, or 1 (sigmoid)
    b_negative_scale,  # (R,)
    b_row_scale,  # (R,)
    common,  # what all coefficients of the base share
    b_col_in,
    b_column_shift,  # (C,) COLUMNS: log-sum-exp - log(scale) of a negative, in units of log 2
    b_column_scale,  # (C,) the next three: COLUMNS and MASKED
    b_column_sum,  # (C,) log-sum-exp in units of log 2
    b_column_share,  # (C,) 1 / P
    positive_margin,
    positive_margin_scale,
    negative_margin,
    negative_margin_scale,
    KIND: tl.constexpr,
    COLUMNS: tl.constexpr,
    MASKED: tl.constexpr,
    HAS_POSITIVES: tl.constexpr,
    HAS_EXCLUDED: tl.constexpr,
    GUARD: tl.constexpr,
    LABEL_OFFSET: tl.constexpr,
    POSITIVE_MARGIN: tl.constexpr,
    NEGATIVE_MARGIN: tl.constexpr,
    SCALARS: tl.constexpr,
):
    """(G, row sums of g s, row sums of g) of a tile, g = G / common before the margins.

    Without MASKED all pairs are negatives. Each part starts from the value of a negative, drops
    what is above the guard or excluded, and gives positives, which win over excluded pairs, theirs.
    """
    b_total = tl.zeros_like(b_scores)
    b_weighted = tl.zeros_like(b_row_scale)
    b_plain = b_weighted
    if KIND != "none":
        b_z = b_scores * slope - b_row_shift[:, None]
        if LABEL_OFFSET:
            b_z += b_col_shift[None, :]
        b_term = _term(b_z, b_negative_scale, KIND)
        if GUARD:
            b_term = tl.where(b_scores > b_limit, 0.0, b_term)
        if MASKED and HAS_EXCLUDED:
            b_term = tl.where(b_excluded, 0.0, b_term)
        if MASKED and HAS_POSITIVES:
            b_own = _own_term(b_z, b_share[:, None], KIND)
            b_term = tl.where(b_positive, b_own, b_term)
        if SCALARS:
            b_inside = tl.where(b_col_in[None, :], b_term, 0.0)
            b_weighted = b_row_scale * tl.sum(b_inside * b_scores, 1)
            b_plain = b_row_scale * tl.sum(b_inside, 1)
        b_total = (b_row_scale * common)[:, None] * b_term
    if COLUMNS != "none":  # no guard; columns past the end have an infinite shift
        b_z = b_scores * slope
        b_term = tl.exp2(b_z - b_column_shift[None, :])
        if MASKED and HAS_EXCLUDED:
            b_term = tl.where(b_excluded, 0.0, b_term)
        if MASKED and HAS_POSITIVES:
            b_own = _own_term(b_z - b_column_sum[None, :], b_column_share[None, :], COLUMNS)
            b_term = tl.where(b_positive, b_column_scale[None, :] * b_own, b_term)
        if SCALARS:
            b_weighted += tl.sum(b_term * b_scores, 1)
            b_plain += tl.sum(b_term, 1)
        b_total += common * b_term
    if NEGATIVE_MARGIN:
        b_margin = tl.where(b_scores >= negative_margin, negative_margin_scale, 0.0)
        if GUARD:
            b_margin = tl.where(b_scores > b_limit, 0.0, b_margin)
        if MASKED and HAS_EXCLUDED:
            b_margin = tl.where(b_excluded, 0.0, b_margin)
        if MASKED and HAS_POSITIVES:
            b_margin = tl.where(b_positive, 0.0, b_margin)
        b_total += b_margin
    if POSITIVE_MARGIN and MASKED and HAS_POSITIVES:
        b_active = b_positive & (b_scores <= positive_margin)
        b_total -= tl.where(b_active, positive_margin_scale, 0.0)
    return b_total, b_weighted, b_plain


@triton.jit(
    do_not_specialize=[
        "partial_cols", "partial_rows", "row_start", "row_stop", "col_start", "col_stop",
        "num_queries", "num_labels",
    ]
)  # fmt: skip
def coefficients_kernel(
    queries_ptr,  # (B, d)
    labels_ptr,  # (M, d)
    positive_row_ptr,  # see relation.py
    positive_col_ptr,
    exclude_row_ptr,
    exclude_col_ptr,
    guard_ptr,  # (B,) float32, GUARD only
    row_slack_ptr,  # (B,) and (M,) float32, GUARD = 2 only
    column_slack_ptr,
    row_scale_ptr,  # (B,) float32
    num_positives_ptr,  # (B,) int64, softmax kinds
    log_sum_exp_ptr,  # (B,) float32, softmax kinds
    negative_scale_ptr,  # (B,) float32, decoupled
    slope_ptr,  # 0-d float32: derivative of the logit in s
    label_offset_ptr,  # (M,) float32, LABEL_OFFSET only
    bias_ptr,  # 0-d float32, sigmoid
    positive_margin,
    positive_margin_scale_ptr,  # 0-d float32
    negative_margin,
    negative_margin_scale_ptr,  # 0-d float32
    column_shift_ptr,  # (M,) float32; the next four: COLUMNS only, see tile_coefficients
    column_scale_ptr,
    column_sum_ptr,
    column_share_ptr,
    out_ptr,  # (rows of a chunk, out_stride): G, column 0 is col_start
    partial_ptr,  # (2, partial_cols, partial_rows) float32: sums per row tile, SCALARS only
    out_scale_ptr,  # 0-d float32, OUT_SCALE only
    num_queries,
    num_labels,
    d,
    row_start,
    row_stop,
    col_start,
    col_stop,
    out_stride,  # a multiple of 16
    partial_cols,
    partial_rows,
    KIND: tl.constexpr,  # "none", "softmax", "decoupled" or "sigmoid"
    COLUMNS: tl.constexpr,  # "none", "softmax" or "decoupled": that of the columns is added
    POSITIVES: tl.constexpr,
    EXCLUDE: tl.constexpr,
    GUARD: tl.constexpr,
    LABEL_OFFSET: tl.constexpr,
    POSITIVE_MARGIN: tl.constexpr,
    NEGATIVE_MARGIN: tl.constexpr,
    SCALARS: tl.constexpr,
    OUT_SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
    EVEN: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """See ``interface.GradientRequest`` for the formulas."""
    num_row_tiles = tl.cdiv(row_stop - row_start, BLOCK_ROWS).to(tl.int32)
    num_col_tiles = tl.cdiv(col_stop - col_start, BLOCK_COLS).to(tl.int32)
    row_tile, col_tile = tile_of(tl.program_id(0), num_row_tiles, num_col_tiles)
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    row = row_start + row_tile.to(tl.int64) * BLOCK_ROWS
    column = col_start + col_tile.to(tl.int64) * BLOCK_COLS
    b_scores = tile_product(
        row_pointers(queries_ptr, row, num_queries, d, BLOCK_ROWS),
        row_pointers(labels_ptr, column, num_labels, d, BLOCK_COLS),
        d, BLOCK_ROWS, BLOCK_COLS, BLOCK_D, EVEN, PRECISION, UPCAST,
    )  # fmt: skip

    b_rows = row + tl.arange(0, BLOCK_ROWS)
    b_cols = column + tl.arange(0, BLOCK_COLS)
    b_row_in = b_rows < row_stop
    b_col_in = b_cols < col_stop
    out_scale = 1.0
    slope = 0.0
    if KIND != "none":
        slope = tl.load(slope_ptr)
    b_col_shift = tl.zeros((BLOCK_COLS,), tl.float32)
    positive_margin_scale = 0.0
    negative_margin_scale = 0.0
    if OUT_SCALE:
        out_scale = tl.load(out_scale_ptr)
    b_guard, b_row_scale, b_row_shift, b_share, b_negative_scale = row_numbers(
        b_rows, b_rows, b_row_in, guard_ptr, row_scale_ptr, num_positives_ptr,
        log_sum_exp_ptr, negative_scale_ptr, bias_ptr, BLOCK_ROWS, KIND, GUARD,
    )  # fmt: skip
    b_limit = guard_limits(
        b_guard, row_slack_ptr, column_slack_ptr, b_rows, b_cols, b_row_in, b_col_in, GUARD
    )
    if LABEL_OFFSET and KIND != "sigmoid":
        b_col_shift = tl.load(label_offset_ptr + b_cols, mask=b_col_in, other=0.0) * LOG2_E
    if POSITIVE_MARGIN:
        positive_margin_scale = tl.load(positive_margin_scale_ptr) * out_scale
    if NEGATIVE_MARGIN:
        negative_margin_scale = tl.load(negative_margin_scale_ptr) * out_scale
    common = slope * out_scale
    b_column_shift = b_col_shift
    if COLUMNS != "none":
        b_column_shift = tl.load(column_shift_ptr + b_cols, mask=b_col_in, other=float("inf"))

    positives, excluded, has_positive, has_excluded = open_tile(
        POSITIVES, positive_row_ptr, positive_col_ptr, EXCLUDE, exclude_row_ptr, exclude_col_ptr,
        b_rows, b_row_in, column, num_labels, BLOCK_COLS,
    )  # fmt: skip
    if has_positive | has_excluded:
        b_positive = take_tile(
            POSITIVES, positive_col_ptr, positives[0], positives[1], positives[2], column,
            num_labels, BLOCK_ROWS, BLOCK_COLS,
        )[0]  # fmt: skip
        b_excluded = take_tile(
            EXCLUDE, exclude_col_ptr, excluded[0], excluded[1], excluded[2], column, num_labels,
            BLOCK_ROWS, BLOCK_COLS,
        )[0]  # fmt: skip
        b_column_scale = b_col_shift
        b_column_sum = b_col_shift
        b_column_share = b_col_shift
        if COLUMNS != "none":
            b_column_scale = tl.load(column_scale_ptr + b_cols, mask=b_col_in, other=0.0)
            b_column_sum = tl.load(column_sum_ptr + b_cols, mask=b_col_in, other=float("inf"))
            b_column_share = tl.load(column_share_ptr + b_cols, mask=b_col_in, other=0.0)
        b_total, b_weighted, b_plain = tile_coefficients(
            b_scores, b_positive, b_excluded, b_limit, slope * LOG2_E, b_row_shift, b_col_shift,
            b_share, b_negative_scale, b_row_scale, common, b_col_in, b_column_shift,
            b_column_scale, b_column_sum, b_column_share, positive_margin, positive_margin_scale,
            negative_margin, negative_margin_scale, KIND, COLUMNS, True, POSITIVES != "empty",
            EXCLUDE != "empty", GUARD, LABEL_OFFSET, POSITIVE_MARGIN, NEGATIVE_MARGIN, SCALARS,
        )  # fmt: skip
    else:
        b_total, b_weighted, b_plain = tile_coefficients(
            b_scores, b_scores, b_scores, b_limit, slope * LOG2_E, b_row_shift, b_col_shift,
            b_share, b_negative_scale, b_row_scale, common, b_col_in, b_column_shift,
            b_col_shift, b_col_shift, b_col_shift, positive_margin, positive_margin_scale,
            negative_margin, negative_margin_scale, KIND, COLUMNS, False, POSITIVES != "empty",
            EXCLUDE != "empty", GUARD, LABEL_OFFSET, POSITIVE_MARGIN, NEGATIVE_MARGIN, SCALARS,
        )  # fmt: skip

    if SCALARS:
        b_partial_ptr = partial_ptr + col_tile.to(tl.int64) * partial_rows
        b_partial_ptr += row - row_start + tl.arange(0, BLOCK_ROWS)
        tl.store(b_partial_ptr, b_weighted, mask=b_row_in)
        b_partial_ptr += partial_cols.to(tl.int64) * partial_rows
        tl.store(b_partial_ptr, b_plain, mask=b_row_in)
    local, local_column = row - row_start, column - col_start
    store_tile(out_ptr, local, local_column, out_stride, b_total, BLOCK_ROWS, BLOCK_COLS)
