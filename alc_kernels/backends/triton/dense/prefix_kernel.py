"""The coefficients dL/dS of several prefix widths, from one pass over the tiles.

A program sums one tile's products along the embedding. At each width it scales the sum to that
width's tile of S, makes the coefficients of ``coefficients_kernel`` of it and writes them into
that width's plane of the workspace; then the sum goes on. One body serves all widths, with the
numbers per row loaded where they are used.
"""

import triton
import triton.language as tl

from alc_kernels.backends.triton.dense.kernel import (
    Columns,
    Formula,
    Margins,
    Space,
    load_numbers,
    load_offset,
    load_scales,
    load_slope,
    tile_coefficients,
)
from alc_kernels.backends.triton.tile.arithmetic import own_tile, store_tile
from alc_kernels.backends.triton.tile.negatives import Guard, open_tile, tile_limits
from alc_kernels.backends.triton.tile.product import (
    Rows,
    Scales,
    Shape,
    add_width,
    row_pointers,
    scale_tile,
)
from alc_kernels.backends.triton.tile.relation import Relation


@triton.jit(
    do_not_specialize=[
        "row_start", "row_stop", "col_start", "col_stop", "num_queries", "num_labels",
        "num_widths", "out_rows",
    ]
)  # fmt: skip
def prefix_coefficients_kernel(
    rows: Rows,
    scales: Scales,
    positives: Relation,
    exclude: Relation,
    guard: Guard,
    formula: Formula,
    margins: Margins,
    columns: Columns,  # none
    widths_ptr,  # (W + 1,) int32, the first is 0
    space: Space,  # (W, out_rows, stride)
    num_queries,
    num_labels,
    num_widths,
    row_start,
    row_stop,
    col_start,
    col_stop,
    out_rows,
    shape: Shape,
):
    """See ``interface.GradientRequest`` for the formulas."""
    row_tile, col_tile, _tiles = own_tile(row_stop - row_start, col_stop - col_start, shape)
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    row = row_start + row_tile.to(tl.int64) * shape.ROWS
    column = col_start + col_tile.to(tl.int64) * shape.COLS
    b_q_ptrs = row_pointers(rows.queries_ptr, row, num_queries, rows.d, shape.ROWS)
    b_k_ptrs = row_pointers(rows.labels_ptr, column, num_labels, rows.d, shape.COLS)
    b_rows = row + tl.arange(0, shape.ROWS)
    b_cols = column + tl.arange(0, shape.COLS)
    b_inside = tl.minimum(b_cols, num_labels - 1)
    b_row_in = b_rows < row_stop
    b_col_in = b_cols < col_stop
    slope = load_slope(formula)
    b_col_shift = load_offset(formula, b_cols, b_col_in)
    opened = open_tile(positives, exclude, b_rows, b_row_in, column, num_labels, shape.COLS)
    local, local_column = row - row_start, column - col_start

    b_raw = tl.zeros((shape.ROWS, shape.COLS), tl.float32)
    for n in range(num_widths):
        b_raw = add_width(b_raw, b_q_ptrs, b_k_ptrs, widths_ptr, n, shape)
        wide = num_queries * 0 + n  # 64 bits; the interpreter counts in plain numbers
        b_at = wide * num_queries + b_rows
        b_column_at = wide * num_labels + b_inside
        b_scores = scale_tile(b_raw, scales, b_at, b_column_at, b_row_in)
        numbers = load_numbers(b_at, b_rows, b_row_in, formula)
        b_limit = tile_limits(guard, b_at, b_column_at, b_row_in, b_col_in)
        # Masks would not stay in registers from one width to the next: they are made again.
        b_total = tile_coefficients(
            b_scores, opened, positives, exclude, column, num_labels, b_limit, numbers,
            load_scales(slope, formula, margins, n), b_col_shift, b_col_in, b_col_shift, formula,
            margins, columns, guard.KIND, False, shape,
        )[0]  # fmt: skip
        plane_ptr = space.ptr + wide * out_rows * space.stride
        store_tile(plane_ptr, local, local_column, space.stride, b_total, shape)
