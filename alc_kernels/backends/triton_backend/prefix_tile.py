"""A tile of S at several prefix widths: one sum along the embedding, scaled at each width."""

import triton
import triton.language as tl

from alc_kernels.backends.triton_backend.tile_product import add_products


@triton.jit
def add_width(
    b_raw,
    b_q_ptrs,
    b_k_ptrs,
    widths_ptr,  # (W + 1,) int32, the first is 0
    n,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """b_raw grown from width number n - 1 to number n."""
    begin = tl.load(widths_ptr + n)
    end = tl.load(widths_ptr + n + 1)
    if EVEN:  # unaligned loads of half precision can be neither wide nor asynchronous
        begin = tl.multiple_of(begin, DEPTH)
    return add_products(b_raw, b_q_ptrs, b_k_ptrs, begin, end, DEPTH, EVEN, PRECISION, UPCAST)


@triton.jit
def scale_tile(
    b_raw,
    query_scale_ptr,  # (W, B) float32 inverse norms, SCALED only
    label_scale_ptr,  # (W, M)
    b_query_at,  # (R,) int64 place in query_scale
    b_label_at,  # (C,) int64 place in label_scale, inside it
    b_row_in,
    SCALED: tl.constexpr,
):
    """The tile of S of one width."""
    b_s = b_raw
    if SCALED:
        b_q_scale = tl.load(query_scale_ptr + b_query_at, mask=b_row_in, other=0.0)
        b_k_scale = tl.load(label_scale_ptr + b_label_at)
        b_s = b_s * b_q_scale[:, None] * b_k_scale[None, :]
    return b_s
