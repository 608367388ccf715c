"""The kernel of the dense gradient pass: one tile of S turned into coefficients dL/dS.

Masks are built only in tiles that hold a positive or an excluded pair: the plain tile costs the
product and the formula of a negative, element by element, so that S and G share registers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.tile.arithmetic import LOG2_E, own_tile, store_tile
from alc_kernels.backends.triton.tile.negatives import Guard, open_tile, tile_limits
from alc_kernels.backends.triton.tile.product import Rows, Shape, tile_at
from alc_kernels.backends.triton.tile.relation import Relation, tile_mask

# The parts of a coefficient as kernel arguments; of several widths each (W, ...).


class Formula(NamedTuple):
    """The base's part, from the numbers of the rows: see ``interface.GradientRequest``."""

    KIND: tl.constexpr  # "none", "softmax", "decoupled" or "sigmoid"
    LABEL_OFFSET: tl.constexpr
    OUT_SCALE: tl.constexpr
    row_scale_ptr: Tensor  # (B,) float32
    num_positives_ptr: Tensor  # (B,) int64 of all widths, softmax kinds
    log_sum_exp_ptr: Tensor  # (B,) float32, softmax kinds
    negative_scale_ptr: Tensor  # (B,) float32, decoupled
    slope_ptr: Tensor  # 0-d float32 of all widths: derivative of the logit in s
    label_offset_ptr: Tensor  # (M,) float32 of all widths, LABEL_OFFSET only
    bias_ptr: Tensor  # 0-d float32 of all widths, sigmoid
    out_scale_ptr: Tensor  # 0-d float32, OUT_SCALE only


class Margins(NamedTuple):
    """The thresholds' part."""

    POSITIVE: tl.constexpr
    NEGATIVE: tl.constexpr
    positive: float
    positive_scale_ptr: Tensor  # 0-d float32
    negative: float
    negative_scale_ptr: Tensor  # 0-d float32


class Columns(NamedTuple):
    """The part of the base over columns."""

    KIND: tl.constexpr  # "none", "softmax" or "decoupled"
    shift_ptr: Tensor  # (M,) log-sum-exp - log(scale) of a negative, in units of log 2
    scale_ptr: Tensor  # (M,)
    sum_ptr: Tensor  # (M,) log-sum-exp in units of log 2
    share_ptr: Tensor  # (M,) 1 / P


class Space(NamedTuple):
    """The workspace, whole tiles; its column 0 is the chunk's first."""

    ptr: Any  # a tensor (rows of a chunk, stride)
    stride: int  # a multiple of 16


@triton.jit
def load_numbers(
    b_at,  # (R,) int64: the rows' places in what follows
    b_rows,  # (R,) int64: their numbers
    b_row_in,
    formula,
):
    """(row scale, shift of the logit in units of log 2, 1 / P, negative scale).

    (R,) float32 each; 0, or 1 for 1 / P, where the formula has no such number.
    """
    b_none = tl.zeros(b_rows.shape, tl.float32)
    b_row_scale = b_none
    b_row_shift = b_none
    b_share = b_none + 1.0
    b_negative_scale = b_none
    if formula.KIND != "none":
        b_row_scale = tl.load(formula.row_scale_ptr + b_at, mask=b_row_in, other=0.0)
    if formula.KIND == "sigmoid":
        b_row_shift -= tl.load(formula.bias_ptr) * LOG2_E
    elif formula.KIND != "none":
        # Rows that do not count may hold anything: 2^(z - inf) = 0 and a share of 1 are finite.
        b_counts = b_row_in & (b_row_scale != 0)
        b_row_shift = tl.load(formula.log_sum_exp_ptr + b_at, mask=b_counts, other=float("inf"))
        b_row_shift *= LOG2_E
        b_number = tl.load(formula.num_positives_ptr + b_rows, mask=b_counts, other=1)
        b_share = 1.0 / tl.maximum(b_number, 1).to(tl.float32)
        if formula.KIND == "decoupled":
            b_negative_scale = tl.load(formula.negative_scale_ptr + b_at, mask=b_counts, other=0.0)
    return b_row_scale, b_row_shift, b_share, b_negative_scale


@triton.jit
def load_slope(formula):
    """The derivative of the logit in s."""
    slope = 0.0
    if formula.KIND != "none":
        slope = tl.load(formula.slope_ptr)
    return slope


@triton.jit
def load_scales(slope, formula, margins, n):
    """(slope, what all of the base's coefficients share, the margins' two scales) of width n."""
    out_scale = 1.0
    positive_scale = 0.0
    negative_scale = 0.0
    if formula.OUT_SCALE:
        out_scale = tl.load(formula.out_scale_ptr + n)
    if margins.POSITIVE:
        positive_scale = tl.load(margins.positive_scale_ptr + n) * out_scale
    if margins.NEGATIVE:
        negative_scale = tl.load(margins.negative_scale_ptr + n) * out_scale
    return slope, slope * out_scale, positive_scale, negative_scale


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
def _coefficients(
    b_scores,
    b_positive,  # masks (R, C), MASKED only
    b_excluded,
    b_limit,  # (R, 1) or (R, C): of ``guard_limits``
    numbers,  # of ``load_numbers``
    scales,  # of ``load_scales``
    b_col_shift,  # (C,) what is added to the logit in units of log 2, LABEL_OFFSET only
    b_col_in,
    column_numbers,  # (C,) those of Columns; without MASKED only the first is used
    formula,
    margins,
    columns,
    HAS_POSITIVES: tl.constexpr,
    HAS_EXCLUDED: tl.constexpr,
    GUARD: tl.constexpr,
    MASKED: tl.constexpr,
    SCALARS: tl.constexpr,
):
    """(G, row sums of g s, row sums of g) of a tile, g = G / common before the margins.

    Without MASKED all pairs are negatives. Each part starts from the value of a negative, drops
    what is above the guard or excluded, and gives positives, which win over excluded pairs, theirs.
    """
    b_row_scale, b_row_shift, b_share, b_negative_scale = numbers
    slope, common, positive_scale, negative_scale = scales
    b_column_shift, b_column_scale, b_column_sum, b_column_share = column_numbers
    slope = slope * LOG2_E
    b_total = tl.zeros_like(b_scores)
    b_weighted = tl.zeros_like(b_row_scale)
    b_plain = b_weighted
    if formula.KIND != "none":
        b_z = b_scores * slope - b_row_shift[:, None]
        if formula.LABEL_OFFSET:
            b_z += b_col_shift[None, :]
        b_term = _term(b_z, b_negative_scale, formula.KIND)
        if GUARD:
            b_term = tl.where(b_scores > b_limit, 0.0, b_term)
        if MASKED and HAS_EXCLUDED:
            b_term = tl.where(b_excluded, 0.0, b_term)
        if MASKED and HAS_POSITIVES:
            b_own = _own_term(b_z, b_share[:, None], formula.KIND)
            b_term = tl.where(b_positive, b_own, b_term)
        if SCALARS:
            b_inside = tl.where(b_col_in[None, :], b_term, 0.0)
            b_weighted = b_row_scale * tl.sum(b_inside * b_scores, 1)
            b_plain = b_row_scale * tl.sum(b_inside, 1)
        b_total = (b_row_scale * common)[:, None] * b_term
    if columns.KIND != "none":  # no guard; columns past the end have an infinite shift
        b_z = b_scores * slope
        b_term = tl.exp2(b_z - b_column_shift[None, :])
        if MASKED and HAS_EXCLUDED:
            b_term = tl.where(b_excluded, 0.0, b_term)
        if MASKED and HAS_POSITIVES:
            b_own = _own_term(b_z - b_column_sum[None, :], b_column_share[None, :], columns.KIND)
            b_term = tl.where(b_positive, b_column_scale[None, :] * b_own, b_term)
        if SCALARS:
            b_weighted += tl.sum(b_term * b_scores, 1)
            b_plain += tl.sum(b_term, 1)
        b_total += common * b_term
    if margins.NEGATIVE:
        b_margin = tl.where(b_scores >= margins.negative, negative_scale, 0.0)
        if GUARD:
            b_margin = tl.where(b_scores > b_limit, 0.0, b_margin)
        if MASKED and HAS_EXCLUDED:
            b_margin = tl.where(b_excluded, 0.0, b_margin)
        if MASKED and HAS_POSITIVES:
            b_margin = tl.where(b_positive, 0.0, b_margin)
        b_total += b_margin
    if margins.POSITIVE and MASKED and HAS_POSITIVES:
        b_active = b_positive & (b_scores <= margins.positive)
        b_total -= tl.where(b_active, positive_scale, 0.0)
    return b_total, b_weighted, b_plain


@triton.jit
def tile_coefficients(
    b_scores,
    opened,  # of ``open_tile``
    positives,
    exclude,
    column,
    num_labels,
    b_limit,  # the next five: see ``_coefficients``
    numbers,
    scales,
    b_col_shift,
    b_col_in,
    b_column_shift,  # of ``load_column_shift``
    formula,
    margins,
    columns,
    GUARD: tl.constexpr,
    SCALARS: tl.constexpr,
    shape,
):
    """(G, row sums of g s, row sums of g) of a tile, g = G / common before the margins."""
    positive_rows, excluded_rows, has_positive, has_excluded = opened
    HAS_POSITIVES: tl.constexpr = positives.kind != "empty"
    HAS_EXCLUDED: tl.constexpr = exclude.kind != "empty"
    b_cols = column + tl.arange(0, shape.COLS)
    if has_positive | has_excluded:
        b_positive = tile_mask(
            positives, positive_rows[0], positive_rows[1], column, num_labels, shape.ROWS,
            shape.COLS,
        )  # fmt: skip
        b_excluded = tile_mask(
            exclude, excluded_rows[0], excluded_rows[1], column, num_labels, shape.ROWS,
            shape.COLS,
        )  # fmt: skip
        b_column_scale = b_col_shift
        b_column_sum = b_col_shift
        b_column_share = b_col_shift
        if columns.KIND != "none":
            b_column_scale = tl.load(columns.scale_ptr + b_cols, mask=b_col_in, other=0.0)
            b_column_sum = tl.load(columns.sum_ptr + b_cols, mask=b_col_in, other=float("inf"))
            b_column_share = tl.load(columns.share_ptr + b_cols, mask=b_col_in, other=0.0)
        b_total, b_weighted, b_plain = _coefficients(
            b_scores, b_positive, b_excluded, b_limit, numbers, scales, b_col_shift, b_col_in,
            (b_column_shift, b_column_scale, b_column_sum, b_column_share), formula, margins,
            columns, HAS_POSITIVES, HAS_EXCLUDED, GUARD, True, SCALARS,
        )  # fmt: skip
    else:
        b_total, b_weighted, b_plain = _coefficients(
            b_scores, b_scores, b_scores, b_limit, numbers, scales, b_col_shift, b_col_in,
            (b_column_shift, b_col_shift, b_col_shift, b_col_shift), formula, margins, columns,
            HAS_POSITIVES, HAS_EXCLUDED, GUARD, False, SCALARS,
        )  # fmt: skip
    return b_total, b_weighted, b_plain


@triton.jit
def load_offset(formula, b_cols, b_col_in):
    """(C,) the labels' offsets in units of log 2, or zeros."""
    b_offset = tl.zeros(b_cols.shape, tl.float32)
    if formula.LABEL_OFFSET:
        b_offset = tl.load(formula.label_offset_ptr + b_cols, mask=b_col_in, other=0.0) * LOG2_E
    return b_offset


@triton.jit
def load_column_shift(columns, b_col_shift, b_cols, b_col_in):
    """(C,) the columns' shifts, where they have a part."""
    b_column_shift = b_col_shift
    if columns.KIND != "none":
        b_column_shift = tl.load(columns.shift_ptr + b_cols, mask=b_col_in, other=float("inf"))
    return b_column_shift


@triton.jit(
    do_not_specialize=[
        "partial_cols", "partial_rows", "row_start", "row_stop", "col_start", "col_stop",
        "num_queries", "num_labels",
    ]
)  # fmt: skip
def coefficients_kernel(
    rows: Rows,
    positives: Relation,
    exclude: Relation,
    guard: Guard,
    formula: Formula,
    margins: Margins,
    columns: Columns,
    space: Space,
    partial_ptr,  # (2, partial_cols, partial_rows) float32: sums per row tile, SCALARS only
    num_queries,
    num_labels,
    row_start,
    row_stop,
    col_start,
    col_stop,
    partial_cols,
    partial_rows,
    SCALARS: tl.constexpr,
    shape: Shape,
):
    """See ``interface.GradientRequest`` for the formulas."""
    row_tile, col_tile, _tiles = own_tile(row_stop - row_start, col_stop - col_start, shape)
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    row = row_start + row_tile.to(tl.int64) * shape.ROWS
    column = col_start + col_tile.to(tl.int64) * shape.COLS
    b_scores = tile_at(rows, row, column, num_queries, num_labels, shape)
    b_rows = row + tl.arange(0, shape.ROWS)
    b_cols = column + tl.arange(0, shape.COLS)
    b_row_in = b_rows < row_stop
    b_col_in = b_cols < col_stop
    slope = load_slope(formula)
    numbers = load_numbers(b_rows, b_rows, b_row_in, formula)
    b_limit = tile_limits(guard, b_rows, b_cols, b_row_in, b_col_in)
    b_col_shift = load_offset(formula, b_cols, b_col_in)
    scales = load_scales(slope, formula, margins, 0)
    b_column_shift = load_column_shift(columns, b_col_shift, b_cols, b_col_in)
    opened = open_tile(positives, exclude, b_rows, b_row_in, column, num_labels, shape.COLS)
    b_total, b_weighted, b_plain = tile_coefficients(
        b_scores, opened, positives, exclude, column, num_labels, b_limit, numbers, scales,
        b_col_shift, b_col_in, b_column_shift, formula, margins, columns, guard.KIND, SCALARS,
        shape,
    )  # fmt: skip
    if SCALARS:
        b_partial_ptr = partial_ptr + col_tile.to(tl.int64) * partial_rows
        b_partial_ptr += row - row_start + tl.arange(0, shape.ROWS)
        tl.store(b_partial_ptr, b_weighted, mask=b_row_in)
        b_partial_ptr += partial_cols.to(tl.int64) * partial_rows
        tl.store(b_partial_ptr, b_plain, mask=b_row_in)
    store_tile(space.ptr, row - row_start, column - col_start, space.stride, b_total, shape)
