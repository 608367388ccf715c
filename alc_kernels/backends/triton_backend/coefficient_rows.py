"""What the kernels that write coefficients read per row of a tile."""

import triton
import triton.language as tl

from alc_kernels.backends.triton_backend.arithmetic import LOG2_E


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
