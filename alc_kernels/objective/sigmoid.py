"""Pairwise sigmoid loss: value per row from the sum of its pairs."""

from __future__ import annotations

from torch import Tensor

from alc_kernels.backends.interface import GradientRequest, RowStatistics
from alc_kernels.objective.rows import RowLoss


def sigmoid_rows(found: RowStatistics, scale: Tensor, bias: Tensor) -> RowLoss:
    """Sum over non-excluded labels of softplus(-y (scale s + bias)); every row counts."""
    assert found.sigmoid_sum is not None
    return RowLoss(
        values=found.sigmoid_sum,
        members=None,
        dense=GradientRequest(kind="sigmoid", scale=scale, bias=bias),
    )
