"""What a walk leaves of a row: numbers in slots, which ``merge`` adds up over the column ranges.

A slot is a plane of (splits, rows of the launch); a walk over several widths has all of them per
width. NUM_FLOATS slots of float32, then NUM_INTS of int32:

    float  0 hardest positive, 1 and 2 log-sum-exp (base 2) maximum and sum, 3 sum of z,
           4 sigmoid, 5 positive threshold sum, 6 negative threshold sum
    int    0 positives, 1 negatives, 2 and 3 active counts of the thresholds, 4 hardest
           positive's column, counted from the split's first
"""

import triton
import triton.language as tl

NUM_FLOATS = tl.constexpr(7)
NUM_INTS = tl.constexpr(5)


@triton.jit
def load_slot(ptr, plane, slot: tl.constexpr, b_at, b_row_in, fresh, empty):
    """(R,) a slot of the partial results; ``empty`` where ``fresh``, before the first tile."""
    return tl.where(fresh, empty, tl.load(ptr + slot * plane + b_at, mask=b_row_in, other=0))


@triton.jit
def store_slots(
    float_ptr,
    int_ptr,
    plane,
    b_at,  # (R,) int64 place in a plane
    b_row_in,
    state,  # of the positives, see positive_statistics; the sums hold the negatives' as well
    b_negatives,
    b_over,  # negative threshold sum and active count, NEG_MARGIN only
    b_active,
    HARDEST: tl.constexpr,
    SOFTMAX: tl.constexpr,
    SIGMOID: tl.constexpr,
    POS_MARGIN: tl.constexpr,
    NEG_MARGIN: tl.constexpr,
):
    """Write the slots that these options use."""
    b_count, b_score, b_column, b_logits, b_max, b_sum, b_sigmoid, b_below, b_pos_active = state
    tl.store(int_ptr + b_at, b_count, mask=b_row_in)
    tl.store(int_ptr + plane + b_at, b_negatives, mask=b_row_in)
    if POS_MARGIN:
        tl.store(int_ptr + 2 * plane + b_at, b_pos_active, mask=b_row_in)
        tl.store(float_ptr + 5 * plane + b_at, b_below, mask=b_row_in)
    if NEG_MARGIN:
        tl.store(int_ptr + 3 * plane + b_at, b_active, mask=b_row_in)
        tl.store(float_ptr + 6 * plane + b_at, b_over, mask=b_row_in)
    if HARDEST:
        tl.store(float_ptr + b_at, b_score, mask=b_row_in)
        tl.store(int_ptr + 4 * plane + b_at, b_column, mask=b_row_in)
    if SOFTMAX != "none":
        tl.store(float_ptr + plane + b_at, b_max, mask=b_row_in)
        tl.store(float_ptr + 2 * plane + b_at, b_sum, mask=b_row_in)
        tl.store(float_ptr + 3 * plane + b_at, b_logits, mask=b_row_in)
    if SIGMOID:
        tl.store(float_ptr + 4 * plane + b_at, b_sigmoid, mask=b_row_in)
