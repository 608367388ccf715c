"""The linear pair head on [a; b; |a-b|; a*b], on every backend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alc_kernels.engine.interface import Problem
from tests.backends.common import (
    BACKENDS,
    DTYPES,
    assert_close,
    backend,
    random_problem,
)

pytestmark = pytest.mark.parametrize("name", BACKENDS)
SIZES = [(1, 1, 1, 1), (37, 23, 40, 2), (20, 31, 150, 1)]  # B, M, d, t


def _case(size, dtype, device) -> tuple[Problem, Tensor, Tensor, Tensor]:
    """A problem where some labels equal the query, missing labels, a weight, a gradient."""
    b, m, d, t = size
    problem = random_problem(b, m, d, dtype, device)
    generator = torch.Generator().manual_seed(b)
    index = torch.randint(-1, m, (b, t), generator=generator)
    index[0] = 0
    problem.labels[0] = problem.queries[0]  # |a - b| = 0 everywhere: slope 0
    weight = torch.randn(4 * d, generator=generator)
    grad = torch.randn(b, t, generator=generator)
    grad[index < 0] = float("nan")
    return problem, index.to(device), weight.to(device), grad.to(device)


def _naive(
    problem: Problem, index: Tensor, weight: Tensor, bias: float, grad: Tensor, dtype: torch.dtype
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits and the gradients of queries, labels and weight, with all features stored."""
    a = problem.queries.to(dtype).requires_grad_()
    b = problem.labels.to(dtype).requires_grad_()
    weight = weight.to(dtype).requires_grad_()
    y = b[index.clamp(min=0)]
    x = a[:, None].expand_as(y)
    logits = torch.cat([x, y, (x - y).abs(), x * y], dim=2) @ weight + bias
    logits = torch.where(index < 0, 0.0, logits)
    loss = (torch.where(index < 0, 0.0, grad.nan_to_num()).to(dtype) * logits).sum()
    return logits.detach(), torch.autograd.grad(loss, (a, b, weight))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_logits(name, dtype, size, device):
    problem, index, weight, grad = _case(size, dtype, device)
    bias = torch.tensor(0.25, device=device)
    found = backend(name).pair_logits(problem, index, weight, bias)
    exact, _ = _naive(problem, index, weight, 0.25, grad, torch.float64)
    plain, _ = _naive(problem, index, weight, 0.25, grad, torch.float32)
    assert found.dtype == torch.float32 and not found[index < 0].any()
    assert_close(found, exact, plain)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("deterministic", [True, False])
def test_gradients(name, dtype, size, deterministic, device):
    problem, index, weight, grad = _case(size, dtype, device)
    exact = _naive(problem, index, weight, 0.25, grad, torch.float64)[1]
    plain = _naive(problem, index, weight, 0.25, grad, torch.float32)[1]
    sides = [torch.zeros(g.shape, device=device) for g in exact[:2]]
    of_weight = backend(name).pair_logits_backward(
        problem, index, weight, grad, *sides, deterministic
    )
    for a, c, d in zip((*sides, of_weight), exact, plain, strict=True):
        assert_close(a, c, d)


def test_gradients_repeat_bit_by_bit(name, device):
    problem, index, weight, grad = _case((300, 9, 20, 1), torch.bfloat16, device)

    def run() -> tuple[Tensor, Tensor]:
        of_labels = torch.zeros(9, 20, device=device)
        of_weight = backend(name).pair_logits_backward(
            problem, index, weight, grad, None, of_labels, True
        )
        return of_labels, of_weight

    first = run()
    assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


@pytest.mark.parametrize(("b", "m"), [(0, 4), (4, 0), (4, 4)])
def test_nothing_listed(name, b, m, device):
    problem = random_problem(b, m, 8, torch.float32, device)
    index = torch.full((b, 1), -1, device=device)
    weight = torch.randn(32, device=device)
    bias = torch.tensor(0.25, device=device)
    assert not backend(name).pair_logits(problem, index, weight, bias).any()
    grads = torch.zeros(b, 8, device=device), torch.zeros(m, 8, device=device)
    grad = torch.ones(b, 1, device=device)
    found = backend(name).pair_logits_backward(problem, index, weight, grad, *grads, True)
    assert found.shape == (32,) and not found.any()
    assert not any(bool(side.any()) for side in grads)
