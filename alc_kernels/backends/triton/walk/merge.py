"""The splits' partial results of a walk, combined into one number per row.

Splits are contiguous column ranges in ascending order, so "smaller label" among equal scores is
"earlier split". A program owns ROWS queries; the number of splits is an ordinary argument.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.launch import given_or
from alc_kernels.backends.triton.tile.arithmetic import LN_2, join_exp_sums
from alc_kernels.backends.triton.walk.topk import TopLists
from alc_kernels.engine.interface import WalkRequest


class Wanted(NamedTuple):
    """What a walk is asked for, lists apart, as a kernel argument."""

    HARDEST: tl.constexpr
    SOFTMAX: tl.constexpr  # "none", "all" or "negatives"
    HAS_OFFSET: tl.constexpr
    SIGMOID: tl.constexpr
    POS_MARGIN: tl.constexpr
    NEG_MARGIN: tl.constexpr
    offset_ptr: Tensor  # (M,) float32, HAS_OFFSET only
    inverse_temperature_ptr: Tensor  # 0-d float32, SOFTMAX only
    scale_ptr: Tensor  # 0-d float32, SIGMOID only
    bias_ptr: Tensor
    positive_margin: float
    negative_margin: float


def wanted_argument(request: WalkRequest, unused: Tensor) -> Wanted:
    """The argument for a request; ``unused`` stands for what the kernel does not read."""
    return Wanted(
        tl.constexpr(request.hardest_positive),
        tl.constexpr(request.softmax or "none"),
        tl.constexpr(request.softmax is not None and request.label_offset is not None),
        tl.constexpr(request.sigmoid),
        tl.constexpr(request.positive_margin is not None),
        tl.constexpr(request.negative_margin is not None),
        given_or(request.label_offset, unused),
        given_or(request.inverse_temperature, unused),
        given_or(request.scale, unused),
        given_or(request.bias, unused),
        float(request.positive_margin or 0.0),
        float(request.negative_margin or 0.0),
    )


@triton.jit
def load_terms(wanted):
    """(inverse temperature, scale, bias), 1, 1 and 0 where they are not used."""
    inverse_temperature = 1.0
    scale = 1.0
    bias = 0.0
    if wanted.SOFTMAX != "none":
        inverse_temperature = tl.load(wanted.inverse_temperature_ptr)
    if wanted.SIGMOID:
        scale = tl.load(wanted.scale_ptr)
        bias = tl.load(wanted.bias_ptr)
    return inverse_temperature, scale, bias


@triton.jit
def _merge_lists(
    lists, score_ptr, label_ptr, b_rows, b_row_in, row_start, num_rows, splits, width,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Order the lists of all splits: score descending, equal scores by smaller label.

    Round by round the best entry that comes after the previous one in that order; its lists are
    read again each round (they stay in the cache), so no number of splits is too large.
    """
    b_slot = tl.arange(0, lists.SLOTS)[None, :]
    b_read = b_row_in[:, None] & (b_slot < lists.TOP)
    b_last = tl.full((ROWS,), float("inf"), tl.float32)
    b_last_label = tl.full((ROWS,), -1, tl.int64)
    for rank in range(lists.TOP):
        b_best = tl.full((ROWS,), float("-inf"), tl.float32)
        b_label = tl.full((ROWS,), -1, tl.int64)
        for split in range(splits):
            b_at = (split * num_rows + b_rows)[:, None] * lists.SLOTS + b_slot
            b_value = tl.load(lists.value_ptr + b_at, mask=b_read, other=float("-inf"))
            b_column = tl.load(lists.index_ptr + b_at, mask=b_read, other=-1)
            b_column_label = b_column.to(tl.int64) + split * width
            b_tied = (b_value == b_last[:, None]) & (b_column_label > b_last_label[:, None])
            b_open = (b_column >= 0) & ((b_value < b_last[:, None]) | b_tied)
            b_value = tl.where(b_open, b_value, float("-inf"))
            b_high = tl.max(b_value, 1)
            b_first = b_open & (b_value == b_high[:, None])
            b_first_label = tl.min(tl.where(b_first, b_column_label, 2**62), 1)
            b_better = b_high > b_best
            b_best = tl.where(b_better, b_high, b_best)
            b_label = tl.where(b_better, b_first_label, b_label)
        b_out = (row_start + b_rows) * lists.TOP + rank
        tl.store(score_ptr + b_out, b_best, mask=b_row_in)
        tl.store(label_ptr + b_out, b_label, mask=b_row_in)
        # A row that has run out stays at -inf, below which nothing is found.
        b_last = b_best
        b_last_label = b_label


@triton.jit(do_not_specialize=["num_queries", "row_start", "num_rows", "splits", "width"])
def merge_kernel(
    lists: TopLists,
    wanted: Wanted,
    float_ptr,  # the slots, see below
    int_ptr,
    score_ptr,
    label_ptr,
    out_float_ptr,
    out_int_ptr,
    num_queries,
    row_start,
    num_rows,
    splits,
    width,
    ROWS: tl.constexpr,
):
    """Combine the slots of a ``walk_kernel`` over num_rows rows; ``width``: columns of a split.

    Results go to the rows from row_start on, of num_queries in all:
    out_float (6, B): hardest positive, log-sum-exp, sum of z, sigmoid, positive and negative
    threshold sums. out_int (5, B) int64: as the partial slots, with the label of the hardest
    positive. score and label (B, TOP).
    """
    num_queries = num_queries.to(tl.int64)
    width = width.to(tl.int64)
    b_rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row_start = row_start.to(tl.int64)
    num_rows = num_rows.to(tl.int64)
    b_row_in = b_rows < num_rows
    plane = num_rows * splits

    b_zero = tl.zeros((ROWS,), tl.float32)
    b_none = tl.zeros((ROWS,), tl.int64)
    b_positives = b_none
    b_negatives = b_none
    b_below_count = b_none
    b_above_count = b_none
    b_below = b_zero
    b_above = b_zero
    b_score = b_zero + float("inf")
    b_label = b_none - 1
    b_max = b_zero - float("inf")
    b_sum = b_zero
    b_logits = b_zero
    b_sigmoid = b_zero
    for split in range(splits):
        b_ints = int_ptr + split * num_rows + b_rows
        b_floats = float_ptr + split * num_rows + b_rows
        b_positives += tl.load(b_ints, mask=b_row_in, other=0)
        b_negatives += tl.load(b_ints + plane, mask=b_row_in, other=0)
        if wanted.POS_MARGIN:
            b_below_count += tl.load(b_ints + 2 * plane, mask=b_row_in, other=0)
            b_below += tl.load(b_floats + 5 * plane, mask=b_row_in, other=0.0)
        if wanted.NEG_MARGIN:
            b_above_count += tl.load(b_ints + 3 * plane, mask=b_row_in, other=0)
            b_above += tl.load(b_floats + 6 * plane, mask=b_row_in, other=0.0)
        if wanted.HARDEST:
            b_other = tl.load(b_floats, mask=b_row_in, other=float("inf"))
            b_at = tl.load(b_ints + 4 * plane, mask=b_row_in, other=-1).to(tl.int64)
            b_better = b_other < b_score
            b_score = tl.where(b_better, b_other, b_score)
            b_label = tl.where(b_better, b_at + split * width, b_label)
        if wanted.SOFTMAX != "none":
            b_other = tl.load(b_floats + plane, mask=b_row_in, other=float("-inf"))
            b_other_sum = tl.load(b_floats + 2 * plane, mask=b_row_in, other=0.0)
            b_max, b_sum = join_exp_sums(b_max, b_sum, b_other, b_other_sum)
            b_logits += tl.load(b_floats + 3 * plane, mask=b_row_in, other=0.0)
        if wanted.SIGMOID:
            b_sigmoid += tl.load(b_floats + 4 * plane, mask=b_row_in, other=0.0)

    b_ints = out_int_ptr + row_start + b_rows
    b_floats = out_float_ptr + row_start + b_rows
    tl.store(b_ints, b_positives, mask=b_row_in)
    tl.store(b_ints + num_queries, b_negatives, mask=b_row_in)
    if wanted.POS_MARGIN:
        tl.store(b_ints + 2 * num_queries, b_below_count, mask=b_row_in)
        tl.store(b_floats + 4 * num_queries, b_below, mask=b_row_in)
    if wanted.NEG_MARGIN:
        tl.store(b_ints + 3 * num_queries, b_above_count, mask=b_row_in)
        tl.store(b_floats + 5 * num_queries, b_above, mask=b_row_in)
    if wanted.HARDEST:
        tl.store(b_ints + 4 * num_queries, b_label, mask=b_row_in)
        tl.store(b_floats, b_score, mask=b_row_in)
    if wanted.SOFTMAX != "none":
        # An empty set has b_sum = 0 and b_max = -inf.
        b_lse = (b_max + tl.log2(tl.where(b_sum == 0.0, 1.0, b_sum))) * LN_2
        tl.store(b_floats + num_queries, b_lse, mask=b_row_in)
        tl.store(b_floats + 2 * num_queries, b_logits, mask=b_row_in)
    if wanted.SIGMOID:
        tl.store(b_floats + 3 * num_queries, b_sigmoid, mask=b_row_in)
    if lists.TOP > 0:
        _merge_lists(
            lists, score_ptr, label_ptr, b_rows, b_row_in, row_start, num_rows, splits, width, ROWS
        )


# What a walk leaves of a row: numbers in slots, which ``merge`` adds up over the column ranges.
#
# A slot is a plane of (splits, rows of the launch); a walk over several widths has all of them per
# width. NUM_FLOATS slots of float32, then NUM_INTS of int32:
#
#     float  0 hardest positive, 1 and 2 log-sum-exp (base 2) maximum and sum, 3 sum of z,
#            4 sigmoid, 5 positive threshold sum, 6 negative threshold sum
#     int    0 positives, 1 negatives, 2 and 3 active counts of the thresholds, 4 hardest
#            positive's column, counted from the split's first


NUM_FLOATS = tl.constexpr(7)
NUM_INTS = tl.constexpr(5)


@triton.jit
def load_slot(ptr, plane, slot: tl.constexpr, b_at, b_row_in, fresh, empty):
    """(R,) a slot of the partial results; ``empty`` where ``fresh``, before the first tile."""
    return tl.where(fresh, empty, tl.load(ptr + slot * plane + b_at, mask=b_row_in, other=0))


@triton.jit
def load_state(float_ptr, int_ptr, plane, b_at, b_row_in, fresh, empty, wanted):
    """The state of the positives (``positives.no_positives``: ``empty``) out of its slots."""
    b_count, b_score, b_column, b_logits, b_max, b_sum, b_sigmoid, b_below, b_active = empty
    b_count = load_slot(int_ptr, plane, 0, b_at, b_row_in, fresh, b_count)
    if wanted.HARDEST:
        b_score = load_slot(float_ptr, plane, 0, b_at, b_row_in, fresh, b_score)
        b_column = load_slot(int_ptr, plane, 4, b_at, b_row_in, fresh, b_column)
    if wanted.SOFTMAX != "none":
        b_max = load_slot(float_ptr, plane, 1, b_at, b_row_in, fresh, b_max)
        b_sum = load_slot(float_ptr, plane, 2, b_at, b_row_in, fresh, b_sum)
        b_logits = load_slot(float_ptr, plane, 3, b_at, b_row_in, fresh, b_logits)
    if wanted.SIGMOID:
        b_sigmoid = load_slot(float_ptr, plane, 4, b_at, b_row_in, fresh, b_sigmoid)
    if wanted.POS_MARGIN:
        b_below = load_slot(float_ptr, plane, 5, b_at, b_row_in, fresh, b_below)
        b_active = load_slot(int_ptr, plane, 2, b_at, b_row_in, fresh, b_active)
    return b_count, b_score, b_column, b_logits, b_max, b_sum, b_sigmoid, b_below, b_active


@triton.jit
def store_slots(
    float_ptr,
    int_ptr,
    plane,
    b_at,  # (R,) int64 place in a plane
    b_row_in,
    state,  # of the positives, see ``positives``; the sums hold the negatives' as well
    b_negatives,
    b_over,  # negative threshold sum and active count, NEG_MARGIN only
    b_active,
    wanted,
):
    """Write the slots that these options use."""
    b_count, b_score, b_column, b_logits, b_max, b_sum, b_sigmoid, b_below, b_pos_active = state
    tl.store(int_ptr + b_at, b_count, mask=b_row_in)
    tl.store(int_ptr + plane + b_at, b_negatives, mask=b_row_in)
    if wanted.POS_MARGIN:
        tl.store(int_ptr + 2 * plane + b_at, b_pos_active, mask=b_row_in)
        tl.store(float_ptr + 5 * plane + b_at, b_below, mask=b_row_in)
    if wanted.NEG_MARGIN:
        tl.store(int_ptr + 3 * plane + b_at, b_active, mask=b_row_in)
        tl.store(float_ptr + 6 * plane + b_at, b_over, mask=b_row_in)
    if wanted.HARDEST:
        tl.store(float_ptr + b_at, b_score, mask=b_row_in)
        tl.store(int_ptr + 4 * plane + b_at, b_column, mask=b_row_in)
    if wanted.SOFTMAX != "none":
        tl.store(float_ptr + plane + b_at, b_max, mask=b_row_in)
        tl.store(float_ptr + 2 * plane + b_at, b_sum, mask=b_row_in)
        tl.store(float_ptr + 3 * plane + b_at, b_logits, mask=b_row_in)
    if wanted.SIGMOID:
        tl.store(float_ptr + 4 * plane + b_at, b_sigmoid, mask=b_row_in)
