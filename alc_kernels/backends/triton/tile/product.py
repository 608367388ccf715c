"""One tile of S = Q K^T."""

import triton
import triton.language as tl


@triton.jit
def row_pointers(ptr, row, num_rows, dim, ROWS: tl.constexpr):
    """(ROWS,) pointers to the rows from ``row`` (int64) on; those past the end repeat the last.

    Repeated rows need no mask in the loads; what is computed from them is dropped later.
    """
    last = tl.minimum(num_rows - 1 - row, ROWS).to(tl.int32)
    b_local = tl.minimum(tl.arange(0, ROWS), last)
    return ptr + row * dim + b_local.to(tl.int64) * dim


@triton.jit
def product(b_q, b_k, b_s, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    """b_s + b_q @ b_k in float32. UPCAST: the interpreter cannot multiply bfloat16 itself."""
    if UPCAST:
        b_q = b_q.to(tl.float32)
        b_k = b_k.to(tl.float32)
    return tl.dot(b_q, b_k, b_s, input_precision=PRECISION)


@triton.jit
def add_products(
    b_s,
    b_q_ptrs,
    b_k_ptrs,
    begin,
    end,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """b_s plus the products of the coordinates begin .. end of the rows at the two pointers.

    EVEN: DEPTH divides their number.
    """
    b_depth = tl.arange(0, DEPTH)
    for at in range(begin, end, DEPTH):
        if EVEN:
            b_q = tl.load(b_q_ptrs[:, None] + (at + b_depth)[None, :])
            b_k = tl.load(b_k_ptrs[None, :] + (at + b_depth)[:, None])
        else:
            b_in = at + b_depth < end
            b_q = tl.load(b_q_ptrs[:, None] + (at + b_depth)[None, :], b_in[None, :], 0.0)
            b_k = tl.load(b_k_ptrs[None, :] + (at + b_depth)[:, None], b_in[:, None], 0.0)
        b_s = product(b_q, b_k, b_s, PRECISION, UPCAST)
    return b_s


@triton.jit
def tile_product(
    b_q_ptrs,
    b_k_ptrs,
    dim,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """(ROWS, COLS) float32: the products of the rows at b_q_ptrs with those at b_k_ptrs.

    EVEN: DEPTH divides dim.
    """
    b_s = tl.zeros((ROWS, COLS), tl.float32)
    return add_products(b_s, b_q_ptrs, b_k_ptrs, 0, dim, DEPTH, EVEN, PRECISION, UPCAST)


@triton.jit
def load_rows(b_ptrs, dim, DEPTH: tl.constexpr, EVEN: tl.constexpr):
    """(R, DEPTH) whole rows, dim <= DEPTH."""
    b_depth = tl.arange(0, DEPTH)[None, :]
    if EVEN:
        b_x = tl.load(b_ptrs[:, None] + b_depth)
    else:
        b_x = tl.load(b_ptrs[:, None] + b_depth, mask=b_depth < dim, other=0.0)
    return b_x


# A tile of S at several prefix widths: one sum along the embedding, scaled at each width.


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
