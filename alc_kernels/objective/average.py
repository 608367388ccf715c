"""The average of a base loss over its rows, and how its gradient reaches their values."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.objective.rows import times


class RowAverage:
    """Weighted mean (or sum) over the rows that count.

    Which rows those are is known from their counts of pairs, during a walk, or from the loss
    after it: whoever comes first calls ``over_counts`` or ``over``, and it is worked out once.

    Args:
        every_row: rows without a positive or a negative count as well.
        reduction: "mean", or "sum" or "none" for no division.
        row_weight: (B,) acc or None.
        acc: accumulation dtype.
    """

    def __init__(
        self, every_row: bool, reduction: str, row_weight: Tensor | None, acc: torch.dtype
    ) -> None:
        self._every_row, self._reduction, self._row_weight = every_row, reduction, row_weight
        self._acc = acc
        self._weight: Tensor | None = None  # (B,) acc, 0 for rows that do not count
        self._share: Tensor | None = None  # 0-d acc: 1 / their sum, 0 where that is 0

    def over(self, members: Tensor) -> None:
        """The rows that count, (B,) bool."""
        if self._weight is not None:
            return
        self._weight = members.to(self._acc)
        if self._row_weight is not None:
            self._weight = torch.where(members, self._row_weight, 0.0)
        if self._reduction == "mean":
            total = self._weight.sum()
            self._share = torch.where(total != 0, total.reciprocal(), 0.0)

    def over_counts(self, factor: float, num_positives: Tensor, num_negatives: Tensor) -> Tensor:
        """``WalkGradient.row_scale``: :meth:`scale` from the counts of pairs, (B,) int64 each."""
        members = (num_positives > 0) & (num_negatives > 0)  # R
        self.over(torch.ones_like(members) if self._every_row else members)
        return self.scale(factor)

    def scale(self, factor: float) -> Tensor:
        """(B,) acc: d (factor * average) / d value_i."""
        assert self._weight is not None
        if self._share is None:
            return times(factor, self._weight)
        return self._weight * times(factor, self._share)

    def of(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) weighted values and their 0-d average; ``values`` are 0 in rows outside."""
        if self._row_weight is not None:
            assert self._weight is not None
            values = self._weight * values
        total = values.sum()
        return values, total if self._share is None else total * self._share
