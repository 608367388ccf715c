"""Every allowed error of the loss tests, with the reason for each number.

Errors are measured against the reference evaluated in float64 on the same rounded embeddings.
A value's error is relative to max(1, |value|); a gradient's error is ||g - g_ref|| / ||g_ref||.
``tests/losses/test_tolerances.py`` checks that none of these is laxer than what plain PyTorch,
computing the same loss in the same dtype the usual way, errs by on the same data.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tolerance:
    """Allowed errors for one dtype."""

    value: float
    gradient: float


TOLERANCES = {
    # Rounding of sums in another order, a few hundred terms of 1e-16.
    torch.float64: Tolerance(value=1e-13, gradient=1e-12),
    # Dot products of some dozens of terms err by a few 2^-24; a temperature of 0.05 multiplies
    # that by 20 in the exponent of the softmax.
    torch.float32: Tolerance(value=1e-6, gradient=4e-6),
    # The value only sees the rounding of the embeddings, which the reference shares. The gradient
    # is rounded to the dtype at the end (2^-11, 2^-8 per element, about half of that in the norm)
    # and its coefficients once before the products.
    torch.float16: Tolerance(value=2e-5, gradient=6e-4),
    torch.bfloat16: Tolerance(value=2e-5, gradient=4e-3),
}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """||found - expected|| / ||expected||; NaN fails.

    Below a norm of 1e-6 (against embeddings of norm 1) the gradient is 0 up to rounding, and the
    error is relative to that.
    """
    found, expected = found.double().cpu(), expected.double().cpu()
    scale = expected.norm().item()
    error = (found - expected).norm().item()
    if error != error:
        return float("inf")
    return error / max(scale, 1e-6)


def assert_close(name: str, found: torch.Tensor, expected: torch.Tensor, allowed: float) -> None:
    """Fail with the measured error when it exceeds ``allowed``."""
    error = relative_error(found, expected)
    assert error <= allowed, f"{name}: relative error {error:.3g}, allowed {allowed:.3g}"
