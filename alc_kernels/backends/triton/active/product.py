"""The gradient of the active pairs, as a product over listed rows.

With A the 0/1 matrix of ``tile.bits``, dQ += scale A K and dK += scale A^T Q. A program owns a
block of the result and multiplies only the rows that its list names (``lists``): labels
that some query of the block is active with, or the reverse. Their bits become the first operand
in registers, so that A is never stored in the compute dtype: about 350 instructions per thread
and step of 64 rows in the code for sm_90, which run while the matrix units, busy for longer with
the step before (asynchronous there), do theirs.

The work follows the density by itself. With a share p of pairs active at random, a block of 128
needs 1 - (1 - p)^128 of the rows: 12 % at p = 0.001, 32 % at 0.003. A list that would name more
than half of its segment is not used; the same kernel with DENSE takes all rows of the segment
then, without gathering. Each program sees from the count of its own list which of the two it is
and leaves the other at once: nothing overflows or is dropped, the host never waits, and what is
not taken costs a launch. Above some 0.5 % active a step is two dense products beside the walk.

What bounds it: those products where most rows are listed; reading p B M rows of d values twice
where few are; reading the bits twice (B M / 8 bytes each) where none is. Times: not measured yet
(``benchmarks/on_gpu.sh`` does, at four densities).

0 and 1 are exact in every dtype; the scale is applied to the float32 sums. Programs own what they
write and add in the order of the lists: results repeat bit by bit.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.active.lists import (
    SHARE,
    Lists,
    list_labels,
    list_rows,
    prefix_bits_kernel,
)
from alc_kernels.backends.triton.launch import (
    Tile,
    device_limits,
    dot_precision,
    on_device_of,
    product_tile,
)
from alc_kernels.backends.triton.tile.bits import (
    BLOCK,
    WORD,
    ActiveBits,
    bits_argument,
    bits_shape,
    rows_that_fit,
)
from alc_kernels.backends.triton.tile.negatives import guard_argument
from alc_kernels.backends.triton.tile.product import (
    Shape,
    embeddings,
    product,
    scales,
    tile_shape,
)
from alc_kernels.backends.triton.tile.relation import walk_arguments
from alc_kernels.backends.triton.walk.prefix_launch import prefix_tile, width_bounds
from alc_kernels.engine.interface import GradientRequest, PrefixProblem, PrefixSides, Problem


@triton.jit
def expand_out(b_words, STEP: tl.constexpr, BLOCK: tl.constexpr, dtype: tl.constexpr):
    """(BLOCK, STEP) zeros and ones from (BLOCK / 32, STEP) words over the rows of the result."""
    b_bit = (b_words[:, None, :] >> tl.arange(0, WORD)[None, :, None]) & 1
    b_bit = tl.reshape(b_bit, (BLOCK, STEP))
    return tl.where(b_bit != 0, 1.0, 0.0).to(dtype)


@triton.jit
def expand_step(b_words, STEP: tl.constexpr, BLOCK: tl.constexpr, dtype: tl.constexpr):
    """(BLOCK, STEP) zeros and ones from (BLOCK, STEP / 32) words over the rows of the sum."""
    b_bit = (b_words[:, :, None] >> tl.arange(0, WORD)[None, None, :]) & 1
    b_bit = tl.reshape(b_bit, (BLOCK, STEP))
    return tl.where(b_bit != 0, 1.0, 0.0).to(dtype)


@triton.jit(
    do_not_specialize=[
        "num_out", "num_rows", "row_start", "bits_stride", "num_segments", "segment_rows"
    ]
)  # fmt: skip
def active_product_kernel(
    bits_ptr,  # (words, bits_stride) int32
    masks_ptr,  # (blocks, num_segments, room, BLOCK / 32) int32, OF_QUERIES without DENSE
    entries_ptr,  # (blocks, num_segments, room) int32
    counts_ptr,  # (blocks, num_segments) int32
    rows_ptr,  # (n, d) compute dtype: labels for dQ, queries for dK
    scale_ptr,  # 0-d float32, without PARTIAL
    out_ptr,  # (num_out, d) float32, added to; PARTIAL: (num_segments, num_out, d), written
    num_out,  # rows of the result
    num_rows,  # what a list can name: labels for dQ, rows of the bits for dK
    row_start,  # what entry 0 is in rows_ptr
    d,
    bits_stride,
    num_segments,
    segment_rows,
    OF_QUERIES: tl.constexpr,  # the result is dQ and entries are labels; else dK and rows
    DENSE: tl.constexpr,  # lists that are too long to be written: all rows of the segment
    PARTIAL: tl.constexpr,
    NEGATE: tl.constexpr,
    shape: Shape,
):
    """One block of rows by BLOCK_D columns of one segment's sum."""
    BLOCK: tl.constexpr = shape.ROWS
    BLOCK_D: tl.constexpr = shape.COLS
    STEP: tl.constexpr = shape.DEPTH
    bits_stride = tl.multiple_of(bits_stride, BLOCK).to(tl.int64)
    room = segment_rows // SHARE
    blocks = tl.cdiv(num_out, BLOCK)
    # Programs that run together share a slab of columns, which the cache can hold.
    slab = tl.program_id(0) // (blocks * num_segments)
    within = tl.program_id(0) % (blocks * num_segments)
    segment = within // blocks
    block = within % blocks
    list_at = block.to(tl.int64) * num_segments + segment
    count = tl.load(counts_ptr + list_at)
    mine = (count > room) == DENSE
    first = segment * segment_rows
    if DENSE:
        count = tl.where(mine, tl.minimum(segment_rows, num_rows - first), 0)
    else:
        count = tl.where(mine, count, 0)

    b_out = block * BLOCK + tl.arange(0, BLOCK)
    b_word = tl.arange(0, BLOCK // WORD)
    b_d = slab * BLOCK_D + tl.arange(0, BLOCK_D)
    b_sum = tl.zeros((BLOCK, BLOCK_D), tl.float32)
    dtype = rows_ptr.dtype.element_ty
    for at in range(0, count, STEP):
        b_at = at + tl.arange(0, STEP)
        b_in = b_at < count
        if DENSE:
            b_index = tl.minimum(first + b_at, num_rows - 1)
        else:
            b_index = tl.load(entries_ptr + list_at * room + b_at, mask=b_in, other=0)
        # The transposed bits are read as such: no computed tile is ever transposed.
        if OF_QUERIES and DENSE:
            # Labels past the last have no bits.
            b_first = (first + at) // WORD + tl.arange(0, STEP // WORD)
            b_ptr = bits_ptr + b_first.to(tl.int64)[None, :] * bits_stride + b_out[:, None]
            b_bits = tl.load(b_ptr, mask=(b_first * WORD < num_rows)[None, :], other=0)
            b_active = expand_step(b_bits, STEP, BLOCK, dtype)
        else:
            if OF_QUERIES:
                b_ptr = masks_ptr + (list_at * room + b_at)[None, :] * (BLOCK // WORD)
                b_ptr += b_word[:, None]
            else:
                b_ptr = (
                    bits_ptr
                    + (block * (BLOCK // WORD) + b_word).to(tl.int64)[:, None] * bits_stride
                )
                b_ptr += b_index[None, :]
            b_bits = tl.load(b_ptr, mask=b_in[None, :], other=0)
            b_active = expand_out(b_bits, STEP, BLOCK, dtype)
        b_row_at = (row_start + b_index.to(tl.int64))[:, None] * d + b_d[None, :]
        if shape.EVEN:  # COLS divides d
            b_x = tl.load(rows_ptr + b_row_at)
        else:
            b_x = tl.load(rows_ptr + b_row_at, mask=(b_d < d)[None, :], other=0.0)
        b_sum = product(b_active, b_x, b_sum, shape)

    b_mask = (b_out < num_out)[:, None] & (b_d < d)[None, :]
    b_row = b_out.to(tl.int64)
    if PARTIAL:
        # Either of the two kernels writes each partial sum; an empty one is zero.
        if mine:
            b_row += segment.to(tl.int64) * num_out
            tl.store(out_ptr + b_row[:, None] * d + b_d[None, :], b_sum, mask=b_mask)
    elif count > 0:
        scale = tl.load(scale_ptr)
        if NEGATE:
            scale = -scale
        b_ptr = out_ptr + b_row[:, None] * d + b_d[None, :]
        b_sum = tl.load(b_ptr, mask=b_mask, other=0.0) + scale * b_sum
        tl.store(b_ptr, b_sum, mask=b_mask)


def segments_for(blocks: int, slabs: int, device: torch.device) -> int:
    """How often lists are cut so that programs fill the device twice; 1 where they do anyway."""
    _, multiprocessors = device_limits(device)
    return max(1, 2 * multiprocessors // (blocks * slabs))


def _multiply(
    bits: Tensor,
    lists: Lists,
    rows: Tensor,
    span: tuple[int, int],
    out: Tensor,
    scale: Tensor,
    tile: Tile,
    negate: bool,
) -> None:
    """Add +-scale A ``rows`` (A^T ``rows`` for lists of rows) to a slice of the gradient."""
    (row_start, num_rows), (num_out, d) = span, out.shape
    segments, partial = lists.segments, lists.segments > 1
    target = out
    if partial:
        target = torch.empty((segments, num_out, d), dtype=torch.float32, device=out.device)
    grid = triton.cdiv(num_out, BLOCK) * segments * triton.cdiv(d, tile.cols)
    masks = lists.entries if lists.masks is None else lists.masks
    shape = tile_shape(tile, d, rows.dtype, dot_precision(rows.dtype))
    shape = shape._replace(EVEN=tl.constexpr(d % tile.cols == 0))
    with on_device_of(out):
        for dense in (False, True):
            active_product_kernel[(grid,)](
                bits, masks, lists.entries, lists.counts, rows, scale, target, num_out, num_rows,
                row_start, d, bits.shape[1], segments, lists.size,
                OF_QUERIES=lists.masks is not None, DENSE=dense, PARTIAL=partial, NEGATE=negate,
                shape=shape, num_warps=tile.warps, num_stages=tile.stages,
            )  # fmt: skip
    if partial:
        out.addcmul_(target.sum(0), scale, value=-1.0 if negate else 1.0)


def add_active(
    problem: Problem,
    active: ActiveBits,
    positive_scale: Tensor | None,
    negative_scale: Tensor | None,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
) -> None:
    """Add the gradient of -positive_scale sum s + negative_scale sum s over the active pairs.

    Scales are 0-d float32; None leaves that side out. Gradients (B, d) and (M, d) float32.
    Takes memory for lists (``rows_that_fit``) and, where there are few blocks, for partial sums:
    two blocks of them per multiprocessor, 34 MiB on an H200.
    """
    queries, labels = problem.queries, problem.labels
    num_labels = labels.shape[0]
    num_rows, d = active.stop - active.start, queries.shape[1]
    capability, _ = device_limits(queries.device)
    tile = product_tile(capability, queries.dtype, d, dot_precision(queries.dtype))
    slabs = triton.cdiv(d, tile.cols)
    sides = ((active.positive, positive_scale, True), (active.negative, negative_scale, False))
    for bits, scale, negate in sides:
        if bits is None or scale is None:
            continue
        if grad_queries is not None:
            segments = segments_for(triton.cdiv(num_rows, BLOCK), slabs, queries.device)
            lists = list_labels(bits, num_rows, num_labels, segments)
            out = grad_queries[active.start : active.stop]
            _multiply(bits, lists, labels, (0, num_labels), out, scale, tile, negate)
        if grad_labels is not None:
            segments = segments_for(triton.cdiv(num_labels, BLOCK), slabs, queries.device)
            lists = list_rows(bits, num_rows, num_labels, segments, words=BLOCK // 32)
            span = (active.start, num_rows)
            _multiply(bits, lists, queries, span, grad_labels, scale, tile, negate)


# Host side of the active pairs of several prefix widths: bits of a chunk, sparse products.


def active_prefix_gradient(
    problem: PrefixProblem, requests: list[GradientRequest], sides: list[PrefixSides]
) -> None:
    """Bits of the active pairs, then their sparse products."""
    queries, labels, first = problem.queries, problem.labels, requests[0]
    num_rows, num_labels, device = queries.shape[0], labels.shape[0], queries.device
    num_widths = len(problem.widths)
    keep = (
        first.positive_margin is not None and problem.positives.kind != "empty",
        first.negative_margin is not None,
    )
    precision = dot_precision(queries.dtype)
    capability, _ = device_limits(device)
    tile = prefix_tile(capability, queries.dtype, problem.widths, precision, 1)
    shared = (
        embeddings(queries, labels),
        scales(problem.query_scale, problem.label_scale, queries),
        walk_arguments(problem.positives, device),
        walk_arguments(problem.exclude, device),
        guard_argument(problem, queries),
        width_bounds(problem.widths, device),
    )
    shape = tile_shape(tile, math.gcd(*problem.widths), queries.dtype, precision)
    step = rows_that_fit(num_labels, num_widths * max(sum(keep), 1))
    blocks = triton.cdiv(num_labels, tile.cols)
    for start in range(0, num_rows, step):
        stop = min(start + step, num_rows)
        bits_size = bits_shape(num_labels, start, stop)
        positive, negative = (
            torch.empty((num_widths, *bits_size), dtype=torch.int32, device=device)
            if wanted
            else None
            for wanted in keep
        )
        with on_device_of(queries):
            prefix_bits_kernel[(triton.cdiv(stop - start, tile.rows) * blocks,)](
                *shared, bits_argument(positive, negative, queries),
                float(first.positive_margin or 0.0), float(first.negative_margin or 0.0), num_rows,
                num_labels, num_widths, start, stop, *bits_size, shape=shape,
                num_warps=tile.warps, num_stages=tile.stages,
            )  # fmt: skip
        for n, (request, side) in enumerate(zip(requests, sides, strict=True)):
            own = Problem(side.queries, side.labels, problem.positives, problem.exclude, None)
            active = ActiveBits(
                start, stop, None if positive is None else positive[n],
                None if negative is None else negative[n],
            )  # fmt: skip
            add_active(
                own, active, request.positive_margin_scale, request.negative_margin_scale,
                side.grad_queries, side.grad_labels,
            )  # fmt: skip
