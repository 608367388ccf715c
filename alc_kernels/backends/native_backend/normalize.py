"""Unit rows and the gradient through them."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.backends.both_sides import Both


def normalize_rows(
    x: Tensor, dtype: torch.dtype, normalize: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """See ``interface.Backend.normalize_rows``."""
    rows, inverse, finite = torch.ops.alc_kernels_native.normalize_rows(x, dtype, normalize)
    return rows, inverse if normalize else None, finite


def normalize_both(queries: Tensor, labels: Tensor, dtype: torch.dtype, normalize: bool) -> Both:
    """See ``interface.Backend.normalize_both``: in one operator."""
    made: Both = torch.ops.alc_kernels_native.normalize_both(queries, labels, dtype, normalize)
    if normalize:
        return made
    unit_queries, _, unit_labels, _, poison = made
    return unit_queries, None, unit_labels, None, poison


def normalize_rows_backward(
    grad: Tensor, x: Tensor, inverse_norm: Tensor | None, upstream: Tensor
) -> Tensor:
    """See ``interface.Backend.normalize_rows_backward``."""
    return torch.ops.alc_kernels_native.normalize_rows_backward(grad, x, inverse_norm, upstream)
