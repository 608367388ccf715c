"""One tile of S = Q K^T."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.launch import INTERPRETED, Tile, given_or


class Shape(NamedTuple):
    """A tile as a kernel argument: its sizes, and how it is multiplied."""

    ROWS: tl.constexpr
    COLS: tl.constexpr
    DEPTH: tl.constexpr  # step along the embedding
    EVEN: tl.constexpr  # DEPTH divides the width, or all of several
    PRECISION: tl.constexpr
    UPCAST: tl.constexpr  # the interpreter cannot multiply bfloat16 itself


class Rows(NamedTuple):
    """The embeddings as a kernel argument."""

    queries_ptr: Tensor  # (B, d)
    labels_ptr: Tensor  # (M, d)
    d: int


class Scales(NamedTuple):
    """Inverse norms of the prefixes of several widths."""

    query_ptr: Tensor  # (W, B) float32, SCALED only
    label_ptr: Tensor  # (W, M)
    SCALED: tl.constexpr


def tile_shape(tile: Tile, d: int, dtype: torch.dtype, precision: str) -> Shape:
    """The argument for a tile. d: the width, or a divisor of all of several."""
    upcast = INTERPRETED and dtype == torch.bfloat16
    sizes = (tile.rows, tile.cols, tile.depth, d % tile.depth == 0, precision, upcast)
    return Shape(*map(tl.constexpr, sizes))


def embeddings(queries: Tensor, labels: Tensor) -> Rows:
    """The argument for (B, d) and (M, d)."""
    return Rows(queries, labels, queries.shape[1])


def scales(query: Tensor | None, label: Tensor | None, unused: Tensor) -> Scales:
    """The argument for inverse norms, or for none."""
    pointers = given_or(query, unused), given_or(label, unused)
    return Scales(*pointers, tl.constexpr(query is not None))


@triton.jit
def row_pointers(ptr, row, num_rows, dim, ROWS: tl.constexpr):
    """(ROWS,) pointers to the rows from ``row`` (int64) on; those past the end repeat the last.

    Repeated rows need no mask in the loads; what is computed from them is dropped later.
    """
    last = tl.minimum(num_rows - 1 - row, ROWS).to(tl.int32)
    b_local = tl.minimum(tl.arange(0, ROWS), last)
    return ptr + row * dim + b_local.to(tl.int64) * dim


@triton.jit
def product(b_q, b_k, b_s, shape):
    """b_s + b_q @ b_k in float32."""
    if shape.UPCAST:
        b_q = b_q.to(tl.float32)
        b_k = b_k.to(tl.float32)
    return tl.dot(b_q, b_k, b_s, input_precision=shape.PRECISION)


@triton.jit
def add_products(b_s, b_q_ptrs, b_k_ptrs, begin, end, shape):
    """b_s plus the products of the coordinates begin .. end of the rows at the two pointers.

    EVEN: DEPTH divides their number.
    """
    b_depth = tl.arange(0, shape.DEPTH)
    for at in range(begin, end, shape.DEPTH):
        if shape.EVEN:
            b_q = tl.load(b_q_ptrs[:, None] + (at + b_depth)[None, :])
            b_k = tl.load(b_k_ptrs[None, :] + (at + b_depth)[:, None])
        else:
            b_in = at + b_depth < end
            b_q = tl.load(b_q_ptrs[:, None] + (at + b_depth)[None, :], b_in[None, :], 0.0)
            b_k = tl.load(b_k_ptrs[None, :] + (at + b_depth)[:, None], b_in[:, None], 0.0)
        b_s = product(b_q, b_k, b_s, shape)
    return b_s


@triton.jit
def tile_product(b_q_ptrs, b_k_ptrs, dim, shape):
    """(ROWS, COLS) float32: the products of the rows at b_q_ptrs with those at b_k_ptrs."""
    b_s = tl.zeros((shape.ROWS, shape.COLS), tl.float32)
    return add_products(b_s, b_q_ptrs, b_k_ptrs, 0, dim, shape)


@triton.jit
def tile_at(rows, row, column, num_queries, num_labels, shape):
    """The tile of S whose first pair is (row, column), both int64."""
    return tile_product(
        row_pointers(rows.queries_ptr, row, num_queries, rows.d, shape.ROWS),
        row_pointers(rows.labels_ptr, column, num_labels, rows.d, shape.COLS),
        rows.d,
        shape,
    )


@triton.jit
def load_rows(b_ptrs, dim, shape):
    """(R, DEPTH) whole rows, dim <= DEPTH."""
    b_depth = tl.arange(0, shape.DEPTH)[None, :]
    if shape.EVEN:
        b_x = tl.load(b_ptrs[:, None] + b_depth)
    else:
        b_x = tl.load(b_ptrs[:, None] + b_depth, mask=b_depth < dim, other=0.0)
    return b_x


# Products of listed pairs of rows, with no tile of S around them.

MAX_DEPTH = 256


def depth_for(d: int) -> int:
    """Elements of two rows that are multiplied at a time."""
    return min(MAX_DEPTH, max(16, triton.next_power_of_2(d)))


@triton.jit
def pair_products(rows, b_rows, b_label, b_here, DEPTH: tl.constexpr):
    """(R,) float32: query b_rows times label b_label, 0 where not b_here."""
    b_depth = tl.arange(0, DEPTH)
    b_s = tl.zeros(b_rows.shape, tl.float32)
    for at in range(0, rows.d, DEPTH):
        b_in = b_here[:, None] & (at + b_depth < rows.d)[None, :]
        b_at = (at + b_depth)[None, :]
        b_q = tl.load(rows.queries_ptr + b_rows[:, None] * rows.d + b_at, mask=b_in, other=0.0)
        b_k = tl.load(rows.labels_ptr + b_label[:, None] * rows.d + b_at, mask=b_in, other=0.0)
        b_s += tl.sum(b_q.to(tl.float32) * b_k.to(tl.float32), 1)
    return b_s


# A tile of S at several prefix widths: one sum along the embedding, scaled at each width.


@triton.jit
def add_width(b_raw, b_q_ptrs, b_k_ptrs, widths_ptr, n, shape):
    """b_raw grown from width number n - 1 to number n; widths_ptr (W + 1,) int32, the first 0."""
    begin = tl.load(widths_ptr + n)
    end = tl.load(widths_ptr + n + 1)
    if shape.EVEN:  # unaligned loads of half precision can be neither wide nor asynchronous
        begin = tl.multiple_of(begin, shape.DEPTH)
    return add_products(b_raw, b_q_ptrs, b_k_ptrs, begin, end, shape)


@triton.jit
def scale_tile(b_raw, scales, b_query_at, b_label_at, b_row_in):
    """The tile of S of one width; the rows' and columns' places in the scales, int64."""
    b_s = b_raw
    if scales.SCALED:
        b_q_scale = tl.load(scales.query_ptr + b_query_at, mask=b_row_in, other=0.0)
        b_k_scale = tl.load(scales.label_ptr + b_label_at)
        b_s = b_s * b_q_scale[:, None] * b_k_scale[None, :]
    return b_s
