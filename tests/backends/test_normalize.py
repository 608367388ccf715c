"""Unit rows and their gradient, on every backend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.backends.common import (
    BACKENDS,
    DTYPES,
    assert_close,
    backend,
    error,
)

pytestmark = [
    pytest.mark.parametrize("name", BACKENDS),
    # Squares of large rows overflow by design; NumPy says so in the interpreter.
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]


def _rows(n: int, d: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(n * d))
    return x.to(device, dtype)


def _unit(x: Tensor) -> Tensor:
    """Unit rows in float64."""
    return x.double() / x.double().norm(dim=1, keepdim=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (13, 3), (9, 256), (19, 300)])
def test_unit_rows_are_rounded_once(name, dtype, n, d, device):
    x = _rows(n, d, dtype, device)
    rows, inverse, finite = backend(name).normalize_rows(x, dtype, True)
    assert rows.dtype == dtype and rows.is_contiguous() and finite.shape == ()
    assert finite.dtype == torch.bool and bool(finite)
    assert inverse.dtype == torch.float32
    assert error(inverse, 1 / x.double().norm(dim=1)) < 1e-6
    assert_close(rows, _unit(x), _unit(x).to(dtype), floor=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounds_to_the_input_dtype_and_then_to_another(name, dtype, device):
    x = _rows(9, 70, torch.float32, device)
    rows, _, _ = backend(name).normalize_rows(x, dtype, True)
    assert rows.dtype == dtype
    assert_close(rows, _unit(x), _unit(x).to(dtype))
    x = _rows(9, 70, torch.bfloat16, device)
    rows, _, _ = backend(name).normalize_rows(x, torch.float16, True)
    once, _, _ = backend(name).normalize_rows(x, torch.bfloat16, True)
    assert torch.equal(rows, once.half())


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_normalizing_only_converts(name, dtype, device):
    x = _rows(9, 300, torch.float32, device)
    rows, inverse, finite = backend(name).normalize_rows(x, dtype, False)
    assert inverse is None and bool(finite)
    assert rows.dtype == dtype
    assert_close(rows, x, x.to(dtype), floor=0.0)


def test_any_strides(name, device):
    x = _rows(40, 30, torch.float32, device)
    for view in (x.T, x[::3, 1:], x[:, ::2], x[:1].expand(9, 30)):
        rows, inverse, _ = backend(name).normalize_rows(view, torch.float32, True)
        same, same_inverse, _ = backend(name).normalize_rows(view.contiguous(), torch.float32, True)
        assert rows.is_contiguous() and error(rows, same) < 1e-6
        grad = torch.randn_like(rows)
        one = torch.ones((), device=device)
        found = backend(name).normalize_rows_backward(grad, view, inverse, one)
        expected = backend(name).normalize_rows_backward(grad, view.contiguous(), same_inverse, one)
        assert error(found, expected) < 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_rows(name, dtype, device):
    x = _rows(9, 40, dtype, device)
    x[3] = 0
    if dtype != torch.float16:
        x[5] = x[5] / x[5].norm() * 0.9e-12  # up to 1e-12 is zero
        x[6] = x[6] / x[6].norm() * 1.2e-12
    rows, inverse, finite = backend(name).normalize_rows(x, dtype, True)
    zero = [3] if dtype == torch.float16 else [3, 5]
    assert bool(finite)
    assert not rows[zero].any() and not inverse[zero].any()
    assert error(rows[6], _unit(x)[6]) < 1e-2
    grad = torch.randn(9, 40, device=device)
    upstream = torch.tensor(2.0, device=device)
    found = backend(name).normalize_rows_backward(grad, x, inverse, upstream)
    assert not found[zero].any() and torch.isfinite(found[[0, 1]]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-9, 1e19, 1e30, 3e38])
def test_small_and_large_rows_neither_vanish_nor_overflow(name, dtype, size, device):
    x = _rows(9, 300, torch.float32, device)
    x = (x / x.abs().amax(dim=1, keepdim=True) * size).to(dtype)
    rows, _, finite = backend(name).normalize_rows(x, dtype, True)
    assert bool(finite)
    assert_close(rows, _unit(x), _unit(x).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("normalize", [True, False])
def test_one_element_that_is_not_finite_lowers_the_flag(name, dtype, value, normalize, device):
    x = _rows(19, 300, dtype, device)
    x[17, 299] = value
    _, _, finite = backend(name).normalize_rows(x, dtype, normalize)
    assert not bool(finite)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (13, 3), (19, 300)])
def test_gradient_is_the_projection_rounded_once(name, dtype, n, d, device):
    x = _rows(n, d, dtype, device)
    grad = _rows(n, d, torch.float32, device).roll(1, 0)
    upstream = torch.tensor(3.0, device=device)
    _, inverse, _ = backend(name).normalize_rows(x, dtype, True)
    found = backend(name).normalize_rows_backward(grad, x, inverse, upstream)
    wide = x.double().requires_grad_()
    (_unit(wide) * grad.double()).sum().mul(3.0).backward()
    assert found.dtype == dtype
    if d == 1:  # the gradient is 0, the rest is rounding of the projection
        assert float(found.abs().max()) < 1e-5 * float(3 * (grad / x.float()).abs().max())
    else:
        assert_close(found, wide.grad, wide.grad.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_without_normalizing(name, dtype, device):
    x, grad = _rows(9, 300, dtype, device), _rows(9, 300, torch.float32, device)
    upstream = torch.tensor(0.3, device=device)
    found = backend(name).normalize_rows_backward(grad, x, None, upstream)
    assert_close(found, grad * upstream, (grad * upstream).to(dtype), floor=0.0)


def test_float16_gradient_sees_the_loss_scale_before_rounding(name, device):
    x = _rows(9, 64, torch.float16, device)
    grad = _rows(9, 64, torch.float32, device).roll(1, 0) * 1e-9  # below float16 by itself
    _, inverse, _ = backend(name).normalize_rows(x, torch.float16, True)
    scale = torch.tensor(2.0**16, device=device)
    found = backend(name).normalize_rows_backward(grad * 2**12, x, inverse, scale)
    wide = x.double().requires_grad_()
    (_unit(wide) * grad.double() * 2**28).sum().backward()
    assert error(found, wide.grad) < 1e-3


@pytest.mark.parametrize("normalize", [True, False])
def test_no_rows(name, normalize, device):
    x = torch.empty(0, 7, device=device)
    rows, inverse, finite = backend(name).normalize_rows(x, torch.float32, normalize)
    assert rows.shape == (0, 7) and bool(finite)
    one = torch.ones((), device=device)
    assert backend(name).normalize_rows_backward(rows, x, inverse, one).shape == (0, 7)
