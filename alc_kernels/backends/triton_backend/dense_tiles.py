"""The tiles of a pass that stores a whole chunk of rows: which program has which, and its store."""

import triton
import triton.language as tl

from alc_kernels.backends.triton_backend.arithmetic import rounded

# Row tiles that share a column tile while it is in the cache.
GROUP = tl.constexpr(16)


@triton.jit
def tile_of(program, num_row_tiles, num_col_tiles):
    """(row tile, column tile) of a program: down a group of row tiles, then the next column."""
    in_group = GROUP * num_col_tiles
    first = (program // in_group) * GROUP
    height = tl.minimum(num_row_tiles - first, GROUP)
    local = program % in_group
    return first + local % height, local // height


@triton.jit
def store_tile(out_ptr, row, column, stride, b_value, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Store b_value (ROWS, COLS), rounded, in the workspace from (row, column), both int64, on.

    The workspace holds whole tiles: no mask. Offsets within a tile fit 32 bits, which saves
    registers: pointers of 64 bits per element would take as many as the tile.
    """
    tile_ptr = out_ptr + row * stride + column
    b_at = tl.arange(0, ROWS)[:, None] * stride + tl.arange(0, COLS)[None, :]
    tl.store(tile_ptr + b_at, rounded(b_value, out_ptr.dtype.element_ty))
