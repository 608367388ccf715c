"""What the passes of one evaluation add their gradients to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from alc_kernels.engine.bases import times
from alc_kernels.engine.interface import Backend, Problem


@dataclass
class GradientSums:
    """Gradients by the prepared rows; None for a side that is not wanted.

    Zeros from the start, or, where the backend can write its first product instead of adding it,
    ``fresh``: nothing yet.
    """

    queries: Tensor | None  # (B, d) acc
    labels: Tensor | None  # (M, d) acc
    fresh: bool

    @staticmethod
    def of(
        backend: Backend, problem: Problem, want_queries: bool, want_labels: bool
    ) -> GradientSums:
        """Of a problem's rows."""
        fresh: bool = getattr(backend, "WRITES_GRADIENTS", False)
        make = torch.empty if fresh else torch.zeros

        def side(rows: Tensor, wanted: bool) -> Tensor | None:
            return make(rows.shape, dtype=problem.acc, device=rows.device) if wanted else None

        queries, labels = side(problem.queries, want_queries), side(problem.labels, want_labels)
        return GradientSums(queries, labels, fresh)

    def begin(self) -> None:
        """There is something to add to from here on."""
        for grad in (self.queries, self.labels):
            if self.fresh and grad is not None:
                grad.zero_()
        self.fresh = False

    def take_fresh(self) -> bool:
        """Whether the pass that is called now must write instead of adding."""
        fresh, self.fresh = self.fresh, False
        return fresh

    def exchanged(self) -> GradientSums:
        """For the problem with queries and labels exchanged, after :meth:`begin`."""
        assert not self.fresh
        return GradientSums(self.labels, self.queries, False)


# The average of a base loss over its rows, and how its gradient reaches their values.


class RowAverage:
    """Weighted mean (or sum) over the rows that count.

    Which rows those are is known from their counts of pairs, during a walk, or from the loss
    after it: whoever comes first calls ``over_counts`` or ``over``, and it is worked out once.
    Where all rows count alike it is known beforehand, and costs next to nothing.

    Args:
        every_row: all rows count, whatever their counts of pairs.
        like: (B, d): so many rows, on that device.
        reduction: "mean", or "sum" or "none" for no division.
        row_weight: (B,) acc or None.
        acc: accumulation dtype.
    """

    def __init__(
        self,
        every_row: bool,
        like: Tensor,
        reduction: str,
        row_weight: Tensor | None,
        acc: torch.dtype,
    ) -> None:
        self._every_row, self._row_weight = every_row, row_weight
        self._rows, self._device, self._acc = like.shape[0], like.device, acc
        self._mean = reduction == "mean"
        self._alike = every_row and row_weight is None and self._rows > 0
        self._weight: Tensor | None = None  # (B,) acc, 0 for rows that do not count
        self._share: Tensor | None = None  # 0-d acc: 1 / their sum, 0 where that is 0

    def over(self, members: Tensor | None) -> None:
        """The rows that count, (B,) bool; None: all."""
        if self._weight is not None or self._alike:
            return
        if members is None:
            members = torch.ones(self._rows, dtype=torch.bool, device=self._device)
        self._weight = members.to(self._acc)
        if self._row_weight is not None:
            self._weight = torch.where(members, self._row_weight, 0.0)
        if self._mean:
            total = self._weight.sum()
            self._share = torch.where(total != 0, total.reciprocal(), 0.0)

    def over_counts(self, factor: float, num_positives: Tensor, num_negatives: Tensor) -> Tensor:
        """``WalkGradient.row_scale``: :meth:`scale` from the counts of pairs, (B,) int64 each."""
        if self._every_row:
            self.over(None)
        else:
            self.over((num_positives > 0) & (num_negatives > 0))  # R
        return self.scale(factor)

    def known_scale(self, factor: float) -> Callable[[], Tensor] | None:
        """:meth:`scale` where no counts of pairs are needed for it, else None."""
        return partial(self.scale, factor) if self._alike else None

    def scale(self, factor: float) -> Tensor:
        """(B,) acc: d (factor * average) / d value_i."""
        if self._alike:
            share = factor / self._rows if self._mean else factor
            return torch.full((self._rows,), share, dtype=self._acc, device=self._device)
        assert self._weight is not None
        if self._share is None:
            return times(factor, self._weight)
        return self._weight * times(factor, self._share)

    def of(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) weighted values and their 0-d average; ``values`` are 0 in rows outside."""
        if self._row_weight is not None:
            assert self._weight is not None
            values = self._weight * values
        if self._alike and self._mean:
            return values, values.mean()
        total = values.sum()
        return values, total if self._share is None else total * self._share
