"""Unit rows and their gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.backends.both_sides import one_by_one
from alc_kernels.backends.interface import accumulation_dtype

ZERO_NORM = 1e-12  # a row with a norm up to this is a zero row


def inverse_norms(x: Tensor) -> Tensor:
    """(n,) inverse norms of ``x`` (n, d) acc, 0 for zero rows; no overflow for large rows."""
    if x.shape[1] == 0:
        return x.new_zeros(x.shape[0])
    largest = x.abs().amax(dim=1)
    safe = torch.where(largest > 0, largest, 1.0)
    # Dividing by the largest element first keeps the squares in range.
    scaled_norm = (x / safe[:, None]).square().sum(dim=1).sqrt()
    inverse = (1.0 / scaled_norm) / safe
    return torch.where(scaled_norm * largest <= ZERO_NORM, 0.0, inverse)


def normalize_rows(
    x: Tensor, dtype: torch.dtype, normalize: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """See ``interface.Backend.normalize_rows``."""
    finite = torch.isfinite(x).all()
    if not normalize:
        return x.to(dtype).contiguous(), None, finite
    wide = x.to(accumulation_dtype(x.dtype))
    inverse = inverse_norms(wide)
    rows = (wide * inverse[:, None]).to(x.dtype).to(dtype)
    return rows.contiguous(), inverse, finite


normalize_both = one_by_one(normalize_rows)


def normalize_rows_backward(
    grad: Tensor, x: Tensor, inverse_norm: Tensor | None, upstream: Tensor
) -> Tensor:
    """See ``interface.Backend.normalize_rows_backward``."""
    if inverse_norm is None:
        return (grad * upstream).to(x.dtype)
    unit = x.to(grad.dtype) * inverse_norm[:, None]
    along = (unit * grad).sum(dim=1, keepdim=True)
    return ((grad - unit * along) * (inverse_norm[:, None] * upstream)).to(x.dtype)
