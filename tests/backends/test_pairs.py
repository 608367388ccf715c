"""Scores and gradients of listed pairs, on every backend."""

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
    error,
    random_problem,
)

pytestmark = pytest.mark.parametrize("name", BACKENDS)
SIZES = [(1, 1, 1, 1), (37, 23, 40, 3), (20, 31, 150, 2)]  # B, M, d, t


def _pairs(problem: Problem, t: int, *, hot: bool = False) -> tuple[Tensor, Tensor]:
    """Label numbers, some missing, and coefficients, which are NaN where the label is missing."""
    b, m = problem.queries.shape[0], problem.labels.shape[0]
    generator = torch.Generator().manual_seed(b + t)
    index = torch.randint(0, m, (b, t), generator=generator)
    if hot:
        index[:] = m // 2
        index[1::11] = 0
    index[torch.rand(b, t, generator=generator) < 0.2] = -1
    coefficient = torch.randn(b, t, generator=generator)
    coefficient[index < 0] = float("nan")
    return index.to(problem.queries.device), coefficient.to(problem.queries.device)


def _gradients(
    problem: Problem, index: Tensor, coefficient: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """By automatic differentiation in ``dtype``."""
    queries = problem.queries.to(dtype).requires_grad_()
    labels = problem.labels.to(dtype).requires_grad_()
    scores = (queries[:, None] * labels[index.clamp(min=0)]).sum(2)
    loss = torch.where(index < 0, 0.0, coefficient.nan_to_num() * scores).sum()
    return torch.autograd.grad(loss, (queries, labels))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_scores(name, dtype, size, device):
    problem = random_problem(*size[:3], dtype, device)
    index, _ = _pairs(problem, size[3])
    scores = backend(name).score_pairs(problem, index)
    pairs = problem.queries[:, None], problem.labels[index.clamp(min=0)]
    exact = torch.where(index < 0, 0.0, (pairs[0].double() * pairs[1].double()).sum(2))
    plain = torch.where(index < 0, 0.0, (pairs[0].float() * pairs[1].float()).sum(2))
    assert scores.dtype == torch.float32
    assert_close(scores, exact, plain)
    assert not scores[index < 0].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("deterministic", [True, False])
def test_gradients_are_added(name, dtype, size, deterministic, device):
    problem = random_problem(*size[:3], dtype, device)
    index, coefficient = _pairs(problem, size[3])
    start = torch.ones_like(problem.queries).float(), torch.ones_like(problem.labels).float()
    found = start[0].clone(), start[1].clone()
    backend(name).pair_gradient(problem, index, coefficient, *found, deterministic)
    exact = _gradients(problem, index, coefficient, torch.float64)
    plain = _gradients(problem, index, coefficient, torch.float32)
    for a, b, c, d in zip(found, start, exact, plain, strict=True):
        assert_close(a, b + c, b + d)


@pytest.mark.parametrize("deterministic", [True, False])
def test_one_label_of_nearly_all_queries(name, deterministic, device):
    problem = random_problem(400, 9, 20, torch.float32, device)
    index, coefficient = _pairs(problem, 2, hot=True)
    found = torch.zeros(400, 20, device=device), torch.zeros(9, 20, device=device)
    backend(name).pair_gradient(problem, index, coefficient, *found, deterministic)
    exact = _gradients(problem, index, coefficient, torch.float64)
    plain = _gradients(problem, index, coefficient, torch.float32)
    for a, c, d in zip(found, exact, plain, strict=True):
        assert_close(a, c, d)


@pytest.mark.parametrize("dtype", DTYPES)
def test_deterministic_gradients_repeat_bit_by_bit(name, dtype, device):
    problem = random_problem(200, 9, 20, dtype, device)
    index, coefficient = _pairs(problem, 2, hot=True)

    def run() -> Tensor:
        grad = torch.zeros(9, 20, device=device)
        backend(name).pair_gradient(problem, index, coefficient, None, grad, True)
        return grad

    first = run()
    assert all(torch.equal(first, run()) for _ in range(2))


def test_each_side_alone(name, device):
    problem = random_problem(37, 23, 40, torch.float32, device)
    index, coefficient = _pairs(problem, 3)
    exact = _gradients(problem, index, coefficient, torch.float64)
    for side in (0, 1):
        grads: list[Tensor | None] = [None, None]
        grads[side] = torch.zeros(exact[side].shape, device=device)
        backend(name).pair_gradient(problem, index, coefficient, *grads, True)
        assert error(grads[side], exact[side]) < 1e-6


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(("b", "m", "t"), [(0, 5, 2), (5, 5, 0), (5, 5, 2), (5, 0, 2)])
def test_nothing_listed(name, b, m, t, deterministic, device):
    problem = random_problem(b, m, 8, torch.float32, device)
    index = torch.full((b, t), -1, device=device)
    assert not backend(name).score_pairs(problem, index).any()
    grads = torch.ones(b, 8, device=device), torch.ones(m, 8, device=device)
    coefficient = torch.full((b, t), float("nan"), device=device)
    backend(name).pair_gradient(problem, index, coefficient, *grads, deterministic)
    assert all(bool((grad == 1).all()) for grad in grads)
