"""Which labels a block of rows has active pairs with, and which rows a block of labels.

Both are read off the bits of ``tile.bits`` without a sort and without atomics: a program ORs
the words of its block, numbers the set flags by a running sum and stores where they are, in
ascending order. The time is that of reading the bits once.

A list is cut into *segments* of equal size, which other programs fill: that keeps a GPU busy
where there are few blocks. It has room for half of a segment. ``counts[block, segment]`` says how
many there are; where that is more than the room, whoever uses the list takes the whole segment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.launch import on_device_of
from alc_kernels.backends.triton.tile.arithmetic import own_tile
from alc_kernels.backends.triton.tile.bits import BLOCK, WORD, Bits, pack_bits, store_words
from alc_kernels.backends.triton.tile.negatives import (
    Guard,
    keep_negatives,
    open_tile,
    tile_limits,
)
from alc_kernels.backends.triton.tile.product import (
    Rows,
    Scales,
    Shape,
    add_width,
    row_pointers,
    scale_tile,
)
from alc_kernels.backends.triton.tile.relation import Relation, any_row, either
from alc_kernels.backends.triton.walk.positives import pack_active_positives

NUM_WARPS = 4
SHARE = tl.constexpr(2)  # a list has room for one in so many
STEP_WORDS = 32  # words of a block of rows that a step reads: 16 KiB
STEP_ROWS = 1024  # rows of a block of labels: 16 KiB
STEP_MASKS = 32


@dataclass(frozen=True)
class Lists:
    """Ascending lists of rows (counted from the bits' first) or of labels."""

    size: int  # rows or labels of a segment
    entries: Tensor  # (blocks, segments, size / SHARE) int32
    counts: Tensor  # (blocks, segments) int32
    # Lists of labels: which rows of the block are active with each, lowest bit first.
    masks: Tensor | None = None  # (blocks, segments, size / SHARE, BLOCK / 32) int32

    @property
    def segments(self) -> int:
        """Segments per block."""
        return self.counts.shape[1]


@triton.jit(do_not_specialize=["num_rows", "num_words", "segment_words", "bits_stride"])
def list_labels_kernel(
    bits_ptr,  # (words, bits_stride) int32
    entries_ptr,
    counts_ptr,
    num_rows,
    num_words,
    segment_words,
    bits_stride,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
):
    """Labels with an active pair in a block of rows."""
    bits_stride = tl.multiple_of(bits_stride, BLOCK).to(tl.int64)
    block, segment = tl.program_id(0), tl.program_id(1)
    room = segment_words * (WORD // SHARE)
    list_at = block.to(tl.int64) * tl.num_programs(1) + segment
    out_ptr = entries_ptr + list_at * room
    begin = segment * segment_words
    end = tl.minimum(begin + segment_words, num_words)
    b_row = block * BLOCK + tl.arange(0, BLOCK)
    found = tl.zeros((), tl.int32)
    for word in range(begin, end, STEP):
        b_word = word + tl.arange(0, STEP)
        b_in = (b_word < end)[:, None] & (b_row < num_rows)[None, :]
        b_at = b_word.to(tl.int64)[:, None] * bits_stride + b_row[None, :]
        b_any = tl.reduce(tl.load(bits_ptr + b_at, mask=b_in, other=0), 1, either)  # (STEP,)
        b_flag = (b_any[:, None] >> tl.arange(0, WORD)[None, :]) & 1
        b_flag = tl.reshape(b_flag, (STEP * WORD,))
        b_place = found + tl.cumsum(b_flag, 0) - b_flag
        b_label = word * WORD + tl.arange(0, STEP * WORD)
        tl.store(out_ptr + b_place, b_label, mask=(b_flag != 0) & (b_place < room))
        found += tl.sum(b_flag, 0)
    tl.store(counts_ptr + list_at, found)


@triton.jit(do_not_specialize=["num_rows", "segment_words", "bits_stride"])
def row_masks_kernel(
    bits_ptr,  # (words, bits_stride) int32
    entries_ptr,
    counts_ptr,
    masks_ptr,
    num_rows,
    segment_words,
    bits_stride,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
):
    """Gather the bits of each listed label: those of the block's rows side by side."""
    bits_stride = tl.multiple_of(bits_stride, BLOCK).to(tl.int64)
    block, segment = tl.program_id(0), tl.program_id(1)
    room = segment_words * (WORD // SHARE)
    list_at = block.to(tl.int64) * tl.num_programs(1) + segment
    count = tl.load(counts_ptr + list_at)
    count = tl.where(count > room, 0, count)
    b_row = block * BLOCK + tl.arange(0, BLOCK)
    for at in range(0, count, STEP):
        b_entry = at + tl.arange(0, STEP)
        b_in = b_entry < count
        b_label = tl.load(entries_ptr + list_at * room + b_entry, mask=b_in, other=0)
        b_at = (b_label // WORD).to(tl.int64)[:, None] * bits_stride + b_row[None, :]
        b_read = b_in[:, None] & (b_row < num_rows)[None, :]
        b_word = tl.load(bits_ptr + b_at, mask=b_read, other=0)
        b_mask = pack_bits(((b_word >> (b_label % WORD)[:, None]) & 1) != 0, STEP, BLOCK)
        b_out = (list_at * room + b_entry)[:, None] * (BLOCK // WORD)
        b_out += tl.arange(0, BLOCK // WORD)[None, :]
        tl.store(masks_ptr + b_out, b_mask, mask=b_in[:, None])


@triton.jit(do_not_specialize=["num_rows", "num_words", "segment_rows", "bits_stride"])
def list_rows_kernel(
    bits_ptr,  # (words, bits_stride) int32
    entries_ptr,
    counts_ptr,
    num_rows,
    num_words,
    segment_rows,
    bits_stride,
    WORDS: tl.constexpr,
    STEP: tl.constexpr,
):
    """Rows with an active pair in a block of 32 WORDS labels; with WORDS = 0 in one label.

    Single labels may be active with every row: their lists have room for whole segments.
    """
    bits_stride = bits_stride.to(tl.int64)
    block, segment = tl.program_id(0), tl.program_id(1)
    room = segment_rows
    if WORDS > 0:
        room = segment_rows // SHARE
    list_at = block.to(tl.int64) * tl.num_programs(1) + segment
    out_ptr = entries_ptr + list_at * room
    begin = segment * segment_rows
    end = tl.minimum(begin + segment_rows, num_rows)
    found = tl.zeros((), tl.int32)
    for row in range(begin, end, STEP):
        b_row = row + tl.arange(0, STEP)
        b_in = b_row < end
        if WORDS == 0:
            b_at = (block // WORD).to(tl.int64) * bits_stride + b_row
            b_any = (tl.load(bits_ptr + b_at, mask=b_in, other=0) >> (block % WORD)) & 1
        else:
            b_word = block.to(tl.int64) * WORDS + tl.arange(0, WORDS)
            b_at = b_word[:, None] * bits_stride + b_row[None, :]
            b_read = (b_word < num_words)[:, None] & b_in[None, :]
            b_any = tl.reduce(tl.load(bits_ptr + b_at, mask=b_read, other=0), 0, either)
        b_flag = (b_any != 0).to(tl.int32)
        b_place = found + tl.cumsum(b_flag, 0) - b_flag
        tl.store(out_ptr + b_place, b_row, mask=(b_flag != 0) & (b_place < room))
        found += tl.sum(b_flag, 0)
    tl.store(counts_ptr + list_at, found)


def list_labels(bits: Tensor, num_rows: int, num_labels: int, segments: int) -> Lists:
    """Labels that the blocks of rows need; ``segments`` is an upper bound of those made."""
    words, blocks = triton.cdiv(num_labels, 32), triton.cdiv(num_rows, BLOCK)
    size = triton.cdiv(triton.cdiv(words, segments), STEP_WORDS) * STEP_WORDS
    segments, room = triton.cdiv(words, size), 32 * size // SHARE.value
    new = _integers(bits)
    entries, counts = new((blocks, segments, room)), new((blocks, segments))
    masks = new((blocks, segments, room, BLOCK // 32))
    grid = (blocks, segments)
    with on_device_of(bits):
        list_labels_kernel[grid](
            bits, entries, counts, num_rows, words, size, bits.shape[1],
            BLOCK=BLOCK, STEP=STEP_WORDS, num_warps=NUM_WARPS,
        )  # fmt: skip
        row_masks_kernel[grid](
            bits, entries, counts, masks, num_rows, size, bits.shape[1],
            BLOCK=BLOCK, STEP=STEP_MASKS, num_warps=NUM_WARPS,
        )  # fmt: skip
    return Lists(32 * size, entries, counts, masks)


def list_rows(bits: Tensor, num_rows: int, num_labels: int, segments: int, *, words: int) -> Lists:
    """Rows that the blocks of 32 ``words`` labels need (0: single labels)."""
    blocks = triton.cdiv(num_labels, max(32 * words, 1))
    size = triton.cdiv(triton.cdiv(num_rows, segments), STEP_ROWS) * STEP_ROWS
    segments, new = triton.cdiv(num_rows, size), _integers(bits)
    room = size // SHARE.value if words else size
    lists = Lists(size, new((blocks, segments, room)), new((blocks, segments)))
    with on_device_of(bits):
        list_rows_kernel[(blocks, segments)](
            bits, lists.entries, lists.counts, num_rows, triton.cdiv(num_labels, 32), size,
            bits.shape[1], WORDS=words, STEP=STEP_ROWS, num_warps=NUM_WARPS,
        )  # fmt: skip
    return lists


def _integers(like: Tensor) -> Callable[..., Tensor]:
    return partial(torch.empty, dtype=torch.int32, device=like.device)


# The pairs within the margins at several prefix widths, as bits, from one pass over the tiles.
#
# As ``walk`` keeps them for one width (``tile.bits``): a plane of words per width and side.


@triton.jit(
    do_not_specialize=[
        "row_start", "row_stop", "num_queries", "num_labels", "num_widths", "num_words",
        "bits_stride",
    ]
)  # fmt: skip
def prefix_bits_kernel(
    rows: Rows,
    scales: Scales,
    positives: Relation,
    exclude: Relation,
    guard: Guard,
    widths_ptr,  # (W + 1,) int32, the first is 0
    bits: Bits,  # (W, num_words, bits_stride) int32
    positive_margin,
    negative_margin,
    num_queries,
    num_labels,
    num_widths,
    row_start,
    row_stop,
    num_words,
    bits_stride,
    shape: Shape,
):
    """The tiles of the rows row_start .. row_stop with all labels."""
    row_start = row_start.to(tl.int64)
    row_tile, col_tile, _tiles = own_tile(row_stop - row_start, num_labels, shape)
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    row = row_start + row_tile.to(tl.int64) * shape.ROWS
    column = col_tile.to(tl.int64) * shape.COLS
    b_q_ptrs = row_pointers(rows.queries_ptr, row, num_queries, rows.d, shape.ROWS)
    b_k_ptrs = row_pointers(rows.labels_ptr, column, num_labels, rows.d, shape.COLS)
    b_rows = row + tl.arange(0, shape.ROWS)
    b_cols = column + tl.arange(0, shape.COLS)
    b_inside = tl.minimum(b_cols, num_labels - 1)
    b_row_in = b_rows < row_stop
    b_local_row = b_rows - row_start
    opened = open_tile(positives, exclude, b_rows, b_row_in, column, num_labels, shape.COLS)
    positive_rows, _excluded, has_positive, _has_excluded = opened
    plane = num_words.to(tl.int64) * bits_stride

    b_raw = tl.zeros((shape.ROWS, shape.COLS), tl.float32)
    for n in range(num_widths):
        b_raw = add_width(b_raw, b_q_ptrs, b_k_ptrs, widths_ptr, n, shape)
        wide = num_queries * 0 + n  # 64 bits; the interpreter counts in plain numbers
        b_at = wide * num_queries + b_rows
        b_column_at = wide * num_labels + b_inside
        b_s = scale_tile(b_raw, scales, b_at, b_column_at, b_row_in)
        if bits.KEEP_POSITIVE:
            b_words = tl.zeros((shape.ROWS, shape.COLS // WORD), tl.int32)
            if has_positive:
                b_words = pack_active_positives(
                    positives, positive_rows[0], positive_rows[1], b_s, column, positive_margin,
                    shape.ROWS, shape.COLS,
                )  # fmt: skip
            store_words(
                bits.positive_ptr + wide * plane, bits_stride, b_words, column, b_local_row,
                b_row_in, shape.COLS,
            )  # fmt: skip
        if bits.KEEP_NEGATIVE:
            b_s = keep_negatives(  # from here on -inf means "no negative"
                b_s, opened, positives, exclude, row, row_stop, column, num_labels, False, shape
            )
            b_above = b_s >= negative_margin
            if guard.KIND:
                b_above &= b_s <= tile_limits(
                    guard, b_at, b_column_at, b_row_in, b_cols < num_labels
                )
            b_words = tl.zeros((shape.ROWS, shape.COLS // WORD), tl.int32)
            if any_row(tl.max(b_above.to(tl.int32), 1) > 0):
                b_words = pack_bits(b_above, shape.ROWS, shape.COLS)
            store_words(
                bits.negative_ptr + wide * plane, bits_stride, b_words, column, b_local_row,
                b_row_in, shape.COLS,
            )  # fmt: skip
