"""What a tile adds to the running softmax and sigmoid sums of its rows' negatives."""

import triton
import triton.language as tl

from alc_kernels.backends.triton_backend.arithmetic import LOG2_E, grow_exp_sum, softplus


@triton.jit
def add_softmax(
    b_max,  # (R,) as grow_exp_sum has them
    b_sum,
    b_s,  # (R, COLS), -inf at what is no negative
    b_tile_max,  # (R,) its row maxima
    inverse_temperature,
    offset_ptr,  # (M,) float32, HAS_OFFSET only
    column,
    num_labels,
    HAS_OFFSET: tl.constexpr,
    COLS: tl.constexpr,
):
    """(b_max, b_sum) with the tile's z = s / temperature + offset."""
    b_z = b_s * (inverse_temperature * LOG2_E)
    b_z_max = b_tile_max * (inverse_temperature * LOG2_E)
    if HAS_OFFSET:
        b_cols = tl.minimum(column + tl.arange(0, COLS), num_labels - 1)
        b_z += (tl.load(offset_ptr + b_cols) * LOG2_E)[None, :]
        b_z_max = tl.max(b_z, 1)
    return grow_exp_sum(b_max, b_sum, b_z, b_z_max)


@triton.jit
def add_sigmoid(b_sum, b_s, scale, bias):
    """b_sum (R,) with the tile's log(1 + e^x), x = scale s + bias; b_s as for ``add_softmax``."""
    b_x = softplus(scale * b_s + bias)
    return b_sum + tl.sum(tl.where(b_s == float("-inf"), 0.0, b_x), 1)
