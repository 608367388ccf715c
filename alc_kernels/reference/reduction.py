"""From one value per row to the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.reference.similarity import Batch


def check_reduction(
    batch: Batch, reduction: str, symmetric: object, row_weight: Tensor | None
) -> None:
    """Raise when ``reduction`` or ``row_weight`` does not fit."""
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction={reduction!r}: expected 'mean' or 'none'")
    if reduction == "none" and symmetric is not False:
        raise ValueError(
            f"reduction='none' with symmetric={symmetric!r}: the column side has no row to be "
            "reported in; use reduction='mean'"
        )
    if row_weight is None:
        return
    rows = batch.similarity.shape[0]
    if not isinstance(row_weight, Tensor):
        raise TypeError(f"row_weight: expected a tensor, got {type(row_weight).__name__}")
    if row_weight.shape != (rows,) or not row_weight.is_floating_point():
        raise ValueError(
            f"row_weight: expected a floating-point tensor of shape ({rows},), "
            f"got shape {tuple(row_weight.shape)}, {row_weight.dtype}"
        )
    if row_weight.device != batch.similarity.device:
        raise ValueError(
            f"row_weight: expected device {batch.similarity.device}, got {row_weight.device}"
        )


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, 0 (with zero gradients) where the denominator is 0."""
    empty = denominator == 0
    return torch.where(empty, 0.0, numerator) / torch.where(empty, 1.0, denominator)


def reduce_rows(
    values: Tensor, rows: Tensor, row_weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """sum_R w l / sum_R w, 0 where that is empty; or w l per row, 0 outside R.

    Args:
        values: (B,) l.
        rows: (B,) bool, R.
        row_weight: (B,) w, None for 1.
        reduction: "mean" (0-d) or "none" (B,).
    """
    weight = torch.ones_like(values) if row_weight is None else row_weight.to(values.dtype)
    weight = torch.where(rows, weight, 0.0)  # (B,)
    weighted = weight * torch.where(rows, values, 0.0)  # (B,)
    if reduction == "none":
        return weighted
    return ratio(weighted.sum(), weight.sum())
