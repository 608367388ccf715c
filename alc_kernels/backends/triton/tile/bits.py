"""The pairs within the margins of the threshold loss, one bit each.

A walk packs the comparison of a tile into words of 32 labels and stores them, zeros included:
B M / 8 bytes beside a product that reads many times as much. Bits are exact at every density and
need no capacity, and their number per element of S is what a list costs at 3 % of active pairs.
What is made of them (``active_lists``, ``active_product``) takes time by how many there are.

Layout: ``words[w, i]`` holds row ``start + i``, labels 32 w .. 32 w + 31, lowest bit first. Rows
lie side by side: the programs that read a block of rows or of labels read whole lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton import launch as workspace

WORD = tl.constexpr(32)  # labels per word
LARGEST_TILE = 256  # columns
MAX_LABELS = 2**31 - 2**10  # labels and rows are listed in 32 bits
BLOCK = 128  # rows, or labels, that share a list in ``active_lists``


@dataclass(frozen=True)
class ActiveBits:
    """Active pairs of the rows ``start`` .. ``stop``; a side that nobody wanted is None."""

    start: int
    stop: int
    positive: Tensor | None  # (words, stride) int32: positives with s <= positive_margin
    negative: Tensor | None  # (words, stride) int32: negatives with s >= negative_margin


def _words(num_labels: int) -> int:
    """Words per row: whole tiles of any walk and whole blocks of labels."""
    return triton.cdiv(num_labels, LARGEST_TILE) * LARGEST_TILE // 32


def rows_that_fit(num_labels: int, sides: int) -> int:
    """Rows whose bits fit in the workspace, with the lists of one side; a multiple of ``BLOCK``.

    A block's list has room for half of the labels, each with an int32 and BLOCK bits: 10 bytes
    per label beside 16 of bits. At B = M = 32,768 that is 208 MiB.
    """
    block_bytes = _words(num_labels) * 32 * (BLOCK // 8 * sides + (4 + BLOCK // 8) // 2)
    return max(workspace.WORKSPACE_BYTES // block_bytes, 1) * BLOCK


def bits_shape(num_labels: int, start: int, stop: int) -> tuple[int, int]:
    """(words, stride) of the bits of the rows ``start`` .. ``stop``."""
    return _words(num_labels), triton.cdiv(stop - start, BLOCK) * BLOCK


def new_bits(num_labels: int, start: int, stop: int, like: Tensor) -> Tensor:
    """(words, stride) int32, for a walk to fill; rows past ``stop`` are never written."""
    shape = bits_shape(num_labels, start, stop)
    return torch.empty(shape, dtype=torch.int32, device=like.device)


class Bits(NamedTuple):
    """The words of both sides as a kernel argument; of several widths (W, words, stride)."""

    KEEP_POSITIVE: tl.constexpr
    KEEP_NEGATIVE: tl.constexpr
    positive_ptr: Tensor
    negative_ptr: Tensor


def bits_argument(positive: Tensor | None, negative: Tensor | None, unused: Tensor) -> Bits:
    """The argument for the sides that are kept; ``unused`` stands for one that is not."""
    keep = tl.constexpr(positive is not None), tl.constexpr(negative is not None)
    return Bits(*keep, *(unused if side is None else side for side in (positive, negative)))


@triton.jit
def pack_bits(b_mask, ROWS: tl.constexpr, COLS: tl.constexpr):
    """(ROWS, COLS / 32) int32 words of a mask (ROWS, COLS)."""
    b_bit = tl.full((COLS,), 1, tl.int32) << (tl.arange(0, COLS) % WORD)
    b_bits = tl.where(b_mask, b_bit[None, :], 0)
    # Distinct bits: their sum is their union, and three summands are one instruction.
    return tl.sum(tl.reshape(b_bits, (ROWS, COLS // WORD, WORD)), 2)


@triton.jit
def count_bits(b_words):
    """Set bits of each word, int32."""
    b_x = b_words.to(tl.uint32, bitcast=True)
    b_x = b_x - ((b_x >> 1) & 0x55555555)
    b_x = (b_x & 0x33333333) + ((b_x >> 2) & 0x33333333)
    b_x = (b_x + (b_x >> 4)) & 0x0F0F0F0F
    b_x = b_x + (b_x >> 8)
    return ((b_x + (b_x >> 16)) & 0x3F).to(tl.int32)


@triton.jit
def store_words(bits_ptr, bits_stride, b_words, column, b_row, b_row_in, COLS: tl.constexpr):
    """Store a tile's words; b_row (R,): rows counted from the buffer's first."""
    b_word = column // WORD + tl.arange(0, COLS // WORD)
    b_at = b_word.to(tl.int64)[None, :] * bits_stride + b_row[:, None]
    tl.store(bits_ptr + b_at, b_words, mask=b_row_in[:, None])
