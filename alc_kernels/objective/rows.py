"""What a base loss leaves behind: a value per row and how its gradient reaches the scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from alc_kernels.backends.interface import GradientRequest

# Each row's first positive, where a loss asks for it: (B,) int64 index, -1 where none, and (B,)
# acc score.
FirstPositive = Callable[[], tuple[Tensor, Tensor]]


@dataclass
class RowLoss:
    """One direction of a base loss.

    Either ``pair_index`` and ``pair_slope`` are given (a sparse gradient: d value_i / d s at a
    few labels per row) or ``dense`` (every pair has one). ``dense`` misses its ``row_scale``,
    which is known once the rows are averaged.
    """

    values: Tensor  # (B,) acc, 0 outside R
    members: Tensor | None  # (B,) bool: the rows that are averaged; None: all
    pair_index: Tensor | None = None  # (B, t) int64, -1: nothing
    pair_slope: Tensor | None = None  # (B, t) acc
    dense: GradientRequest | None = None


def times(factor: float, x: Tensor) -> Tensor:
    """``factor * x``; ``x`` itself for a factor of 1, the usual weight."""
    return x if factor == 1.0 else factor * x
