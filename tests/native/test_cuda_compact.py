"""Compaction of active pairs by the CUDA kernels: complete, in order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alc_kernels.backends.cuda import operators
from tests.native.cuda import ORDERS, set_order

NAN = float("nan")
SIZES = [(0, 0), (0, 5), (5, 0), (1, 1), (3, 31), (4, 32), (9, 33), (70, 11), (5, 1000)]


def check(found: tuple[Tensor, ...], active: Tensor, columns: Tensor, values: Tensor) -> None:
    """Offsets, and every active entry in the order of the matrix."""
    offsets, row, col, value = (tensor.cpu() for tensor in found)
    counts = active.sum(1)
    assert offsets.tolist() == [0, *counts.cumsum(0).tolist()]
    total = int(counts.sum())
    expected_row, at = active.nonzero(as_tuple=True)
    written = min(total, len(row))
    assert row[:written].tolist() == expected_row[:written].tolist()
    assert col[:written].tolist() == columns[expected_row, at][:written].tolist()
    torch.testing.assert_close(
        value[:written], values[expected_row, at][:written], rtol=0, atol=0, equal_nan=True
    )


def pairs(rows: int, cols: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Labels in and out of 0 .. 100, coefficients of which many are 0."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(-20, 120, (rows, cols), generator=generator)
    coefficient = torch.randn(rows, cols, generator=generator)
    coefficient[torch.rand(rows, cols, generator=generator) < 0.4] = 0.0
    coefficient[index < 0] = NAN
    return index, coefficient


@pytest.mark.parametrize("size", SIZES)
def test_pairs(cuda_device, size):
    index, coefficient = pairs(*size)
    found = operators.compact_pairs(index.to(cuda_device), coefficient.to(cuda_device), 100)
    active = (index >= 0) & (index < 100) & (coefficient != 0)
    check(found, active, index, coefficient)


def test_a_coefficient_that_is_nan_stays(cuda_device):
    index = torch.tensor([[0, 1, 2]], device=cuda_device)
    coefficient = torch.tensor([[NAN, 0.0, -0.0]])
    found = operators.compact_pairs(index, coefficient.to(cuda_device), 3)
    assert found[0].tolist() == [0, 1]


@pytest.mark.parametrize("order", ORDERS)
def test_more_rows_than_a_step_of_the_scan(cuda_device, order):
    set_order(order)
    index, coefficient = pairs(4500, 2, seed=3)
    found = operators.compact_pairs(index.to(cuda_device), coefficient.to(cuda_device), 100)
    check(found, (index >= 0) & (index < 100) & (coefficient != 0), index, coefficient)


def test_refused(cuda_device):
    index = torch.zeros((2, 3), dtype=torch.int64, device=cuda_device)
    with pytest.raises(ValueError, match="coefficient: expected contiguous"):
        operators.compact_pairs(index, torch.zeros((2, 3), device=cuda_device).double(), 3)
    with pytest.raises(ValueError, match="index: expected contiguous"):
        operators.compact_pairs(index.T, torch.zeros((3, 2), device=cuda_device), 3)
