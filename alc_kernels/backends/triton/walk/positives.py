"""Statistics over the positives of a tile, and the removal of pairs that are no negatives.

Few tiles hold a positive or an excluded pair, so this is off the hot path. Pairs are visited one
per row at a time: the similarity is read out of the tile, the statistics are updated with one
value per row, and the element is set to -inf, which is how the rest of the walk knows that it is
not a negative. No mask of the tile is ever held, which would cost as many registers as the tile.
"""

import triton
import triton.language as tl

from alc_kernels.backends.triton.tile.arithmetic import LOG2_E, LOWEST, join_exp_sums, softplus
from alc_kernels.backends.triton.tile.bits import WORD
from alc_kernels.backends.triton.tile.negatives import drop_pairs
from alc_kernels.backends.triton.tile.relation import any_row, next_entry


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
def add_positives(state, b_s, b_hit, b_column, b_offset, wanted, terms):
    """Add one positive to each row in b_hit: its similarity, column and label offset, all (R,)."""
    b_count, b_score, b_index, b_logits, b_max, b_sum, b_sigmoid, b_over, b_active = state
    inverse_temperature, scale, bias = terms
    b_count += b_hit.to(tl.int32)
    if wanted.HARDEST:
        # Columns ascend from call to call: an equal score further on has the larger label.
        b_better = b_hit & (b_s < b_score)
        b_score = tl.where(b_better, b_s, b_score)
        b_index = tl.where(b_better, b_column, b_index)
    if wanted.SOFTMAX != "none":
        b_z = b_s * inverse_temperature + b_offset
        b_logits += tl.where(b_hit, b_z, 0.0)
        if wanted.SOFTMAX == "all":
            b_z = tl.where(b_hit, b_z * LOG2_E, float("-inf"))
            b_max, b_sum = join_exp_sums(b_max, b_sum, b_z, 1.0)
    if wanted.SIGMOID:
        b_sigmoid += tl.where(b_hit, softplus(-(scale * b_s + bias)), 0.0)
    if wanted.POS_MARGIN:
        b_below = b_hit & (b_s <= wanted.positive_margin)
        b_over += tl.where(b_below, wanted.positive_margin - b_s, 0.0)
        b_active += b_below.to(tl.int32)
    return b_count, b_score, b_index, b_logits, b_max, b_sum, b_sigmoid, b_over, b_active


@triton.jit
def take_positives(
    positives, b_end, at, state, b_s, column, first, wanted, terms, COLS: tl.constexpr
):
    """Move the positives of the tile at ``column`` from b_s (R, COLS) into the state.

    ``first``: the tile's first column counted from the program's. Returns (state, b_s, at).
    """
    b_key, b_next, _next = at
    b_local = tl.arange(0, COLS)[None, :]
    b_here = b_next < column + COLS
    more = any_row(b_here)
    while more:
        b_at = tl.where(b_here, b_next - column, -1).to(tl.int32)
        b_is = b_at[:, None] == b_local
        b_value = tl.max(tl.where(b_is, b_s, float("-inf")), 1)
        b_offset = tl.zeros_like(b_value)
        if wanted.HAS_OFFSET:
            b_offset = tl.load(wanted.offset_ptr + b_next, mask=b_here, other=0.0)
        state = add_positives(state, b_value, b_here, first + b_at, b_offset, wanted, terms)
        b_s = tl.where(b_is, float("-inf"), b_s)
        b_key, b_next = next_entry(positives, b_key, b_end, b_next, b_here)
        b_here = b_next < column + COLS
        more = any_row(b_here)
    return state, b_s, (b_key, b_next, tl.min(b_next, 0))


@triton.jit
def pack_active_positives(
    positives, b_end, at, b_s, column, margin, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """(ROWS, COLS / 32) int32: bits of the tile's positives with s <= margin (``bits``).

    The rows stay where they are: ``take_positives`` visits the same pairs afterwards.
    """
    b_key, b_next, _next = at
    b_local = tl.arange(0, COLS)[None, :]
    b_word = tl.arange(0, COLS // WORD)[None, :]
    b_words = tl.zeros((ROWS, COLS // WORD), tl.int32)
    b_here = b_next < column + COLS
    more = any_row(b_here)
    while more:
        b_at = tl.where(b_here, b_next - column, -1).to(tl.int32)
        b_value = tl.max(tl.where(b_at[:, None] == b_local, b_s, float("-inf")), 1)
        b_hit = b_here & (b_value <= margin)
        b_bit = tl.full((ROWS,), 1, tl.int32) << (b_at & (WORD - 1))
        b_own = b_hit[:, None] & ((b_at // WORD)[:, None] == b_word)
        b_words |= tl.where(b_own, b_bit[:, None], 0)
        b_key, b_next = next_entry(positives, b_key, b_end, b_next, b_here)
        b_here = b_next < column + COLS
        more = any_row(b_here)
    return b_words


@triton.jit
def settle_tile(
    b_s,
    state,
    positives,
    positive_rows,  # what ``open_rows`` returns, moved on to this tile
    has_positive,
    exclude,
    excluded_rows,
    has_excluded,
    column,
    first,
    num_labels,
    wanted,
    terms,
    PACK: tl.constexpr,
    shape,
):
    """Take out of a tile what is no negative, which -inf means from here on.

    Returns (b_s, state, the positives' at, the excluded pairs' at, elements taken out of each
    row, bits of the active positives: PACK only).
    """
    b_positive_end, positive_at = positive_rows
    b_excluded_end, excluded_at = excluded_rows
    b_words = b_positive_end
    if PACK:
        b_words = tl.zeros((shape.ROWS, shape.COLS // WORD), tl.int32)
    b_s = tl.maximum(b_s, LOWEST)  # a similarity that overflowed is a negative
    if positives.kind != "empty":
        if has_positive:
            if PACK:
                b_words = pack_active_positives(
                    positives, b_positive_end, positive_at, b_s, column, wanted.positive_margin,
                    shape.ROWS, shape.COLS,
                )  # fmt: skip
            state, b_s, positive_at = take_positives(
                positives, b_positive_end, positive_at, state, b_s, column, first, wanted, terms,
                shape.COLS,
            )  # fmt: skip
    if exclude.kind != "empty":
        if has_excluded:
            b_s, excluded_at = drop_pairs(
                exclude, b_excluded_end, excluded_at, b_s, column, shape.COLS
            )
    b_in = column + tl.arange(0, shape.COLS) < num_labels
    b_s = tl.where(b_in[None, :], b_s, float("-inf"))
    b_removed = tl.sum((b_s == float("-inf")).to(tl.int32), 1)
    return b_s, state, positive_at, excluded_at, b_removed, b_words
