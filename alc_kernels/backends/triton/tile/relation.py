"""Which pairs of a tile belong to a sparse relation, for every kind of ``Positives``.

A kernel takes a relation as one ``Relation``, both pointers int64:

    kind       row_ptr           col_ptr
    empty      (unused)          (unused)
    diagonal   (unused)          (unused)
    index      (B,) label        (unused)
    ids        (B,) query ids    (M,) label ids
    csr        (B + 1,) crow     (nnz,) columns, ascending and unique in each row
    ranges     (B, 2) begin, end (nnz,) columns, as csr; rows may share entries

"ranges" is what ``walk_arguments`` makes of ids, so that a walk can visit their pairs one by one
instead of comparing all ids with all others.

A program that walks columns in ascending order calls ``open_rows`` once and then, tile by tile,
``tile_may_hold`` and (only if that says so) ``negatives.drop_pairs`` or ``take_positives``. Of the
program's block of rows these keep ``b_end`` (csr, ranges: one past the row's last entry) and
``at``, where the rows stand:

    b_key    index, diagonal: the label; ids: the query's id; csr, ranges: entry of the next column
    b_next   the row's next column, ``NO_COLUMN`` when there is none (ids: not used)
    next_column  the smallest b_next of the block: one scalar comparison settles most tiles

``negatives`` serves tiles taken in any order. Masks are not restricted to rows and columns inside
the matrix: the caller bounds them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.positives import Positives

NO_COLUMN = tl.constexpr(2**62)


class Relation(NamedTuple):
    """A relation as a kernel argument."""

    kind: tl.constexpr
    row_ptr: Tensor
    col_ptr: Tensor


def relation_arguments(relation: Positives, device: torch.device) -> Relation:
    """The kernel arguments of ``relation``; unused pointers point at a small dummy."""
    tensors = relation.tensors
    if relation.kind in ("ids", "csr"):
        row, col = tensors[:2]
    elif relation.kind == "index":
        row = col = tensors[0]
    else:
        row = col = torch.empty(1, dtype=torch.int64, device=device)
    return Relation(tl.constexpr(relation.kind), row.contiguous(), col.contiguous())


def walk_arguments(relation: Positives, device: torch.device) -> Relation:
    """As ``relation_arguments``, with ids sorted into ranges. No synchronisation.

    The stable sort leaves the columns of equal ids in ascending order.
    """
    if relation.kind != "ids":
        return relation_arguments(relation, device)
    query_ids, label_ids = relation.tensors
    ordered, columns = torch.sort(label_ids, stable=True)
    begin = torch.searchsorted(ordered, query_ids)
    end = torch.searchsorted(ordered, query_ids, right=True)
    return Relation(tl.constexpr("ranges"), torch.stack([begin, end], 1), columns)


@triton.jit
def either(a, b):
    return a | b


@triton.jit
def any_true(b_mask):
    """Scalar bool: any element of an (R, C) mask."""
    return tl.reduce(tl.reduce(b_mask, 1, either), 0, either)


@triton.jit
def any_row(b_mask):
    """Scalar bool: any element of an (R,) mask."""
    return tl.reduce(b_mask, 0, either)


@triton.jit
def first_entry(col_ptr, b_low, b_high, column):
    """Per row, the first entry in [low, high) whose column is >= ``column`` (binary search)."""
    while tl.max(b_high - b_low, 0) > 0:
        b_open = b_low < b_high
        b_middle = (b_low + b_high) // 2
        b_left = tl.load(col_ptr + b_middle, mask=b_open, other=0) < column
        b_low = tl.where(b_open & b_left, b_middle + 1, b_low)
        b_high = tl.where(b_open & (b_left == 0), b_middle, b_high)
    return b_low


@triton.jit
def open_rows(relation, b_rows, b_row_in, column):
    """(b_end, at) at ``column`` for a block of rows.

    b_rows (R,) int64 row numbers, b_row_in (R,) those inside the matrix, column int64.
    """
    b_none = tl.zeros_like(b_rows) + NO_COLUMN
    b_key = b_rows
    b_end = b_rows
    b_next = b_none
    if relation.kind == "diagonal":
        b_next = tl.where(b_row_in & (b_rows >= column), b_rows, b_none)
    elif relation.kind == "index":
        b_key = tl.load(relation.row_ptr + b_rows, mask=b_row_in, other=NO_COLUMN)
        b_next = tl.where(b_row_in & (b_key >= column), b_key, b_none)
    elif relation.kind == "ids":
        b_key = tl.load(relation.row_ptr + b_rows, mask=b_row_in, other=0)
    elif relation.kind == "csr" or relation.kind == "ranges":
        b_at = b_rows if relation.kind == "csr" else 2 * b_rows
        b_begin = tl.load(relation.row_ptr + b_at, mask=b_row_in, other=0)
        b_end = tl.load(relation.row_ptr + b_at + 1, mask=b_row_in, other=0)
        b_key = first_entry(relation.col_ptr, b_begin, b_end, column)
        b_next = tl.load(relation.col_ptr + b_key, mask=b_key < b_end, other=NO_COLUMN)
    return b_end, (b_key, b_next, tl.min(b_next, 0))


@triton.jit
def same_ids(relation, b_key, column, num_columns, COLS: tl.constexpr):
    """(R, COLS): the row's id is the column's."""
    b_cols = column + tl.arange(0, COLS)
    b_col_in = b_cols < num_columns
    b_ids = tl.load(relation.col_ptr + b_cols, mask=b_col_in, other=0)
    return (b_key[:, None] == b_ids[None, :]) & b_col_in[None, :]


@triton.jit
def tile_may_hold(relation, at, column, num_columns, COLS: tl.constexpr):
    """Scalar bool: the tile of COLS columns at ``column`` may hold a pair of the relation."""
    b_key, _b_next, next_column = at
    if relation.kind == "empty":
        holds = False
    elif relation.kind == "ids":
        holds = any_true(same_ids(relation, b_key, column, num_columns, COLS))
    else:
        holds = next_column < column + COLS
    return holds


@triton.jit
def next_entry(relation, b_key, b_end, b_next, b_here):
    """Move the rows in b_here past their next column: the new (b_key, b_next). Not for ids."""
    if relation.kind == "csr" or relation.kind == "ranges":
        b_key = tl.where(b_here, b_key + 1, b_key)
        b_read = b_here & (b_key < b_end)
        b_new = tl.load(relation.col_ptr + b_key, mask=b_read, other=NO_COLUMN)
        b_next = tl.where(b_here, b_new, b_next)
    else:
        b_next = tl.where(b_here, NO_COLUMN, b_next)
    return b_key, b_next


@triton.jit
def tile_mask(relation, b_end, at, column, num_columns, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Mask (ROWS, COLS) of the tile at ``column``.

    csr costs one step per entry of the row with the most entries in the tile; a tile without any
    costs one comparison per row.
    """
    b_key, b_next, _next = at
    b_mask = tl.full((ROWS, COLS), 0, tl.int1)
    if relation.kind == "ids":
        b_mask = same_ids(relation, b_key, column, num_columns, COLS)
    elif relation.kind != "empty":
        stop = column + COLS
        b_local = tl.arange(0, COLS)[None, :]
        b_here = b_next < stop
        # Offsets within the tile fit 32 bits; -1 where the row's next column is further on.
        b_mask = tl.where(b_here, b_next - column, -1).to(tl.int32)[:, None] == b_local
        b_key, b_next = next_entry(relation, b_key, b_end, b_next, b_here)
        if relation.kind == "csr" or relation.kind == "ranges":
            b_here = b_next < stop
            more = any_row(b_here)
            while more:
                b_at = tl.where(b_here, b_next - column, -1).to(tl.int32)
                b_mask |= b_at[:, None] == b_local
                b_key, b_next = next_entry(relation, b_key, b_end, b_next, b_here)
                b_here = b_next < stop
                more = any_row(b_here)
    return b_mask
