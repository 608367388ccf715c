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
(``bits``), in every tile, zeros included; MAXIMA stores the maxima of groups of columns
(``selection``) instead of keeping lists. The results of one column range ("split") are written as
they are, to the slots of ``merge``; ``merge`` combines the splits. Nothing depends on the
order in which programs run.
"""

import triton
import triton.language as tl

from alc_kernels.backends.triton.tile.arithmetic import add_sigmoid, add_softmax, join_exp_sums
from alc_kernels.backends.triton.tile.bits import WORD, Bits, count_bits, pack_bits, store_words
from alc_kernels.backends.triton.tile.negatives import Guard, load_guard
from alc_kernels.backends.triton.tile.product import (
    Rows,
    Scales,
    Shape,
    add_width,
    load_rows,
    product,
    row_pointers,
    scale_tile,
    tile_product,
)
from alc_kernels.backends.triton.tile.relation import Relation, any_row, open_rows, tile_may_hold
from alc_kernels.backends.triton.walk.merge import (
    NUM_FLOATS,
    NUM_INTS,
    Wanted,
    load_slot,
    load_state,
    load_terms,
    store_slots,
)
from alc_kernels.backends.triton.walk.positives import no_positives, settle_tile
from alc_kernels.backends.triton.walk.topk import (
    Groups,
    TopLists,
    drop_above_guard,
    empty_list,
    insert_tile,
    store_maxima,
    tile_maxima,
)


@triton.jit(
    do_not_specialize=["row_start", "row_stop", "num_labels", "tiles_per_split", "bits_stride"]
)
def walk_kernel(
    rows: Rows,
    positives: Relation,
    exclude: Relation,
    guard: Guard,
    wanted: Wanted,
    lists: TopLists,
    groups: Groups,
    bits: Bits,
    float_ptr,  # the slots, see merge.py
    int_ptr,
    row_start,
    row_stop,
    num_labels,
    tiles_per_split,
    bits_stride,
    WHOLE: tl.constexpr,  # d <= DEPTH: queries are loaded once
    shape: Shape,
):
    """The rows row_start .. row_stop."""
    ROWS: tl.constexpr = shape.ROWS
    COLS: tl.constexpr = shape.COLS
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
    b_q_ptrs = row_pointers(rows.queries_ptr, row, row_stop, rows.d, ROWS)
    if WHOLE:
        b_q = load_rows(b_q_ptrs, rows.d, shape)

    terms = load_terms(wanted)
    b_positive_end, positive_at = open_rows(positives, b_rows, b_row_in, start)
    b_excluded_end, excluded_at = open_rows(exclude, b_rows, b_row_in, start)
    state = no_positives(ROWS)
    b_zero = tl.zeros((ROWS,), tl.float32)
    b_removed = tl.zeros((ROWS,), tl.int32)  # elements of the tiles that are no negatives
    b_active = tl.zeros((ROWS,), tl.int32)
    b_over = b_zero
    b_max = b_zero - float("inf")
    b_sum = b_zero
    b_sigmoid = b_zero
    if guard.KIND:
        b_guard = load_guard(guard, b_rows, b_row_in)
    if lists.TOP > 0:
        b_values, b_index = empty_list(lists.TOP, ROWS, lists.SLOTS)
    b_local_row = b_rows - row_start

    for tile in range(num_tiles):
        first = tile * COLS
        column = start + first
        b_k_ptrs = row_pointers(rows.labels_ptr, column, num_labels, rows.d, COLS)
        if WHOLE:
            b_k = load_rows(b_k_ptrs, rows.d, shape)
            b_s = tl.zeros((ROWS, COLS), tl.float32)
            b_s = product(b_q, tl.trans(b_k), b_s, shape)
        else:
            b_s = tile_product(b_q_ptrs, b_k_ptrs, rows.d, shape)

        edge = column + COLS > num_labels
        has_positive = tile_may_hold(positives, positive_at, column, num_labels, COLS)
        has_excluded = tile_may_hold(exclude, excluded_at, column, num_labels, COLS)
        if bits.KEEP_POSITIVE:
            b_positive_words = tl.zeros((ROWS, COLS // WORD), tl.int32)
        if edge | has_positive | has_excluded:
            b_s, state, positive_at, excluded_at, b_gone, b_words = settle_tile(
                b_s, state, positives, (b_positive_end, positive_at), has_positive, exclude,
                (b_excluded_end, excluded_at), has_excluded, column, first, num_labels, wanted,
                terms, bits.KEEP_POSITIVE, shape,
            )  # fmt: skip
            b_removed += b_gone
            if bits.KEEP_POSITIVE:
                b_positive_words = b_words
        if bits.KEEP_POSITIVE:
            store_words(
                bits.positive_ptr,
                bits_stride,
                b_positive_words,
                column,
                b_local_row,
                b_row_in,
                COLS,
            )

        b_group_max, b_tile_max = tile_maxima(b_s, groups.MAXIMA, groups.SUBTILE, shape)
        if guard.KIND:
            b_column_at = column + tl.arange(0, COLS)
            b_s, b_group_max, b_tile_max, b_removed = drop_above_guard(
                b_s, b_group_max, b_tile_max, b_removed, guard, b_guard, b_rows, b_column_at,
                b_row_in, b_column_at < num_labels, groups.MAXIMA, groups.SUBTILE, shape,
            )  # fmt: skip
        if wanted.NEG_MARGIN:
            if any_row(b_tile_max >= wanted.negative_margin):
                b_above = b_s >= wanted.negative_margin
                b_over += tl.sum(tl.where(b_above, b_s - wanted.negative_margin, 0.0), 1)
                if bits.KEEP_NEGATIVE:
                    b_words = pack_bits(b_above, ROWS, COLS)
                    b_active += tl.sum(count_bits(b_words), 1)
                    store_words(
                        bits.negative_ptr, bits_stride, b_words, column, b_local_row, b_row_in,
                        COLS,
                    )  # fmt: skip
                else:
                    b_active += tl.sum(b_above.to(tl.int32), 1)
            elif bits.KEEP_NEGATIVE:
                b_none = tl.zeros((ROWS, COLS // WORD), tl.int32)
                store_words(
                    bits.negative_ptr, bits_stride, b_none, column, b_local_row, b_row_in, COLS
                )
        if wanted.SOFTMAX != "none":
            b_max, b_sum = add_softmax(
                b_max, b_sum, b_s, b_tile_max, terms[0], wanted, column, num_labels, COLS
            )
        if wanted.SIGMOID:
            b_sigmoid = add_sigmoid(b_sigmoid, b_s, terms[1], terms[2])
        store_maxima(
            groups, b_group_max, b_tile_max, column, num_rows, num_labels, b_local_row, b_row_in,
            shape,
        )  # fmt: skip
        if lists.TOP > 0:
            b_values, b_index = insert_tile(
                b_values, b_index, b_s, b_tile_max, first, lists.TOP, lists.SLOTS, COLS
            )

    b_count, b_score, b_at, b_logits, b_pos_max, b_pos_sum, b_pos_sigmoid, b_below, b_pos_active = (
        state
    )
    plane = num_rows * tl.cdiv(tl.cdiv(num_labels, COLS), tiles_per_split)
    b_out = split * num_rows + b_local_row
    if wanted.SOFTMAX == "all":
        b_max, b_sum = join_exp_sums(b_max, b_sum, b_pos_max, b_pos_sum)
    state = (
        b_count, b_score, b_at, b_logits, b_max, b_sum, b_sigmoid + b_pos_sigmoid, b_below,
        b_pos_active,
    )  # fmt: skip
    store_slots(
        float_ptr, int_ptr, plane, b_out, b_row_in, state, num_tiles * COLS - b_removed, b_over,
        b_active, wanted,
    )  # fmt: skip
    if lists.TOP > 0:
        b_at_list = b_out[:, None] * lists.SLOTS + tl.arange(0, lists.SLOTS)[None, :]
        tl.store(lists.value_ptr + b_at_list, b_values, mask=b_row_in[:, None])
        tl.store(lists.index_ptr + b_at_list, b_index, mask=b_row_in[:, None])


# The walk over several prefix widths: S of every width from one pass over the tiles.
#
# A program owns ROWS queries and a contiguous range of column tiles, as above. In every tile it
# goes along the embedding once. Where it reaches a width, the accumulator holds the products of
# the prefixes: scaled by the inverse norms of both, it is that width's tile of S, which updates
# that width's statistics; then the sum goes on.
#
# The statistics of one width are in registers while it is its turn, and otherwise in the program's
# own slots of the partial results: a few numbers per row, against rows of labels that every tile
# reads. So the number of widths costs no registers, and one body serves all of them. A list of the
# k hardest is read only where a row's maximum beats its last entry.
#
# The slots (``merge``), their merge over the splits and the treatment of positives and excluded
# pairs are those of ``walk``, with a plane per width.


@triton.jit(do_not_specialize=["row_start", "row_stop", "num_queries", "num_labels", "num_widths",
                               "tiles_per_split"])  # fmt: skip
def prefix_walk_kernel(
    rows: Rows,
    scales: Scales,
    positives: Relation,
    exclude: Relation,
    guard: Guard,
    wanted: Wanted,
    widths_ptr,  # (W + 1,) int32, the first is 0
    lists: TopLists,
    worst_ptr,  # (W, splits, rows) float32: each list's last entry
    float_ptr,  # the slots, see merge.py, (W, ...)
    int_ptr,
    row_start,
    row_stop,
    num_queries,
    num_labels,
    num_widths,
    tiles_per_split,
    shape: Shape,
):
    """The rows row_start .. row_stop, at all widths."""
    ROWS: tl.constexpr = shape.ROWS
    COLS: tl.constexpr = shape.COLS
    SLOTS: tl.constexpr = lists.SLOTS
    row_start = row_start.to(tl.int64)
    row_stop = row_stop.to(tl.int64)
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    num_rows = row_stop - row_start
    row_blocks = tl.cdiv(num_rows, ROWS)
    split = tl.program_id(0) // row_blocks
    row = row_start + (tl.program_id(0) % row_blocks) * ROWS
    start = split * tiles_per_split * COLS
    num_tiles = tl.minimum(tl.cdiv(num_labels - start, COLS), tiles_per_split).to(tl.int32)
    plane = num_rows * tl.cdiv(tl.cdiv(num_labels, COLS), tiles_per_split)

    b_rows = row + tl.arange(0, ROWS)
    b_row_in = b_rows < row_stop
    b_q_ptrs = row_pointers(rows.queries_ptr, row, row_stop, rows.d, ROWS)
    b_out = split * num_rows + b_rows - row_start

    terms = load_terms(wanted)
    b_positive_end, positive_at = open_rows(positives, b_rows, b_row_in, start)
    b_excluded_end, excluded_at = open_rows(exclude, b_rows, b_row_in, start)

    for tile in range(num_tiles):
        fresh = tile == 0
        first = tile * COLS
        column = start + first
        b_k_ptrs = row_pointers(rows.labels_ptr, column, num_labels, rows.d, COLS)
        b_cols = tl.minimum(column + tl.arange(0, COLS), num_labels - 1)
        edge = column + COLS > num_labels
        has_positive = tile_may_hold(positives, positive_at, column, num_labels, COLS)
        has_excluded = tile_may_hold(exclude, excluded_at, column, num_labels, COLS)
        b_raw = tl.zeros((ROWS, COLS), tl.float32)
        # Every width visits the tile's pairs from where the tile before has left them.
        positive_after = positive_at
        excluded_after = excluded_at
        for n in range(num_widths):
            b_raw = add_width(b_raw, b_q_ptrs, b_k_ptrs, widths_ptr, n, shape)
            wide = num_rows * 0 + n  # 64 bits; the interpreter counts in plain numbers
            b_row_at = wide * num_queries + b_rows
            b_column_at = wide * num_labels + b_cols
            b_s = scale_tile(b_raw, scales, b_row_at, b_column_at, b_row_in)

            floats = float_ptr + wide * NUM_FLOATS * plane
            ints = int_ptr + wide * NUM_INTS * plane
            state = load_state(
                floats, ints, plane, b_out, b_row_in, fresh, no_positives(ROWS), wanted
            )
            b_negatives = load_slot(ints, plane, 1, b_out, b_row_in, fresh, 0)
            b_over = tl.zeros((ROWS,), tl.float32)
            b_active = tl.zeros((ROWS,), tl.int32)

            b_removed = tl.zeros((ROWS,), tl.int32)
            if edge | has_positive | has_excluded:
                # Positives join the running sums of the negatives at once.
                b_s, state, positive_after, excluded_after, b_gone, _words = settle_tile(
                    b_s, state, positives, (b_positive_end, positive_at), has_positive, exclude,
                    (b_excluded_end, excluded_at), has_excluded, column, first, num_labels, wanted,
                    terms, False, shape,
                )  # fmt: skip
                b_removed += b_gone

            b_tile_max = tl.max(b_s, 1)
            if guard.KIND:
                b_s, _groups, b_tile_max, b_removed = drop_above_guard(
                    b_s, b_tile_max, b_tile_max, b_removed, guard,
                    load_guard(guard, b_row_at, b_row_in), b_row_at, b_column_at, b_row_in,
                    b_cols < num_labels, 0, 0, shape,
                )  # fmt: skip
            b_negatives += COLS - b_removed
            if wanted.NEG_MARGIN:
                b_over = load_slot(floats, plane, 6, b_out, b_row_in, fresh, 0.0)
                b_active = load_slot(ints, plane, 3, b_out, b_row_in, fresh, 0)
                if any_row(b_tile_max >= wanted.negative_margin):
                    b_above = b_s >= wanted.negative_margin
                    b_over += tl.sum(tl.where(b_above, b_s - wanted.negative_margin, 0.0), 1)
                    b_active += tl.sum(b_above.to(tl.int32), 1)
            (
                b_count, b_score, b_at, b_logits, b_max, b_sum, b_sigmoid, b_below, b_pos_active,
            ) = state  # fmt: skip
            if wanted.SOFTMAX != "none":
                b_max, b_sum = add_softmax(
                    b_max, b_sum, b_s, b_tile_max, terms[0], wanted, column, num_labels, COLS
                )
            if wanted.SIGMOID:
                b_sigmoid = add_sigmoid(b_sigmoid, b_s, terms[1], terms[2])

            # A slot that one thread loads may be another thread's to store.
            tl.debug_barrier()
            state = (
                b_count, b_score, b_at, b_logits, b_max, b_sum, b_sigmoid, b_below, b_pos_active,
            )  # fmt: skip
            store_slots(
                floats, ints, plane, b_out, b_row_in, state, b_negatives, b_over, b_active, wanted
            )
            if lists.TOP > 0:
                b_worst = load_slot(
                    worst_ptr, plane, 0, wide * plane + b_out, b_row_in, fresh, float("-inf")
                )
                if fresh | any_row(b_tile_max > b_worst):
                    b_list = (wide * plane + b_out)[:, None] * SLOTS + tl.arange(0, lists.SLOTS)[
                        None, :
                    ]
                    b_read = b_row_in[:, None]
                    b_values, b_index = empty_list(lists.TOP, ROWS, SLOTS)
                    b_old = tl.load(lists.value_ptr + b_list, mask=b_read, other=0.0)
                    b_old_index = tl.load(lists.index_ptr + b_list, mask=b_read, other=0)
                    b_values = tl.where(fresh, b_values, b_old)
                    b_index = tl.where(fresh, b_index, b_old_index)
                    b_values, b_index = insert_tile(
                        b_values, b_index, b_s, b_tile_max, first, lists.TOP, SLOTS, COLS
                    )
                    tl.debug_barrier()
                    tl.store(lists.value_ptr + b_list, b_values, mask=b_read)
                    tl.store(lists.index_ptr + b_list, b_index, mask=b_read)
                    # Slots beyond the TOP-th hold +inf.
                    b_worst = tl.min(b_values, 1)
                    tl.store(worst_ptr + wide * plane + b_out, b_worst, mask=b_row_in)
        positive_at = positive_after
        excluded_at = excluded_after
        # What this tile has stored, other threads of the program read in the next one.
        tl.debug_barrier()
