"""Statistics over the positives of a tile, and the removal of pairs that are no negatives.

Few tiles hold a positive or an excluded pair, so this is off the hot path. Pairs of index,
diagonal and csr relations are visited one per row at a time: the similarity is read out of the
tile, the statistics are updated with one value per row, and the element is set to -inf, which
is how the rest of the walk knows that it is not a negative. Ids are compared over the whole tile.
No mask of the tile is ever held, which would cost as many registers as the tile.
"""

import triton
import triton.language as tl

from alc_kernels.backends.triton_backend.arithmetic import LOG2_E, grow_exp_sum, softplus
from alc_kernels.backends.triton_backend.relation import any_row, next_entry, same_ids


@triton.jit
def no_positives(ROWS: tl.constexpr):
    """The state of rows without a positive.

    (count, hardest score, its column, sum of z, log-sum-exp maximum and sum, sigmoid sum,
    threshold sum, threshold count), each (ROWS,).
    """
    b_zero = tl.zeros((ROWS,), tl.float32)
    b_none = tl.zeros((ROWS,), tl.int32)
    b_inf = b_zero + float("inf")
    return b_none, b_inf, b_none - 1, b_zero, b_zero - float("inf"), b_zero, b_zero, b_zero, b_none


@triton.jit
def add_positives(
    state,
    b_s,
    b_hit,
    b_column,
    b_offset,
    inverse_temperature,
    scale,
    bias,
    margin,
    HARDEST: tl.constexpr,
    SOFTMAX: tl.constexpr,
    SIGMOID: tl.constexpr,
    MARGIN: tl.constexpr,
):
    """Add the elements (R, C) of b_s where b_hit; b_column their columns, b_offset their offsets."""
    b_count, b_score, b_index, b_logits, b_max, b_sum, b_sigmoid, b_over, b_active = state
    b_count += tl.sum(b_hit.to(tl.int32), 1)
    if HARDEST:
        b_value = tl.where(b_hit, b_s, float("inf"))
        b_least = tl.min(b_value, 1)
        b_tied = b_hit & (b_value == b_least[:, None])
        b_at = tl.min(tl.where(b_tied, b_column, 2**31 - 1), 1)
        # Columns ascend from call to call: an equal score further on has the larger label.
        b_better = b_least < b_score
        b_score = tl.where(b_better, b_least, b_score)
        b_index = tl.where(b_better, b_at, b_index)
    if SOFTMAX != "none":
        b_z = b_s * inverse_temperature + b_offset
        b_logits += tl.sum(tl.where(b_hit, b_z, 0.0), 1)
        if SOFTMAX == "all":
            b_z = tl.where(b_hit, b_z * LOG2_E, float("-inf"))
            b_max, b_sum = grow_exp_sum(b_max, b_sum, b_z, tl.max(b_z, 1))
    if SIGMOID:
        b_sigmoid += tl.sum(tl.where(b_hit, softplus(-(scale * b_s + bias)), 0.0), 1)
    if MARGIN:
        b_below = b_hit & (b_s <= margin)
        b_over += tl.sum(tl.where(b_below, margin - b_s, 0.0), 1)
        b_active += tl.sum(b_below.to(tl.int32), 1)
    return b_count, b_score, b_index, b_logits, b_max, b_sum, b_sigmoid, b_over, b_active


@triton.jit
def take_positives(
    KIND: tl.constexpr,
    col_ptr,
    b_key,
    b_end,
    b_next,
    state,
    b_s,
    column,
    first,
    num_columns,
    offset_ptr,
    inverse_temperature,
    scale,
    bias,
    margin,
    HARDEST: tl.constexpr,
    SOFTMAX: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    SIGMOID: tl.constexpr,
    MARGIN: tl.constexpr,
    COLS: tl.constexpr,
):
    """Move the positives of the tile at ``column`` from b_s (R, COLS) into the state.

    ``first``: the tile's first column counted from the program's. Returns
    (state, b_s, b_key, b_next, next_column).
    """
    b_local = tl.arange(0, COLS)[None, :]
    if KIND == "ids":
        b_hit = same_ids(col_ptr, b_key, column, num_columns, COLS)
        b_offset = tl.zeros((1, COLS), tl.float32)
        if HAS_OFFSET:
            b_in = column + b_local < num_columns
            b_offset = tl.load(offset_ptr + column + b_local, mask=b_in, other=0.0)
        state = add_positives(
            state, b_s, b_hit, first + b_local, b_offset, inverse_temperature, scale, bias,
            margin, HARDEST, SOFTMAX, SIGMOID, MARGIN,
        )  # fmt: skip
        b_s = tl.where(b_hit, float("-inf"), b_s)
    else:
        b_here = b_next < column + COLS
        more = any_row(b_here)
        while more:
            b_at = tl.where(b_here, b_next - column, -1).to(tl.int32)[:, None]
            b_value = tl.max(tl.where(b_at == b_local, b_s, float("-inf")), 1)[:, None]
            b_offset = tl.zeros_like(b_value)
            if HAS_OFFSET:
                b_offset = tl.load(offset_ptr + b_next[:, None], mask=b_here[:, None], other=0.0)
            state = add_positives(
                state, b_value, b_here[:, None], first + b_at, b_offset, inverse_temperature,
                scale, bias, margin, HARDEST, SOFTMAX, SIGMOID, MARGIN,
            )  # fmt: skip
            b_s = tl.where(b_at == b_local, float("-inf"), b_s)
            b_key, b_next = next_entry(KIND, col_ptr, b_key, b_end, b_next, b_here)
            b_here = b_next < column + COLS
            more = any_row(b_here)
    return state, b_s, b_key, b_next, tl.min(b_next, 0)


@triton.jit
def drop_pairs(
    KIND: tl.constexpr,
    col_ptr,
    b_key,
    b_end,
    b_next,
    b_s,
    column,
    num_columns,
    COLS: tl.constexpr,
):
    """Set the relation's elements of the tile to -inf. Returns (b_s, b_key, b_next, next_column)."""
    b_local = tl.arange(0, COLS)[None, :]
    if KIND == "ids":
        b_hit = same_ids(col_ptr, b_key, column, num_columns, COLS)
        b_s = tl.where(b_hit, float("-inf"), b_s)
    else:
        b_here = b_next < column + COLS
        more = any_row(b_here)
        while more:
            b_at = tl.where(b_here, b_next - column, -1).to(tl.int32)[:, None]
            b_s = tl.where(b_at == b_local, float("-inf"), b_s)
            b_key, b_next = next_entry(KIND, col_ptr, b_key, b_end, b_next, b_here)
            b_here = b_next < column + COLS
            more = any_row(b_here)
    return b_s, b_key, b_next, tl.min(b_next, 0)
