"""The walk: one pass over S = Q K^T that leaves a few numbers per row.

A program owns ROWS queries and a contiguous range of column tiles. Per tile it

1. multiplies (``tile_product``);
2. if the tile can hold a positive or an excluded pair, or reaches past the last label: updates
   the positives' statistics and sets everything that is no negative to -inf;
3. takes the row maxima and, only where they say so, applies the guard, adds to the threshold
   sums, and inserts into the top-k lists;
4. adds to the softmax and sigmoid sums.

So the plain tile costs the product, one maximum per element and what the softmax or sigmoid
need. KEEP_POSITIVE and KEEP_NEGATIVE store the pairs within the margins as bits
(``active_bits``), in every tile, zeros included; MAXIMA stores the maxima of groups of columns
(``selection``) instead of keeping lists. The results of one column range ("split") are written as
they are, to the slots of ``walk_slots``; ``merge`` combines the splits. Nothing depends on the
order in which programs run.
"""

import triton
import triton.language as tl

from alc_kernels.backends.triton.tile.arithmetic import (
    LOWEST,
    add_sigmoid,
    add_softmax,
    join_exp_sums,
)
from alc_kernels.backends.triton.tile.bits import WORD, count_bits, pack_bits, store_words
from alc_kernels.backends.triton.tile.negatives import drop_pairs, guard_limits
from alc_kernels.backends.triton.tile.product import load_rows, product, row_pointers, tile_product
from alc_kernels.backends.triton.tile.relation import any_row, open_rows, tile_may_hold
from alc_kernels.backends.triton.walk.merge import store_slots
from alc_kernels.backends.triton.walk.positives import (
    no_positives,
    pack_active_positives,
    take_positives,
)
from alc_kernels.backends.triton.walk.topk import (
    empty_list,
    insert_tile,
    store_subtile_maxima,
    subtile_maxima,
)


@triton.jit
def _maxima(
    b_s, MAXIMA: tl.constexpr, SUBTILE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """Maxima of a tile's groups of columns, (R, COLS / MAXIMA), and of its rows, (R,).

    The former only where there are several groups in a tile; with SUBTILE those of sub-tiles.
    """
    if SUBTILE > 0:
        b_group = subtile_maxima(b_s, SUBTILE, ROWS, COLS)
        b_row = tl.max(b_group, 1)
    elif MAXIMA == 0 or MAXIMA == COLS:
        b_row = tl.max(b_s, 1)
        b_group = b_row
    else:
        b_group = tl.max(tl.reshape(b_s, (ROWS, COLS // MAXIMA, MAXIMA)), 2)
        b_row = tl.max(b_group, 1)
    return b_group, b_row


@triton.jit(
    do_not_specialize=["row_start", "row_stop", "num_labels", "tiles_per_split", "bits_stride"]
)
def walk_kernel(
    queries_ptr,
    labels_ptr,
    positive_row_ptr,
    positive_col_ptr,
    exclude_row_ptr,
    exclude_col_ptr,
    guard_ptr,
    row_slack_ptr,
    column_slack_ptr,
    offset_ptr,
    inverse_temperature_ptr,
    scale_ptr,
    bias_ptr,
    top_value_ptr,
    top_index_ptr,
    float_ptr,
    int_ptr,
    maxima_ptr,
    positive_bits_ptr,
    negative_bits_ptr,
    row_start,
    row_stop,
    num_labels,
    d,
    tiles_per_split,
    bits_stride,
    positive_margin,
    negative_margin,
    POS_KIND: tl.constexpr,
    EXC_KIND: tl.constexpr,
    GUARD: tl.constexpr,
    TOP: tl.constexpr,
    SLOTS: tl.constexpr,
    HARDEST: tl.constexpr,
    SOFTMAX: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    SIGMOID: tl.constexpr,
    POS_MARGIN: tl.constexpr,
    NEG_MARGIN: tl.constexpr,
    KEEP_POSITIVE: tl.constexpr,
    KEEP_NEGATIVE: tl.constexpr,
    MAXIMA: tl.constexpr,
    SUBTILE: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """The rows row_start .. row_stop. SOFTMAX is "none", "all" or "negatives".

    WHOLE: d <= DEPTH, queries are loaded once. MAXIMA: columns of a group, 0 for none.
    SUBTILE: columns of a sub-tile (``subtiles``), 0 for none; then MAXIMA = TOP = 0.
    """
    row_start = row_start.to(tl.int64)
    row_stop = row_stop.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    num_rows = row_stop - row_start
    row_blocks = tl.cdiv(num_rows, ROWS)
    # Neighbouring programs share the columns: their label tiles meet in the cache.
    split = tl.program_id(0) // row_blocks
    row = row_start + (tl.program_id(0) % row_blocks) * ROWS
    start = split * tiles_per_split * COLS
    num_tiles = tl.minimum(tl.cdiv(num_labels - start, COLS), tiles_per_split).to(tl.int32)

    b_rows = row + tl.arange(0, ROWS)
    b_row_in = b_rows < row_stop
    b_q_ptrs = row_pointers(queries_ptr, row, row_stop, d, ROWS)
    if WHOLE:
        b_q = load_rows(b_q_ptrs, d, DEPTH, EVEN)

    inverse_temperature = 1.0
    scale = 1.0
    bias = 0.0
    if SOFTMAX != "none":
        inverse_temperature = tl.load(inverse_temperature_ptr)
    if SIGMOID:
        scale = tl.load(scale_ptr)
        bias = tl.load(bias_ptr)

    b_pos_key, b_pos_end, b_pos_next, pos_next = open_rows(
        POS_KIND, positive_row_ptr, positive_col_ptr, b_rows, b_row_in, start
    )
    b_exc_key, b_exc_end, b_exc_next, exc_next = open_rows(
        EXC_KIND, exclude_row_ptr, exclude_col_ptr, b_rows, b_row_in, start
    )
    state = no_positives(ROWS)
    b_zero = tl.zeros((ROWS,), tl.float32)
    b_removed = tl.zeros((ROWS,), tl.int32)  # elements of the tiles that are no negatives
    b_active = tl.zeros((ROWS,), tl.int32)
    b_over = b_zero
    b_max = b_zero - float("inf")
    b_sum = b_zero
    b_sigmoid = b_zero
    if GUARD:
        b_guard = tl.load(guard_ptr + b_rows, mask=b_row_in, other=float("inf"))
    if TOP > 0:
        b_values, b_index = empty_list(TOP, ROWS, SLOTS)
    b_local_row = b_rows - row_start

    for tile in range(num_tiles):
        first = tile * COLS
        column = start + first
        b_k_ptrs = row_pointers(labels_ptr, column, num_labels, d, COLS)
        if WHOLE:
            b_k = load_rows(b_k_ptrs, d, DEPTH, EVEN)
            b_s = tl.zeros((ROWS, COLS), tl.float32)
            b_s = product(b_q, tl.trans(b_k), b_s, PRECISION, UPCAST)
        else:
            b_s = tile_product(b_q_ptrs, b_k_ptrs, d, ROWS, COLS, DEPTH, EVEN, PRECISION, UPCAST)

        edge = column + COLS > num_labels
        has_pos = tile_may_hold(
            POS_KIND, positive_col_ptr, b_pos_key, pos_next, column, num_labels, COLS
        )
        has_exc = tile_may_hold(
            EXC_KIND, exclude_col_ptr, b_exc_key, exc_next, column, num_labels, COLS
        )
        if KEEP_POSITIVE:
            b_pos_words = tl.zeros((ROWS, COLS // WORD), tl.int32)
        if edge | has_pos | has_exc:
            # From here on -inf means "no negative"; a similarity that overflowed is not.
            b_s = tl.maximum(b_s, LOWEST)
            if POS_KIND != "empty":
                if has_pos:
                    if KEEP_POSITIVE:
                        b_pos_words = pack_active_positives(
                            POS_KIND, positive_col_ptr, b_pos_key, b_pos_end, b_pos_next, b_s,
                            column, positive_margin, ROWS, COLS,
                        )  # fmt: skip
                    state, b_s, b_pos_key, b_pos_next, pos_next = take_positives(
                        POS_KIND, positive_col_ptr, b_pos_key, b_pos_end, b_pos_next, state, b_s,
                        column, first, offset_ptr, inverse_temperature, scale, bias,
                        positive_margin, HARDEST, SOFTMAX, HAS_OFFSET, SIGMOID, POS_MARGIN, COLS,
                    )  # fmt: skip
            if EXC_KIND != "empty":
                if has_exc:
                    b_s, b_exc_key, b_exc_next, exc_next = drop_pairs(
                        EXC_KIND, exclude_col_ptr, b_exc_key, b_exc_end, b_exc_next, b_s, column,
                        COLS,
                    )  # fmt: skip
            b_in = column + tl.arange(0, COLS) < num_labels
            b_s = tl.where(b_in[None, :], b_s, float("-inf"))
            b_removed += tl.sum((b_s == float("-inf")).to(tl.int32), 1)

        if KEEP_POSITIVE:
            store_words(
                positive_bits_ptr, bits_stride, b_pos_words, column, b_local_row, b_row_in, COLS
            )

        b_group_max, b_tile_max = _maxima(b_s, MAXIMA, SUBTILE, ROWS, COLS)
        if GUARD:
            b_column_at = column + tl.arange(0, COLS)
            b_limit = guard_limits(
                b_guard, row_slack_ptr, column_slack_ptr, b_rows, b_column_at, b_row_in,
                b_column_at < num_labels, GUARD,
            )  # fmt: skip
            b_least = b_guard
            if GUARD == 2:
                b_least = tl.min(b_limit, 1)
            if any_row(b_tile_max > b_least):
                b_above = b_s > b_limit
                b_removed += tl.sum(b_above.to(tl.int32), 1)
                b_s = tl.where(b_above, float("-inf"), b_s)
                b_group_max, b_tile_max = _maxima(b_s, MAXIMA, SUBTILE, ROWS, COLS)
        if NEG_MARGIN:
            if any_row(b_tile_max >= negative_margin):
                b_above = b_s >= negative_margin
                b_over += tl.sum(tl.where(b_above, b_s - negative_margin, 0.0), 1)
                if KEEP_NEGATIVE:
                    b_words = pack_bits(b_above, ROWS, COLS)
                    b_active += tl.sum(count_bits(b_words), 1)
                    store_words(
                        negative_bits_ptr, bits_stride, b_words, column, b_local_row, b_row_in,
                        COLS,
                    )  # fmt: skip
                else:
                    b_active += tl.sum(b_above.to(tl.int32), 1)
            elif KEEP_NEGATIVE:
                b_none = tl.zeros((ROWS, COLS // WORD), tl.int32)
                store_words(
                    negative_bits_ptr, bits_stride, b_none, column, b_local_row, b_row_in, COLS
                )
        if SOFTMAX != "none":
            b_max, b_sum = add_softmax(
                b_max, b_sum, b_s, b_tile_max, inverse_temperature, offset_ptr, column, num_labels,
                HAS_OFFSET, COLS,
            )  # fmt: skip
        if SIGMOID:
            b_sigmoid = add_sigmoid(b_sigmoid, b_s, scale, bias)
        if MAXIMA == COLS:
            b_at = (column // COLS) * num_rows + b_local_row
            tl.store(maxima_ptr + b_at, b_tile_max, mask=b_row_in)
        elif MAXIMA > 0:
            b_group = column // MAXIMA + tl.arange(0, COLS // MAXIMA)
            b_at = b_group[None, :] * num_rows + b_local_row[:, None]
            b_store = b_row_in[:, None] & (b_group * MAXIMA < num_labels)[None, :]
            tl.store(maxima_ptr + b_at, b_group_max, mask=b_store)
        if SUBTILE > 0:
            store_subtile_maxima(
                maxima_ptr, b_group_max, column, num_labels, b_local_row, b_row_in, SUBTILE, COLS
            )
        if TOP > 0:
            b_values, b_index = insert_tile(
                b_values, b_index, b_s, b_tile_max, first, TOP, SLOTS, COLS
            )

    b_count, b_score, b_at, b_logits, b_pos_max, b_pos_sum, b_pos_sigmoid, b_below, b_pos_active = (
        state
    )
    plane = num_rows * tl.cdiv(tl.cdiv(num_labels, COLS), tiles_per_split)
    b_out = split * num_rows + b_local_row
    if SOFTMAX == "all":
        b_max, b_sum = join_exp_sums(b_max, b_sum, b_pos_max, b_pos_sum)
    state = (
        b_count, b_score, b_at, b_logits, b_max, b_sum, b_sigmoid + b_pos_sigmoid, b_below,
        b_pos_active,
    )  # fmt: skip
    store_slots(
        float_ptr, int_ptr, plane, b_out, b_row_in, state, num_tiles * COLS - b_removed, b_over,
        b_active, HARDEST, SOFTMAX, SIGMOID, POS_MARGIN, NEG_MARGIN,
    )  # fmt: skip
    if TOP > 0:
        b_at_list = b_out[:, None] * SLOTS + tl.arange(0, SLOTS)[None, :]
        tl.store(top_value_ptr + b_at_list, b_values, mask=b_row_in[:, None])
        tl.store(top_index_ptr + b_at_list, b_index, mask=b_row_in[:, None])
