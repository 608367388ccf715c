"""Unit rows rounded once, and their gradient in one kernel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.launch import on_device_of
from alc_kernels.backends.triton.tile.arithmetic import rounded
from alc_kernels.engine.interface import one_by_one

ZERO_NORM = tl.constexpr(1e-12)  # a row with a norm up to this is a zero row
# A second sum of squares, of the values times 2^-80, for rows whose squares overflow float32: a
# power of two scales exactly, and what it makes underflow is below rounding in such a row.
SHRINK = tl.constexpr(2.0**-80)

BLOCK_ROWS = 8
BLOCK_D = 256
NUM_WARPS = 4


@triton.jit(do_not_specialize=["num_rows"])
def normalize_rows_kernel(
    x_ptr,  # (num_rows, d), any strides
    rows_ptr,  # (num_rows, d) contiguous
    inverse_ptr,  # (num_rows,) float32
    finite_ptr,  # 0-d uint8, 1 beforehand
    num_rows,
    d,
    stride_row,
    stride_d,
    NORMALIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    b_rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    b_in = b_rows < num_rows
    b_x_ptr = x_ptr + b_rows[:, None] * stride_row
    b_out_ptr = rows_ptr + b_rows[:, None] * d
    b_squares = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.float32)
    b_small_squares = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.float32)
    b_bad = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.int32)
    for start in range(0, d, BLOCK_D):
        b_d = start + tl.arange(0, BLOCK_D)
        b_mask = b_in[:, None] & (b_d < d)[None, :]
        b_x = tl.load(b_x_ptr + b_d[None, :].to(tl.int64) * stride_d, mask=b_mask, other=0.0)
        b_wide = b_x.to(tl.float32)
        b_finite = tl.abs(b_wide) < float("inf")  # false for NaN
        b_bad |= (b_finite == 0).to(tl.int32)
        if NORMALIZE:
            b_small = b_wide * SHRINK
            b_squares += b_wide * b_wide
            b_small_squares += b_small * b_small
        else:
            tl.store(b_out_ptr + b_d[None, :], rounded(b_x, rows_ptr.dtype.element_ty), mask=b_mask)
    # Every program that finds one writes the same value.
    tl.store(finite_ptr, 0, mask=tl.max(tl.max(b_bad, 1), 0) != 0)

    if NORMALIZE:
        b_sum = tl.sum(b_squares, 1)
        b_large = b_sum == float("inf")
        b_norm = tl.sqrt_rn(tl.where(b_large, tl.sum(b_small_squares, 1), b_sum))
        b_is_zero = (b_large == 0) & (b_norm <= ZERO_NORM)
        b_factor = tl.where(b_is_zero, 0.0, tl.div_rn(1.0, tl.where(b_is_zero, 1.0, b_norm)))
        b_shrink = tl.where(b_large, SHRINK, 1.0)
        tl.store(inverse_ptr + b_rows, b_factor * b_shrink, mask=b_in)
        for start in range(0, d, BLOCK_D):
            b_d = start + tl.arange(0, BLOCK_D)
            b_mask = b_in[:, None] & (b_d < d)[None, :]
            b_x = tl.load(b_x_ptr + b_d[None, :].to(tl.int64) * stride_d, mask=b_mask, other=0.0)
            b_unit = (b_x.to(tl.float32) * b_shrink[:, None]) * b_factor[:, None]
            b_unit = rounded(b_unit, x_ptr.dtype.element_ty)
            b_unit = rounded(b_unit, rows_ptr.dtype.element_ty)
            tl.store(b_out_ptr + b_d[None, :], b_unit, mask=b_mask)


@triton.jit(do_not_specialize=["num_rows"])
def normalize_rows_backward_kernel(
    grad_ptr,  # (num_rows, d) float32 contiguous
    x_ptr,  # (num_rows, d), any strides
    inverse_ptr,  # (num_rows,) float32
    upstream_ptr,  # 0-d float32
    out_ptr,  # (num_rows, d) contiguous, x's dtype
    num_rows,
    d,
    stride_row,
    stride_d,
    NORMALIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    b_rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    b_in = b_rows < num_rows
    upstream = tl.load(upstream_ptr)
    b_x_ptr = x_ptr + b_rows[:, None] * stride_row
    b_grad_ptr = grad_ptr + b_rows[:, None] * d
    b_out_ptr = out_ptr + b_rows[:, None] * d
    b_inverse = tl.zeros((BLOCK_ROWS,), tl.float32) + 1.0
    b_along = tl.zeros((BLOCK_ROWS,), tl.float32)
    if NORMALIZE:
        b_inverse = tl.load(inverse_ptr + b_rows, mask=b_in, other=0.0)
        b_products = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.float32)
        for start in range(0, d, BLOCK_D):
            b_d = start + tl.arange(0, BLOCK_D)
            b_mask = b_in[:, None] & (b_d < d)[None, :]
            b_x = tl.load(b_x_ptr + b_d[None, :].to(tl.int64) * stride_d, mask=b_mask, other=0.0)
            b_grad = tl.load(b_grad_ptr + b_d[None, :], mask=b_mask, other=0.0)
            b_products += (b_x.to(tl.float32) * b_inverse[:, None]) * b_grad
        b_along = tl.sum(b_products, 1)
    b_scale = b_inverse * upstream
    for start in range(0, d, BLOCK_D):
        b_d = start + tl.arange(0, BLOCK_D)
        b_mask = b_in[:, None] & (b_d < d)[None, :]
        b_out = tl.load(b_grad_ptr + b_d[None, :], mask=b_mask, other=0.0)
        if NORMALIZE:
            b_x = tl.load(b_x_ptr + b_d[None, :].to(tl.int64) * stride_d, mask=b_mask, other=0.0)
            b_out -= (b_x.to(tl.float32) * b_inverse[:, None]) * b_along[:, None]
        b_out = b_out * b_scale[:, None]
        b_out = rounded(b_out, out_ptr.dtype.element_ty)
        tl.store(b_out_ptr + b_d[None, :], b_out, mask=b_mask)


def normalize_rows(
    x: Tensor, dtype: torch.dtype, normalize: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """See ``interface.Backend.normalize_rows``."""
    num_rows, d = x.shape
    rows = torch.empty((num_rows, d), dtype=dtype, device=x.device)
    inverse = torch.empty(num_rows if normalize else 0, dtype=torch.float32, device=x.device)
    finite = torch.ones((), dtype=torch.bool, device=x.device)
    if num_rows > 0:
        with on_device_of(x):
            normalize_rows_kernel[(triton.cdiv(num_rows, BLOCK_ROWS),)](
                x,
                rows,
                inverse,
                finite.view(torch.uint8),
                num_rows,
                d,
                x.stride(0),
                x.stride(1),
                NORMALIZE=normalize,
                BLOCK_ROWS=BLOCK_ROWS,
                BLOCK_D=BLOCK_D,
                num_warps=NUM_WARPS,
            )
    return rows, inverse if normalize else None, finite


normalize_both = one_by_one(normalize_rows)


def normalize_rows_backward(
    grad: Tensor, x: Tensor, inverse_norm: Tensor | None, upstream: Tensor
) -> Tensor:
    """See ``interface.Backend.normalize_rows_backward``."""
    num_rows, d = x.shape
    out = torch.empty((num_rows, d), dtype=x.dtype, device=x.device)
    if num_rows > 0:
        with on_device_of(x):
            normalize_rows_backward_kernel[(triton.cdiv(num_rows, BLOCK_ROWS),)](
                grad.contiguous(),
                x,
                upstream if inverse_norm is None else inverse_norm,
                upstream,
                out,
                num_rows,
                d,
                x.stride(0),
                x.stride(1),
                NORMALIZE=inverse_norm is not None,
                BLOCK_ROWS=BLOCK_ROWS,
                BLOCK_D=BLOCK_D,
                num_warps=NUM_WARPS,
            )
    return out
