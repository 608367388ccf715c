"""After a chunk's exponentials: row sums, the factor that makes them probabilities, positives.

With E = 2^(z - reference), N = sum of a row's E over the negatives and A = N + the positives'
sum, the row's coefficients are a factor times what stands in the workspace:

    softmax    factor = row_scale / (T A)              positive: e_p - A / P
    decoupled  factor = row_scale sum_p sigma_p / (T P N)   positive: -N sigma_p / sum_p sigma_p
               sigma_p = N / (N + e_p) = sigmoid(lse_N - z_p)

With one positive both are factor = row_scale / (T A), positive: -N. That is the sum of the
others, so nothing cancels, however close to 1 the positive's probability is.
"""

from __future__ import annotations

import triton
import triton.language as tl

from alc_kernels.backends.triton.one_pass.positive_logits import pair_products
from alc_kernels.backends.triton.tile.arithmetic import LN_2, LOG2_E, rounded, sigmoid, softplus
from alc_kernels.backends.triton.tile.relation import NO_COLUMN, any_row, next_entry, open_rows

ROWS = 16
TILES = 64  # partial sums that are added at a time
NUM_WARPS = 4


@triton.jit(
    do_not_specialize=[
        "num_queries",
        "num_labels",
        "row_start",
        "row_stop",
        "num_col_tiles",
        "out_rows",
    ]
)
def row_factors_kernel(
    queries_ptr,  # (B, d)
    labels_ptr,  # (M, d)
    positive_row_ptr,  # see relation.py
    positive_col_ptr,
    slope_ptr,  # 0-d float32
    offset_ptr,  # (M,) float32, HAS_OFFSET only
    bias_ptr,  # 0-d float32, sigmoid
    row_ptr,  # (B,) float32: as in exponentials_kernel
    reference_ptr,  # (out_rows,) float32: settled, softmax kinds
    own_sum_ptr,  # (B,) float32: sum over the positives of 2^(z - largest), softmax kinds
    num_positives_ptr,  # (B,) int64, softmax kinds
    row_scale_ptr,  # (B,) float32
    partial_ptr,  # (2 or with SCALARS 4, column tiles, out_rows) float32: of exponentials_kernel
    out_ptr,  # (out_rows, out_stride): its workspace; the positives are written
    sum_ptr,  # (B,) float32: log-sum-exp, or the sigmoid's sum
    factor_ptr,  # (out_rows,) float32: written, softmax kinds
    weighted_ptr,  # (B,) float32: sum of g s, SCALARS only
    plain_ptr,  # (B,) float32: sum of g, SCALARS and sigmoid only
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
    HAS_OFFSET: tl.constexpr,
    SCALARS: tl.constexpr,
    ONE: tl.constexpr,  # every row has exactly one positive
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Finish the rows of one chunk. Rows of row_scale 0 get a factor and coefficients of 0."""
    b_local = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    b_rows = row_start + b_local.to(tl.int64)
    b_row_in = b_rows < row_stop
    b_sum = tl.zeros((ROWS,), tl.float32)
    b_weighted = b_sum
    b_plain = b_sum
    plane = num_col_tiles.to(tl.int64) * out_rows
    for first in range(0, num_col_tiles, TILES):
        b_tile = first + tl.arange(0, TILES)
        b_at = partial_ptr + b_tile.to(tl.int64)[:, None] * out_rows + b_local[None, :]
        b_in = (b_tile < num_col_tiles)[:, None] & b_row_in[None, :]
        b_sum += tl.sum(tl.load(b_at, mask=b_in, other=0.0), 0)
        if SCALARS:
            b_weighted += tl.sum(tl.load(b_at + 2 * plane, mask=b_in, other=0.0), 0)
            if KIND == "sigmoid":
                b_plain += tl.sum(tl.load(b_at + 3 * plane, mask=b_in, other=0.0), 0)

    slope = tl.load(slope_ptr)
    bias = 0.0
    b_row_scale = tl.load(row_scale_ptr + b_rows, mask=b_row_in, other=0.0)
    b_counts = b_row_scale != 0
    b_factor_of_row = b_sum
    b_reference = b_sum
    b_own = b_sum
    b_share = b_sum
    b_one = b_counts
    if KIND == "sigmoid":
        bias = tl.load(bias_ptr)
        b_factor_of_row = tl.load(row_ptr + b_rows, mask=b_row_in, other=0.0)
    else:
        b_reference = tl.load(reference_ptr + b_local, mask=b_row_in, other=0.0)
        b_largest = tl.load(row_ptr + b_rows, mask=b_row_in, other=float("-inf"))
        b_own = tl.load(own_sum_ptr + b_rows, mask=b_row_in, other=0.0)
        b_own = tl.where(b_own > 0, b_own * tl.exp2(b_largest - b_reference), 0.0)
        b_number = tl.load(num_positives_ptr + b_rows, mask=b_row_in, other=1)
        b_share = 1.0 / tl.maximum(b_number, 1).to(tl.float32)
        b_one = b_number == 1
    b_total = b_sum + b_own
    b_open = b_sum > 0  # there is a negative that counts

    b_sigma_sum = tl.zeros((ROWS,), tl.float32)
    if KIND == "decoupled" and not ONE:
        b_key, b_end, b_next, _next = open_rows(
            POSITIVES, positive_row_ptr, positive_col_ptr, b_rows, b_row_in, tl.zeros((), tl.int64)
        )
        b_here = b_next < NO_COLUMN
        more = any_row(b_here)
        while more:
            b_label = tl.where(b_here, b_next, 0)
            b_s = pair_products(queries_ptr, labels_ptr, b_rows, b_label, b_here, d, DEPTH)
            b_z = b_s * (slope * LOG2_E)
            if HAS_OFFSET:
                b_z += tl.load(offset_ptr + b_label, mask=b_here, other=0.0) * LOG2_E
            b_sigma = b_sum / (b_sum + tl.exp2(b_z - b_reference))
            b_sigma_sum += tl.where(b_here & b_open, b_sigma, 0.0)
            b_key, b_next = next_entry(POSITIVES, positive_col_ptr, b_key, b_end, b_next, b_here)
            b_here = b_next < NO_COLUMN
            more = any_row(b_here)

    b_factor = b_row_scale
    if KIND != "sigmoid":
        b_factor = tl.where(b_counts & (b_total > 0), b_row_scale / b_total, 0.0)
        if KIND == "decoupled" and not ONE:
            b_several = tl.where(b_open, b_row_scale * (b_sigma_sum * b_share) / b_sum, 0.0)
            b_factor = tl.where(b_one, b_factor, tl.where(b_counts, b_several, 0.0))

    b_key, b_end, b_next, _next = open_rows(
        POSITIVES, positive_row_ptr, positive_col_ptr, b_rows, b_row_in, tl.zeros((), tl.int64)
    )
    b_here = b_next < num_labels
    more = any_row(b_here)
    while more:
        b_label = tl.where(b_here, b_next, 0)
        b_entry = -b_sum
        b_s = b_sum
        if SCALARS or not ONE or KIND == "sigmoid":
            b_s = pair_products(queries_ptr, labels_ptr, b_rows, b_label, b_here, d, DEPTH)
        if KIND == "sigmoid":
            b_x = slope * b_s + bias
            b_sum += tl.where(b_here, softplus(-b_x), 0.0)
            b_entry = -sigmoid(-b_x)
            if SCALARS:
                b_plain += tl.where(b_here, b_entry, 0.0)
        elif not ONE:
            b_z = b_s * (slope * LOG2_E)
            if HAS_OFFSET:
                b_z += tl.load(offset_ptr + b_label, mask=b_here, other=0.0) * LOG2_E
            b_e = tl.exp2(b_z - b_reference)
            if KIND == "softmax":
                b_several = b_e - b_total * b_share
            else:
                b_several = -b_sum * (b_sum / (b_sum + b_e)) / b_sigma_sum
                b_several = tl.where(b_sigma_sum > 0, b_several, 0.0)
            b_entry = tl.where(b_one, b_entry, b_several)
        b_entry = tl.where(b_counts, b_entry, 0.0)
        if SCALARS:
            b_weighted += tl.where(b_here, b_entry * b_s, 0.0)
        b_value = b_entry
        if KIND == "sigmoid":
            b_value = b_entry * b_factor_of_row
        b_at = out_ptr + b_local.to(tl.int64) * out_stride + b_label
        tl.store(b_at, rounded(b_value, out_ptr.dtype.element_ty), mask=b_here)
        b_key, b_next = next_entry(POSITIVES, positive_col_ptr, b_key, b_end, b_next, b_here)
        b_here = b_next < num_labels
        more = any_row(b_here)

    if SCALARS:
        b_weighted = tl.where(b_factor != 0, b_factor * b_weighted, 0.0)
        tl.store(weighted_ptr + b_rows, b_weighted, mask=b_row_in)
        if KIND == "sigmoid":
            tl.store(plain_ptr + b_rows, b_factor * b_plain, mask=b_row_in)
    if KIND == "sigmoid":
        tl.store(sum_ptr + b_rows, b_sum, mask=b_row_in)
    else:
        b_found = b_sum
        if KIND == "softmax":
            b_found = b_total
        b_lse = (b_reference + tl.log2(tl.where(b_found > 0, b_found, 1.0))) * LN_2
        b_lse = tl.where(b_found > 0, b_lse, float("-inf"))
        tl.store(sum_ptr + b_rows, b_lse, mask=b_row_in)
        tl.store(factor_ptr + b_local, b_factor * slope, mask=b_row_in)
