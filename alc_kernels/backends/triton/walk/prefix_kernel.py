"""The walk over several prefix widths: S of every width from one pass over the tiles.

A program owns ROWS queries and a contiguous range of column tiles, as in ``walk``. In every tile
it goes along the embedding once. Where it reaches a width, the accumulator holds the products of
the prefixes: scaled by the inverse norms of both, it is that width's tile of S, which updates that
width's statistics; then the sum goes on.

The statistics of one width are in registers while it is its turn, and otherwise in the program's
own slots of the partial results: a few numbers per row, against rows of labels that every tile
reads. So the number of widths costs no registers, and one body serves all of them. A list of the
k hardest is read only where a row's maximum beats its last entry.

The slots (``walk_slots``), their merge over the splits and the treatment of positives and excluded
pairs are those of ``walk``, with a plane per width.
"""

import triton
import triton.language as tl

from alc_kernels.backends.triton.tile.arithmetic import LOWEST, add_sigmoid, add_softmax
from alc_kernels.backends.triton.tile.negatives import drop_pairs, guard_limits
from alc_kernels.backends.triton.tile.product import add_width, row_pointers, scale_tile
from alc_kernels.backends.triton.tile.relation import any_row, open_rows, tile_may_hold
from alc_kernels.backends.triton.walk.merge import NUM_FLOATS, NUM_INTS, load_slot, store_slots
from alc_kernels.backends.triton.walk.positives import no_positives, take_positives
from alc_kernels.backends.triton.walk.topk import empty_list, insert_tile


@triton.jit(do_not_specialize=["row_start", "row_stop", "num_queries", "num_labels", "num_widths",
                               "tiles_per_split"])  # fmt: skip
def prefix_walk_kernel(
    queries_ptr,
    labels_ptr,
    query_scale_ptr,
    label_scale_ptr,
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
    widths_ptr,
    top_value_ptr,
    top_index_ptr,
    worst_ptr,
    float_ptr,
    int_ptr,
    row_start,
    row_stop,
    num_queries,
    num_labels,
    d,
    num_widths,
    tiles_per_split,
    positive_margin,
    negative_margin,
    POS_KIND: tl.constexpr,
    EXC_KIND: tl.constexpr,
    SCALED: tl.constexpr,
    GUARD: tl.constexpr,
    TOP: tl.constexpr,
    SLOTS: tl.constexpr,
    HARDEST: tl.constexpr,
    SOFTMAX: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    SIGMOID: tl.constexpr,
    POS_MARGIN: tl.constexpr,
    NEG_MARGIN: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """The rows row_start .. row_stop, at the widths widths_ptr[1 .. num_widths].

    widths_ptr[0] = 0; guard, slack and scales (num_widths, B or M); worst: each list's last entry.
    """
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
    b_q_ptrs = row_pointers(queries_ptr, row, row_stop, d, ROWS)
    b_out = split * num_rows + b_rows - row_start

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

    for tile in range(num_tiles):
        fresh = tile == 0
        first = tile * COLS
        column = start + first
        b_k_ptrs = row_pointers(labels_ptr, column, num_labels, d, COLS)
        b_cols = tl.minimum(column + tl.arange(0, COLS), num_labels - 1)
        edge = column + COLS > num_labels
        has_pos = tile_may_hold(
            POS_KIND, positive_col_ptr, b_pos_key, pos_next, column, num_labels, COLS
        )
        has_exc = tile_may_hold(
            EXC_KIND, exclude_col_ptr, b_exc_key, exc_next, column, num_labels, COLS
        )
        b_raw = tl.zeros((ROWS, COLS), tl.float32)
        # Every width visits the tile's pairs from where the tile before has left them.
        b_pos_key_after = b_pos_key
        b_pos_next_after = b_pos_next
        pos_next_after = pos_next
        b_exc_key_after = b_exc_key
        b_exc_next_after = b_exc_next
        exc_next_after = exc_next
        for n in range(num_widths):
            b_raw = add_width(
                b_raw, b_q_ptrs, b_k_ptrs, widths_ptr, n, DEPTH, EVEN, PRECISION, UPCAST
            )
            wide = num_rows * 0 + n  # 64 bits; the interpreter counts in plain numbers
            b_s = scale_tile(
                b_raw, query_scale_ptr, label_scale_ptr, wide * num_queries + b_rows,
                wide * num_labels + b_cols, b_row_in, SCALED,
            )  # fmt: skip

            floats = float_ptr + wide * NUM_FLOATS * plane
            ints = int_ptr + wide * NUM_INTS * plane
            (
                b_count, b_score, b_at, b_logits, b_max, b_sum, b_sigmoid, b_below, b_pos_active,
            ) = no_positives(ROWS)  # fmt: skip
            b_count = load_slot(ints, plane, 0, b_out, b_row_in, fresh, b_count)
            b_negatives = load_slot(ints, plane, 1, b_out, b_row_in, fresh, 0)
            if HARDEST:
                b_score = load_slot(floats, plane, 0, b_out, b_row_in, fresh, b_score)
                b_at = load_slot(ints, plane, 4, b_out, b_row_in, fresh, b_at)
            if SOFTMAX != "none":
                b_max = load_slot(floats, plane, 1, b_out, b_row_in, fresh, b_max)
                b_sum = load_slot(floats, plane, 2, b_out, b_row_in, fresh, b_sum)
                b_logits = load_slot(floats, plane, 3, b_out, b_row_in, fresh, b_logits)
            if SIGMOID:
                b_sigmoid = load_slot(floats, plane, 4, b_out, b_row_in, fresh, b_sigmoid)
            if POS_MARGIN:
                b_below = load_slot(floats, plane, 5, b_out, b_row_in, fresh, b_below)
                b_pos_active = load_slot(ints, plane, 2, b_out, b_row_in, fresh, b_pos_active)
            b_over = tl.zeros((ROWS,), tl.float32)
            b_active = tl.zeros((ROWS,), tl.int32)

            b_removed = tl.zeros((ROWS,), tl.int32)
            if edge | has_pos | has_exc:
                # From here on -inf means "no negative"; a similarity that overflowed is not.
                b_s = tl.maximum(b_s, LOWEST)
                if POS_KIND != "empty":
                    if has_pos:
                        # Positives join the running sums of the negatives at once.
                        state = (
                            b_count, b_score, b_at, b_logits, b_max, b_sum, b_sigmoid, b_below,
                            b_pos_active,
                        )  # fmt: skip
                        state, b_s, b_pos_key_after, b_pos_next_after, pos_next_after = (
                            take_positives(
                                POS_KIND, positive_col_ptr, b_pos_key, b_pos_end, b_pos_next,
                                state, b_s, column, first, offset_ptr, inverse_temperature, scale,
                                bias, positive_margin, HARDEST, SOFTMAX, HAS_OFFSET, SIGMOID,
                                POS_MARGIN, COLS,
                            )
                        )  # fmt: skip
                        (
                            b_count, b_score, b_at, b_logits, b_max, b_sum, b_sigmoid, b_below,
                            b_pos_active,
                        ) = state  # fmt: skip
                if EXC_KIND != "empty":
                    if has_exc:
                        b_s, b_exc_key_after, b_exc_next_after, exc_next_after = drop_pairs(
                            EXC_KIND, exclude_col_ptr, b_exc_key, b_exc_end, b_exc_next, b_s,
                            column, COLS,
                        )  # fmt: skip
                b_in = column + tl.arange(0, COLS) < num_labels
                b_s = tl.where(b_in[None, :], b_s, float("-inf"))
                b_removed += tl.sum((b_s == float("-inf")).to(tl.int32), 1)

            b_tile_max = tl.max(b_s, 1)
            if GUARD:
                b_row_at = wide * num_queries + b_rows
                b_guard = tl.load(guard_ptr + b_row_at, mask=b_row_in, other=float("inf"))
                b_limit = guard_limits(
                    b_guard, row_slack_ptr, column_slack_ptr, b_row_at, wide * num_labels + b_cols,
                    b_row_in, b_cols < num_labels, GUARD,
                )  # fmt: skip
                b_least = b_guard
                if GUARD == 2:
                    b_least = tl.min(b_limit, 1)
                if any_row(b_tile_max > b_least):
                    b_above = b_s > b_limit
                    b_removed += tl.sum(b_above.to(tl.int32), 1)
                    b_s = tl.where(b_above, float("-inf"), b_s)
                    b_tile_max = tl.max(b_s, 1)
            b_negatives += COLS - b_removed
            if NEG_MARGIN:
                b_over = load_slot(floats, plane, 6, b_out, b_row_in, fresh, 0.0)
                b_active = load_slot(ints, plane, 3, b_out, b_row_in, fresh, 0)
                if any_row(b_tile_max >= negative_margin):
                    b_above = b_s >= negative_margin
                    b_over += tl.sum(tl.where(b_above, b_s - negative_margin, 0.0), 1)
                    b_active += tl.sum(b_above.to(tl.int32), 1)
            if SOFTMAX != "none":
                b_max, b_sum = add_softmax(
                    b_max, b_sum, b_s, b_tile_max, inverse_temperature, offset_ptr, column,
                    num_labels, HAS_OFFSET, COLS,
                )  # fmt: skip
            if SIGMOID:
                b_sigmoid = add_sigmoid(b_sigmoid, b_s, scale, bias)

            # A slot that one thread loads may be another thread's to store.
            tl.debug_barrier()
            state = (
                b_count, b_score, b_at, b_logits, b_max, b_sum, b_sigmoid, b_below, b_pos_active,
            )  # fmt: skip
            store_slots(
                floats, ints, plane, b_out, b_row_in, state, b_negatives, b_over, b_active,
                HARDEST, SOFTMAX, SIGMOID, POS_MARGIN, NEG_MARGIN,
            )  # fmt: skip
            if TOP > 0:
                b_worst = load_slot(
                    worst_ptr, plane, 0, wide * plane + b_out, b_row_in, fresh, float("-inf")
                )
                if fresh | any_row(b_tile_max > b_worst):
                    b_list = (wide * plane + b_out)[:, None] * SLOTS + tl.arange(0, SLOTS)[None, :]
                    b_read = b_row_in[:, None]
                    b_values, b_index = empty_list(TOP, ROWS, SLOTS)
                    b_old = tl.load(top_value_ptr + b_list, mask=b_read, other=0.0)
                    b_old_index = tl.load(top_index_ptr + b_list, mask=b_read, other=0)
                    b_values = tl.where(fresh, b_values, b_old)
                    b_index = tl.where(fresh, b_index, b_old_index)
                    b_values, b_index = insert_tile(
                        b_values, b_index, b_s, b_tile_max, first, TOP, SLOTS, COLS
                    )
                    tl.debug_barrier()
                    tl.store(top_value_ptr + b_list, b_values, mask=b_read)
                    tl.store(top_index_ptr + b_list, b_index, mask=b_read)
                    # Slots beyond the TOP-th hold +inf.
                    b_worst = tl.min(b_values, 1)
                    tl.store(worst_ptr + wide * plane + b_out, b_worst, mask=b_row_in)
        b_pos_key = b_pos_key_after
        b_pos_next = b_pos_next_after
        pos_next = pos_next_after
        b_exc_key = b_exc_key_after
        b_exc_next = b_exc_next_after
        exc_next = exc_next_after
        # What this tile has stored, other threads of the program read in the next one.
        tl.debug_barrier()
