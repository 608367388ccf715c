"""Scalar functions and running sums shared by the kernels, in float32."""

import triton
import triton.language as tl

from alc_kernels.backends.triton.launch import INTERPRETED

# Triton's interpreter truncates to bfloat16 where a GPU rounds to nearest even.
ROUND_BY_HAND = tl.constexpr(INTERPRETED)
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
LOWEST = tl.constexpr(-3.4028234663852886e38)  # of the finite float32 numbers


@triton.jit
def rounded(x, dtype: tl.constexpr):
    """x in ``dtype``, rounded to nearest even everywhere."""
    if ROUND_BY_HAND:
        if dtype == tl.bfloat16:
            wide = x.to(tl.float32)
            bits = wide.to(tl.int32, bitcast=True)
            bits = (bits + (0x7FFF + ((bits >> 16) & 1))) & -65536
            wide = tl.where(wide == wide, bits.to(tl.float32, bitcast=True), wide)
            return wide.to(dtype)
    return x.to(dtype)


@triton.jit
def log1p_unit(x):
    """log(1 + x) for x in [0, 1], to float32 accuracy however small x is.

    log(1 + x) = 2 atanh(r), r = x / (2 + x) <= 1/3: the series in r^2 needs 7 terms. The plain
    logarithm of 1 + x would lose x below 1e-7, and sums over thousands of labels consist of
    such terms.
    """
    r = x / (2.0 + x)
    t = r * r
    p = 1.0 / 15.0
    p = p * t + 1.0 / 13.0
    p = p * t + 1.0 / 11.0
    p = p * t + 1.0 / 9.0
    p = p * t + 1.0 / 7.0
    p = p * t + 1.0 / 5.0
    p = p * t + 1.0 / 3.0
    return 2.0 * r * (p * t + 1.0)


@triton.jit
def softplus(x):
    """log(1 + e^x), stable for either sign; 0 at -inf."""
    return tl.maximum(x, 0.0) + log1p_unit(tl.exp2(-tl.abs(x) * LOG2_E))


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x), stable for either sign."""
    e = tl.exp2(-tl.abs(x) * LOG2_E)
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def grow_exp_sum(b_max, b_sum, b_z, b_z_max):
    """Add a tile to a running log-sum-exp in base 2: sum_j 2^z_j = b_sum * 2^b_max.

    b_z (R, C), -inf where a column does not count; b_z_max (R,) its row maximum. A row that has
    seen nothing keeps b_max = -inf, b_sum = 0.
    """
    b_new = tl.maximum(b_max, b_z_max)
    b_base = tl.where(b_new == float("-inf"), 0.0, b_new)
    b_sum = b_sum * tl.exp2(b_max - b_base) + tl.sum(tl.exp2(b_z - b_base[:, None]), 1)
    return b_new, b_sum


@triton.jit
def join_exp_sums(b_max, b_sum, b_other_max, b_other_sum):
    """The sum of two running log-sum-exps in base 2, either of which may be empty."""
    b_new = tl.maximum(b_max, b_other_max)
    b_base = tl.where(b_new == float("-inf"), 0.0, b_new)
    b_sum = b_sum * tl.exp2(b_max - b_base) + b_other_sum * tl.exp2(b_other_max - b_base)
    return b_new, b_sum


# What a tile adds to the running softmax and sigmoid sums of its rows' negatives.


@triton.jit
def add_softmax(
    b_max,  # (R,) as grow_exp_sum has them
    b_sum,
    b_s,  # (R, COLS), -inf at what is no negative
    b_tile_max,  # (R,) its row maxima
    inverse_temperature,
    wanted,  # its label offset: ``merge.Wanted``
    column,
    num_labels,
    COLS: tl.constexpr,
):
    """(b_max, b_sum) with the tile's z = s / temperature + offset."""
    b_z = b_s * (inverse_temperature * LOG2_E)
    b_z_max = b_tile_max * (inverse_temperature * LOG2_E)
    if wanted.HAS_OFFSET:
        b_cols = tl.minimum(column + tl.arange(0, COLS), num_labels - 1)
        b_z += (tl.load(wanted.offset_ptr + b_cols) * LOG2_E)[None, :]
        b_z_max = tl.max(b_z, 1)
    return grow_exp_sum(b_max, b_sum, b_z, b_z_max)


@triton.jit
def add_sigmoid(b_sum, b_s, scale, bias):
    """b_sum (R,) with the tile's log(1 + e^x), x = scale s + bias; b_s as for ``add_softmax``."""
    b_x = softplus(scale * b_s + bias)
    return b_sum + tl.sum(tl.where(b_s == float("-inf"), 0.0, b_x), 1)


# The tiles of a pass that stores a whole chunk of rows: which program has which, and its store.


# Row tiles that share a column tile while it is in the cache.
GROUP = tl.constexpr(16)


@triton.jit
def own_tile(num_rows, num_cols, shape):
    """(row tile, column tile) of this program, and how many column tiles there are, int32.

    Down a group of row tiles, then the next column.
    """
    num_row_tiles = tl.cdiv(num_rows, shape.ROWS).to(tl.int32)
    num_col_tiles = tl.cdiv(num_cols, shape.COLS).to(tl.int32)
    program = tl.program_id(0)
    in_group = GROUP * num_col_tiles
    first = (program // in_group) * GROUP
    height = tl.minimum(num_row_tiles - first, GROUP)
    local = program % in_group
    return first + local % height, local // height, num_col_tiles


@triton.jit
def store_tile(out_ptr, row, column, stride, b_value, shape):
    """Store b_value (ROWS, COLS), rounded, in the workspace from (row, column), both int64, on.

    The workspace holds whole tiles: no mask. Offsets within a tile fit 32 bits, which saves
    registers: pointers of 64 bits per element would take as many as the tile.
    """
    tile_ptr = out_ptr + row * stride + column
    b_at = tl.arange(0, shape.ROWS)[:, None] * stride + tl.arange(0, shape.COLS)[None, :]
    tl.store(tile_ptr + b_at, rounded(b_value, out_ptr.dtype.element_ty))
