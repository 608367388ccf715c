"""The k largest in two passes: maxima of groups of columns, then only the groups that matter.

The walk stores one maximum per row and group of up to 128 columns: it has it already, and the
store is 1/32 of S in bits. The k largest of a row, equal values by smaller column, lie in the k
groups with the largest maxima, equal maxima by smaller group: a group behind k others has k
elements before each of its own. So, all exact and on the device:

1. ``select_groups_kernel``: each row's k groups, and its k-th maximum, below which nothing counts;
2. ``list_rows`` of ``active_lists``: which rows want each group;
3. ``scan_groups_kernel``: the products of those rows with the group again, and from them, round by
   round, each row's leftmost maximum until it is below the row's k-th group maximum, at most k;
4. ``merge_candidates_kernel``: a row's candidates, at most k of each of its k groups, in order.

Cost beside a walk that looks for maxima only, whatever the values: the share k GROUP / M of a
product, and 128 / segment for blocks that are not full. Rounds in step 3 are rare: about k
elements per row are above its k-th group maximum. Keeping lists during the walk (``topk``)
instead costs a round in nearly every tile, because one of 128 rows finds a better entry in it
(k ln(M / k) entries a row): for k = 10 and M = 32,768 some 500 instructions per thread and round
beside a product of 6,144 cycles (128 x 128, d = 768), or of 1,024 (d = 128). Insertion stays for
few labels, where most groups would be wanted, for few rows, and for k > 16, where candidates are
k^2 per row (``takes_two_passes``). Times: not measured yet.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.active.lists import Lists, list_rows
from alc_kernels.backends.triton.launch import Tile, dot_precision, on_device_of
from alc_kernels.backends.triton.tile.arithmetic import LOWEST
from alc_kernels.backends.triton.tile.bits import BLOCK, WORD, pack_bits
from alc_kernels.backends.triton.tile.negatives import (
    Guard,
    drop_pairs,
    guard_argument,
    tile_limits,
)
from alc_kernels.backends.triton.tile.product import (
    Rows,
    Shape,
    embeddings,
    row_pointers,
    tile_product,
    tile_shape,
)
from alc_kernels.backends.triton.tile.relation import (
    Relation,
    any_row,
    open_rows,
    tile_may_hold,
)
from alc_kernels.backends.triton.walk.topk import leftmost
from alc_kernels.engine.interface import Problem

GROUP = 128  # columns, or those of the walk's tile if fewer
MAX_TOP = 16
SELECT_ROWS, SELECT_GROUPS = 16, 128
MERGE_ROWS = 16
NUM_WARPS = 4
SEGMENT_UNIT, MAX_SEGMENT = 1024, 8192


def segment_rows(num_labels: int, top: int, group: int) -> int:
    """Rows that share a list: about 128 of them want each group, but no program gets too many."""
    rows = 128 * triton.cdiv(num_labels, group) // top
    return min(max(rows // SEGMENT_UNIT * SEGMENT_UNIT, SEGMENT_UNIT), MAX_SEGMENT)


def takes_two_passes(num_rows: int, num_labels: int, top: int, group: int) -> bool:
    """Whether the second pass is cheap: at most an eighth of a product, estimated.

    A single maximum costs the walk little (a look at the tiles in which a row's improves), so
    there the second pass must be a thirty-second.
    """
    if not 1 <= top <= MAX_TOP:
        return False
    share = top * group / num_labels + 128 / min(segment_rows(num_labels, top, group), num_rows)
    return share <= (1 / 8 if top > 1 else 1 / 32)


def row_bytes(num_labels: int, top: int, group: int) -> int:
    """Memory of a row: maxima, lists and bits of its groups; its candidates."""
    return triton.cdiv(num_labels, group) * 9 + top * (8 * top + 4) + 64


@triton.jit(do_not_specialize=["num_rows", "num_groups", "bits_stride"])
def select_groups_kernel(
    maxima_ptr,  # (num_groups, num_rows) float32
    chosen_ptr,  # (num_rows, TOP) int32, -1 where there are fewer groups with negatives
    least_ptr,  # (num_rows,) float32: the last chosen maximum; -inf where there are fewer
    bits_ptr,  # (words, bits_stride) int32: the chosen groups of each row
    num_rows,
    num_groups,
    bits_stride,
    TOP: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Choose each row's TOP groups, in TOP rounds over its maxima (which stay in the cache)."""
    b_row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    b_row_in = b_row < num_rows
    b_last = tl.full((ROWS,), float("inf"), tl.float32)
    b_last_group = tl.full((ROWS,), -1, tl.int32)
    for rank in range(TOP):
        b_best = tl.full((ROWS,), float("-inf"), tl.float32)
        b_group = tl.full((ROWS,), -1, tl.int32)
        for first in range(0, num_groups, GROUPS):
            b_g = first + tl.arange(0, GROUPS)
            b_read = b_row_in[:, None] & (b_g < num_groups)[None, :]
            b_at = b_g.to(tl.int64)[None, :] * num_rows + b_row[:, None]
            b_max = tl.load(maxima_ptr + b_at, mask=b_read, other=float("-inf"))
            b_tied = (b_max == b_last[:, None]) & (b_g[None, :] > b_last_group[:, None])
            b_max = tl.where((b_max < b_last[:, None]) | b_tied, b_max, float("-inf"))
            b_high = tl.max(b_max, 1)
            b_better = b_high > b_best
            b_at_high = tl.min(tl.where(b_max == b_high[:, None], b_g[None, :], num_groups), 1)
            b_best = tl.where(b_better, b_high, b_best)
            b_group = tl.where(b_better, b_at_high, b_group)
        tl.store(chosen_ptr + b_row * TOP + rank, b_group, mask=b_row_in)
        b_last = b_best
        b_last_group = b_group
    tl.store(least_ptr + b_row, b_last, mask=b_row_in)
    for first in range(0, num_groups, GROUPS):
        b_g = first + tl.arange(0, GROUPS)
        b_read = b_row_in[:, None] & (b_g < num_groups)[None, :]
        b_at = b_g.to(tl.int64)[None, :] * num_rows + b_row[:, None]
        b_max = tl.load(maxima_ptr + b_at, mask=b_read, other=float("-inf"))
        b_tied = (b_max == b_last[:, None]) & (b_g[None, :] <= b_last_group[:, None])
        b_is = ((b_max > b_last[:, None]) | b_tied) & (b_max > float("-inf"))
        b_word = first // WORD + tl.arange(0, GROUPS // WORD)
        b_out = b_word.to(tl.int64)[None, :] * bits_stride + b_row[:, None]
        tl.store(bits_ptr + b_out, pack_bits(b_is, ROWS, GROUPS), mask=b_row_in[:, None])


@triton.jit
def _drop_relation(relation, b_rows, b_in, b_s, column, num_labels, COLS: tl.constexpr):
    """b_s (R, COLS), the tile at ``column``, with -inf at the pairs of a relation."""
    if relation.kind != "empty":
        b_end, at = open_rows(relation, b_rows, b_in, column)
        if tile_may_hold(relation, at, column, num_labels, COLS):
            b_s = drop_pairs(relation, b_end, at, b_s, column, COLS)[0]
    return b_s


@triton.jit(do_not_specialize=["row_start", "num_labels", "num_segments", "room"])
def scan_groups_kernel(
    rows: Rows,
    positives: Relation,
    exclude: Relation,
    guard: Guard,
    entries_ptr,  # (groups, num_segments, room) int32: rows counted from row_start
    counts_ptr,  # (groups, num_segments) int32
    chosen_ptr,  # (rows, TOP) int32
    least_ptr,  # (rows,) float32
    value_ptr,  # (rows, TOP, TOP) float32: by chosen group, then by rank within it
    label_ptr,  # (rows, TOP, TOP) int32, -1 behind the last
    row_start,
    num_labels,
    num_segments,
    room,
    TOP: tl.constexpr,
    SLOTS: tl.constexpr,
    shape: Shape,
):
    """The candidates of one group for the rows of one list that want it."""
    ROWS: tl.constexpr = shape.ROWS
    COLS: tl.constexpr = shape.COLS
    num_labels = num_labels.to(tl.int64)
    group, segment = tl.program_id(0), tl.program_id(1)
    list_at = group.to(tl.int64) * num_segments + segment
    column = group.to(tl.int64) * COLS
    count = tl.load(counts_ptr + list_at)
    b_local = tl.arange(0, COLS)[None, :]
    b_slot = tl.arange(0, SLOTS)[None, :]
    b_k_ptrs = row_pointers(rows.labels_ptr, column, num_labels, rows.d, COLS)
    for at in range(0, count, ROWS):
        b_entry = at + tl.arange(0, ROWS)
        b_in = b_entry < count
        b_row = tl.load(entries_ptr + list_at * room + b_entry, mask=b_in, other=0).to(tl.int64)
        b_rows = row_start + b_row
        b_s = tile_product(rows.queries_ptr + b_rows * rows.d, b_k_ptrs, rows.d, shape)
        # As the walk does: from here on -inf means "no negative".
        b_s = tl.maximum(b_s, LOWEST)
        b_s = _drop_relation(positives, b_rows, b_in, b_s, column, num_labels, COLS)
        b_s = _drop_relation(exclude, b_rows, b_in, b_s, column, num_labels, COLS)
        b_least = tl.load(least_ptr + b_row, mask=b_in, other=float("inf"))
        b_counts = (column + b_local < num_labels) & b_in[:, None]
        if guard.KIND:
            b_column_at = column + tl.arange(0, COLS)
            b_limit = tile_limits(guard, b_rows, b_column_at, b_in, b_column_at < num_labels)
            b_counts = b_counts & (b_s <= b_limit)
        b_s = tl.where(b_counts, b_s, float("-inf"))

        b_place = tl.load(
            chosen_ptr + b_row[:, None] * TOP + b_slot,
            mask=b_in[:, None] & (b_slot < TOP),
            other=-1,
        )
        b_which = tl.max(tl.where(b_place == group, b_slot, 0), 1)
        b_out = (b_row * TOP + b_which) * TOP
        b_found = tl.zeros((ROWS,), tl.int32)
        b_max = tl.max(b_s, 1)
        # A group's own maximum always counts, should this product round otherwise than the walk's.
        b_has = b_max > float("-inf")
        rank = 0
        more = any_row(b_has)
        while more:
            b_column = leftmost(b_s, b_max, COLS)
            tl.store(value_ptr + b_out + rank, b_max, mask=b_has)
            tl.store(label_ptr + b_out + rank, (column + b_column).to(tl.int32), mask=b_has)
            b_found += b_has.to(tl.int32)
            b_s = tl.where(b_local == b_column[:, None], float("-inf"), b_s)
            b_max = tl.max(b_s, 1)
            b_has = b_has & (b_max >= b_least) & (b_max > float("-inf"))
            rank += 1
            more = any_row(b_has) & (rank < TOP)
        b_rest = b_in[:, None] & (b_slot >= b_found[:, None]) & (b_slot < TOP)
        tl.store(label_ptr + b_out[:, None] + b_slot, tl.full((ROWS, SLOTS), -1, tl.int32), b_rest)


@triton.jit(do_not_specialize=["num_rows", "row_start"])
def merge_candidates_kernel(
    chosen_ptr,  # (num_rows, TOP) int32
    value_ptr,  # (num_rows, TOP, TOP) float32
    label_ptr,  # (num_rows, TOP, TOP) int32
    score_ptr,  # (B, TOP) float32
    out_label_ptr,  # (B, TOP) int64
    num_rows,
    row_start,
    TOP: tl.constexpr,
    SIZE: tl.constexpr,  # a power of two, at least TOP * TOP
    ROWS: tl.constexpr,
):
    """The TOP best candidates of each row: score descending, equal scores by smaller label."""
    b_row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    b_at = tl.arange(0, SIZE)[None, :]
    b_in = (b_row < num_rows)[:, None] & (b_at < TOP * TOP)
    b_group = tl.load(chosen_ptr + b_row[:, None] * TOP + b_at // TOP, mask=b_in, other=-1)
    b_in = b_in & (b_group >= 0)
    b_label = tl.load(label_ptr + b_row[:, None] * (TOP * TOP) + b_at, mask=b_in, other=-1)
    b_in = b_in & (b_label >= 0)
    b_value = tl.load(value_ptr + b_row[:, None] * (TOP * TOP) + b_at, mask=b_in, other=0.0)
    b_value = tl.where(b_in, b_value, float("-inf"))
    b_out = (row_start + b_row) * TOP
    for rank in range(TOP):
        b_best = tl.max(b_value, 1)
        b_has = b_best > float("-inf")
        b_first = tl.where(b_value == b_best[:, None], b_label, 2**31 - 1)
        b_chosen = tl.min(b_first, 1)
        tl.store(score_ptr + b_out + rank, b_best, mask=b_row < num_rows)
        b_store = tl.where(b_has, b_chosen, -1).to(tl.int64)
        tl.store(out_label_ptr + b_out + rank, b_store, mask=b_row < num_rows)
        b_value = tl.where(b_label == b_chosen[:, None], float("-inf"), b_value)


def select_largest(
    problem: Problem,
    relations: tuple[Relation, Relation],
    maxima: Tensor,
    row_start: int,
    tile: Tile,
    scores: Tensor,
    indices: Tensor,
) -> None:
    """Fill the rows from ``row_start`` on of scores (B, k) float32 and indices (B, k) int64.

    ``maxima``: (groups, rows) float32 of columns in groups of ``tile.cols``, from the walk.
    """
    queries, labels = problem.queries, problem.labels
    (groups, rows), top = maxima.shape, scores.shape[1]
    d, m, device = queries.shape[1], labels.shape[0], queries.device
    stride = triton.cdiv(rows, BLOCK) * BLOCK
    words = triton.cdiv(groups, SELECT_GROUPS) * SELECT_GROUPS // 32
    bits = torch.empty((words, stride), dtype=torch.int32, device=device)
    chosen = torch.empty((rows, top), dtype=torch.int32, device=device)
    least = torch.empty(rows, dtype=torch.float32, device=device)
    values = torch.empty((rows, top, top), dtype=torch.float32, device=device)
    candidates = torch.empty((rows, top, top), dtype=torch.int32, device=device)
    shape = tile_shape(tile, d, queries.dtype, dot_precision(queries.dtype))
    with on_device_of(queries):
        select_groups_kernel[(triton.cdiv(rows, SELECT_ROWS),)](
            maxima, chosen, least, bits, rows, groups, stride, TOP=top, ROWS=SELECT_ROWS,
            GROUPS=SELECT_GROUPS, num_warps=NUM_WARPS,
        )  # fmt: skip
        segments = triton.cdiv(rows, segment_rows(m, top, tile.cols))
        lists: Lists = list_rows(bits, rows, groups, segments, words=0)
        scan_groups_kernel[(groups, lists.segments)](
            embeddings(queries, labels), *relations, guard_argument(problem, least),
            lists.entries, lists.counts, chosen, least, values, candidates, row_start, m,
            lists.segments, lists.size, TOP=top, SLOTS=triton.next_power_of_2(top), shape=shape,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        merge_candidates_kernel[(triton.cdiv(rows, MERGE_ROWS),)](
            chosen, values, candidates, scores, indices, rows, row_start, TOP=top,
            SIZE=triton.next_power_of_2(top * top), ROWS=MERGE_ROWS, num_warps=NUM_WARPS,
        )  # fmt: skip
