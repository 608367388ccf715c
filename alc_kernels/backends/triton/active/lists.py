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
from alc_kernels.backends.triton.tile.bits import BLOCK, WORD, pack_bits
from alc_kernels.backends.triton.tile.relation import either

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
