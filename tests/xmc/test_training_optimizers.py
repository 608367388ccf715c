"""RowAdagrad against a dense loop, clipping against PyTorch, the learning rate's course."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from alc_kernels.trainer.training.optimizers import (
    Optimizers,
    RowAdagrad,
    clip_gradients,
    learning_rate_factor,
    sparse_rows,
)


@pytest.mark.parametrize("calls", [1, 2])
def test_row_adagrad_is_adagrad_per_row(calls: int) -> None:
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(9, 4))
    expected, total = table.detach().clone(), torch.zeros(9, 1)
    optimizer = RowAdagrad([table], lr=0.1)
    for step in range(5):
        dense = torch.zeros(9, 4)
        optimizer.zero_grad()
        loss = torch.zeros(())
        for call in range(calls):  # two calls leave duplicate rows in the gradient
            rows = torch.tensor([0, 2, 3 + step % 3, 8]) - call
            factor = torch.randn(4, 4)
            loss = loss + (F.embedding(rows % 9, table, sparse=True) * factor).sum()
            dense.index_add_(0, rows % 9, factor)
        loss.backward()
        optimizer.step()
        total += dense.square().mean(1, keepdim=True)
        expected -= 0.1 * torch.where(dense != 0, dense / (total.sqrt() + 1e-10), 0.0)
    torch.testing.assert_close(table.detach(), expected)


def test_row_adagrad_with_rate_zero_does_nothing() -> None:
    table = torch.nn.Parameter(torch.ones(3, 2))
    F.embedding(torch.tensor([1]), table, sparse=True).sum().backward()
    RowAdagrad([table], lr=0.0).step()
    assert torch.equal(table, torch.ones(3, 2))


def test_dense_gradients_are_refused() -> None:
    with pytest.raises(TypeError, match="expected a sparse gradient"):
        sparse_rows(torch.ones(3, 2))


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_counts_sparse_gradients_too(limit: float) -> None:
    torch.manual_seed(1)
    table = torch.nn.Parameter(torch.randn(6, 3))
    weight = torch.nn.Parameter(torch.randn(3))
    rows = torch.tensor([4, 1, 4])
    (F.embedding(rows, table, sparse=True) * torch.randn(3, 3)).sum().backward()
    (weight * torch.randn(3)).sum().backward()
    dense = [torch.nn.Parameter(p.detach().clone()) for p in (table, weight)]
    for copy, original in zip(dense, (table, weight), strict=True):
        assert original.grad is not None
        copy.grad = original.grad.to_dense().clone()
    torch.nn.utils.clip_grad_norm_(dense, limit)
    clip_gradients([table, weight], limit)
    assert table.grad is not None and weight.grad is not None
    torch.testing.assert_close(table.grad.to_dense(), dense[0].grad)
    torch.testing.assert_close(weight.grad, dense[1].grad)


def test_learning_rate_rises_then_falls() -> None:
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0
    assert all(b > a for a, b in pairwise(factors[:10]))
    assert all(b < a for a, b in pairwise(factors[10:]))
    assert 0 < factors[-1] < 0.02
    assert [learning_rate_factor(step, 1, 0.0) for step in range(1)] == [1.0]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_every_schedule_rises_alike_and_never_reaches_zero(schedule: str) -> None:
    factors = [learning_rate_factor(step, 100, 0.1, schedule) for step in range(100)]
    assert factors[:10] == [learning_rate_factor(step, 100, 0.1) for step in range(10)]
    assert min(factors) > 0 and max(factors) == 1.0
    x = (60 - 10 + 1) / (100 - 10 + 1)
    expected = {"linear": 1 - x, "cosine": (1 + math.cos(math.pi * x)) / 2, "constant": 1.0}
    assert factors[60] == pytest.approx(expected[schedule])


def make_optimizers() -> tuple[torch.nn.Parameter, torch.nn.Parameter, Optimizers]:
    torch.manual_seed(2)
    table = torch.nn.Parameter(torch.randn(6, 3))
    weight = torch.nn.Parameter(torch.randn(3))
    made = Optimizers(
        [weight, table], [table], learning_rate=0.1, table_learning_rate=0.2, weight_decay=0.1
    )
    return table, weight, made


def take_step(
    table: torch.nn.Parameter,
    weight: torch.nn.Parameter,
    optimizers: Optimizers,
    scaler: torch.amp.GradScaler,
    clip_norm: float = 0.0,
    factor: float = 1.0,
) -> None:
    optimizers.start(0.5)
    rows = torch.tensor([4, 1, 4])
    loss = factor * (F.embedding(rows, table, sparse=True) * weight).square().sum()
    scaler.scale(loss).backward()
    optimizers.step(scaler, clip_norm)


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_a_loss_scale_changes_nothing(clip_norm: float) -> None:
    """A power of two scales float32 gradients without rounding."""
    made = []
    for enabled in (False, True):
        table, weight, optimizers = make_optimizers()
        scaler = torch.amp.GradScaler("cpu", enabled=enabled, init_scale=2.0**10)
        for _ in range(3):
            take_step(table, weight, optimizers, scaler, clip_norm)
        made.append((table.detach(), weight.detach()))
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=0 if not clip_norm else 1e-6)


def test_a_step_whose_gradients_overflow_is_skipped_and_the_scale_halves() -> None:
    table, weight, optimizers = make_optimizers()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = table.detach().clone(), weight.detach().clone()
    take_step(table, weight, optimizers, scaler, factor=1e38)
    assert torch.equal(table, before[0]) and torch.equal(weight, before[1])
    assert scaler.get_scale() == 2.0**9
    take_step(table, weight, optimizers, scaler)
    assert not torch.equal(table, before[0]) and not torch.equal(weight, before[1])


def test_optimizers_go_on_from_their_state() -> None:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    table, weight, optimizers = make_optimizers()
    for _ in range(3):
        take_step(table, weight, optimizers, scaler)
    saved = {name: value.clone() for name, value in optimizers.state_dict().items()}
    other_table, other_weight, others = make_optimizers()
    with torch.no_grad():
        other_table.copy_(table)
        other_weight.copy_(weight)
    others.load_state_dict(saved)
    take_step(table, weight, optimizers, scaler)
    take_step(other_table, other_weight, others, scaler)
    assert torch.equal(table, other_table) and torch.equal(weight, other_weight)
    with pytest.raises(KeyError):
        others.load_state_dict({"sparse.0.sum": torch.ones(1)})
