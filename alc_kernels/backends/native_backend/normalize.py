"""Unit rows and the gradient through them."""

from __future__ import annotations

import torch
from torch import Tensor


def normalize_rows(
    x: Tensor, dtype: torch.dtype, normalize: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """See ``interface.Backend.normalize_rows``."""
    rows, inverse, finite = torch.ops.alc_kernels_native.normalize_rows(x, dtype, normalize)
    return rows, inverse if normalize else None, finite


def normalize_rows_backward(
    grad: Tensor, x: Tensor, inverse_norm: Tensor | None, upstream: Tensor
) -> Tensor:
    """See ``interface.Backend.normalize_rows_backward``."""
    return torch.ops.alc_kernels_native.normalize_rows_backward(grad, x, inverse_norm, upstream)
