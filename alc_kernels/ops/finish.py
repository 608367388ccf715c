"""The last step of every backward: un-normalise, apply the upstream gradient, round once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alc_kernels.backends.choose import choose_backend
from alc_kernels.backends.torch_backend.pairs import add_by_label
from alc_kernels.ops.operator import define
from alc_kernels.ops.prepare import plain_arithmetic


def _finish_gradient(
    grad: Tensor,
    x: Tensor,
    inverse_norm: Tensor,
    upstream: Tensor,
    more: Tensor | None,
    index: Tensor | None,
    normalize: bool,
    deterministic: bool,
    backend: str,
) -> Tensor:
    """Gradient of the raw rows ``x`` (n, d), in x.dtype.

    Args:
        grad: (n, d) acc, by the prepared rows, for an upstream gradient of 1.
        inverse_norm: (n,) acc; empty without normalisation.
        upstream: 0-d acc.
        more: a further gradient by the prepared rows, acc, added as it is: (n, d), or with
            ``index`` (B, t), the rows it belongs to, (B, t, d).
    """
    with plain_arithmetic(x.device):
        chosen = choose_backend(backend, x, x.dtype)
        inverse = inverse_norm if normalize else None
        if more is not None:
            if index is None:
                grad = torch.addcmul(more, grad, upstream)
            else:
                grad = grad * upstream
                if grad.shape[0] > 0:
                    more = torch.where((index < 0)[..., None], 0.0, more)
                    add_by_label(grad, index, more, deterministic)
            upstream = torch.ones_like(upstream)
        return chosen.normalize_rows_backward(grad, x, inverse, upstream)


def _finish_gradient_fake(x: Tensor, **_: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


finish_gradient = define("finish_gradient", _finish_gradient, _finish_gradient_fake, 5)


def _scale_gradient(grad: Tensor, x: Tensor, upstream: Tensor) -> Tensor:
    """``upstream * grad`` in the dtype of ``x``, which it belongs to."""
    with torch.no_grad():
        return (grad * upstream).to(x.dtype, copy=True)


def _scale_gradient_fake(grad: Tensor, x: Tensor, **_: Any) -> Tensor:
    return torch.empty(grad.shape, dtype=x.dtype, device=x.device)


scale_gradient = define("scale_gradient", _scale_gradient, _scale_gradient_fake, 3)
