"""Checks that the self-supervised objectives share."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_features(features: object, name: str = "features") -> Tensor:
    """An integer tensor (N, F), F at least 1, values at least 0; as int64."""
    if not isinstance(features, Tensor):
        raise TypeError(f"{name}: expected an integer tensor (N, F), got {type(features).__name__}")
    if features.is_floating_point() or features.is_complex() or features.dtype == torch.bool:
        raise TypeError(f"{name}: expected an integer tensor (N, F), got {features.dtype}")
    if features.dim() != 2 or features.shape[1] == 0:
        raise ValueError(f"{name}: expected shape (N, F), F >= 1, got {tuple(features.shape)}")
    return features.to(torch.int64)


def check_mask(masked: object, features: Tensor) -> Tensor:
    """A bool tensor (N, F), or (1, F) for all rows alike; returned with N rows."""
    if not isinstance(masked, Tensor) or masked.dtype != torch.bool:
        found = masked.dtype if isinstance(masked, Tensor) else type(masked).__name__
        raise TypeError(f"masked: expected a bool tensor, got {found}")
    rows, width = features.shape
    if masked.dim() != 2 or masked.shape[1] != width or masked.shape[0] not in (1, rows):
        raise ValueError(
            f"masked: expected shape ({rows}, {width}) as features, or (1, {width}) for all rows "
            f"alike, got {tuple(masked.shape)}"
        )
    return masked.expand(rows, width)


def check_count(name: str, value: object, least: int = 1) -> int:
    """A whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: expected a whole number of at least {least}")
    return value


def check_positive(name: str, value: object) -> float:
    """A finite number above 0."""
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type, operator]
        raise ValueError(f"{name}={value!r}: expected a finite number above 0")
    return float(value)  # type: ignore[arg-type]


def check_views(first: Tensor, second: Tensor) -> None:
    """Two views of the same rows: floating point, equal shape (B, d), dtype and device."""
    for name, view in (("first", first), ("second", second)):
        if not isinstance(view, Tensor) or not view.is_floating_point():
            found = view.dtype if isinstance(view, Tensor) else type(view).__name__
            raise TypeError(f"{name}: expected a floating-point tensor (B, d), got {found}")
        if view.dim() != 2 or view.shape[1] == 0:
            raise ValueError(f"{name}: expected shape (B, d), d >= 1, got {tuple(view.shape)}")
    if first.shape != second.shape:
        raise ValueError(
            f"second: expected shape {tuple(first.shape)} as first, got {tuple(second.shape)}"
        )
    if first.device != second.device:
        raise ValueError(f"second: expected device {first.device} as first, got {second.device}")
