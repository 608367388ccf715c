"""The last step of every backward: un-normalise, apply the upstream gradient, round once."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.backends.choose import choose_backend
from alc_kernels.ops.prepare import plain_arithmetic

SECOND_DERIVATIVE = (
    "alc_kernels computes first derivatives only: a second derivative (create_graph=True, "
    "gradient penalties) is not defined for its fused losses. Use alc_kernels.reference."
)


def no_second_derivative(*_: object) -> None:
    """Backward of an operator that is itself a backward."""
    raise RuntimeError(SECOND_DERIVATIVE)


@torch.library.custom_op("alc_kernels::finish_gradient", mutates_args=())
def finish_gradient(
    grad: Tensor, x: Tensor, inverse_norm: Tensor, upstream: Tensor, normalize: bool, backend: str
) -> Tensor:
    """Gradient of the raw rows ``x`` (n, d) from ``grad`` (n, d) acc, in x.dtype."""
    with plain_arithmetic(x.device):
        chosen = choose_backend(backend, x, x.dtype)
        inverse = inverse_norm if normalize else None
        out = chosen.normalize_rows_backward(grad, x, inverse, upstream)
        return out.clone() if out is grad else out


@finish_gradient.register_fake
def _(
    grad: Tensor, x: Tensor, inverse_norm: Tensor, upstream: Tensor, normalize: bool, backend: str
) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


finish_gradient.register_autograd(no_second_derivative)


@torch.library.custom_op("alc_kernels::scale_gradient", mutates_args=())
def scale_gradient(grad: Tensor, x: Tensor, upstream: Tensor) -> Tensor:
    """``upstream * grad`` in the dtype of ``x``, which it belongs to."""
    with torch.no_grad():
        return (grad * upstream).to(x.dtype)


@scale_gradient.register_fake
def _(grad: Tensor, x: Tensor, upstream: Tensor) -> Tensor:
    return torch.empty(grad.shape, dtype=x.dtype, device=x.device)


scale_gradient.register_autograd(no_second_derivative)
