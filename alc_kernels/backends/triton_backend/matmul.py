"""Products of the library's matrix multiplication with float32 results."""

from __future__ import annotations

import torch
from torch import Tensor


def upcasts(a: Tensor) -> bool:
    """Whether a product makes float32 copies of ``a``: half values outside a GPU."""
    return a.dtype != torch.float32 and not a.is_cuda


def add_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a (m, k) @ b (k, n), one dtype, to ``out`` (m, n) float32 contiguous."""
    # In-place and out= forms: autocast, which would round float32 operands, leaves them alone.
    if upcasts(a):
        out.addmm_(a.float(), b.float())
    elif a.dtype == torch.float32:
        out.addmm_(a, b)
    else:
        torch.addmm(out, a, b, out_dtype=torch.float32, out=out)


def set_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """Set ``out`` (m, n) float32 contiguous to a (m, k) @ b (k, n), one dtype."""
    if upcasts(a):
        torch.mm(a.float(), b.float(), out=out)
    elif a.dtype == torch.float32:
        torch.mm(a, b, out=out)
    else:
        torch.mm(a, b, out_dtype=torch.float32, out=out)
