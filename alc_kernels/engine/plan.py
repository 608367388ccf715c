"""One direction of a loss: the average over its rows, its gradient as passes that compute it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alc_kernels.engine.interface import (
    GradientRequest,
    GradientResult,
    Problem,
    RowStatistics,
    WalkRequest,
)
from alc_kernels.engine.prepare import First, Left, Part, Shown, Tensors
from alc_kernels.engine.rows import (
    PairHead,
    RowLoss,
    ThresholdTerms,
    hardest_negative_slope,
    single_positive_slope,
    times,
)


class RowAverage:
    """Weighted mean (or sum) of a base loss over the rows that count, and how its gradient
    reaches their values.

    Which rows those are is known from their counts of pairs, during a walk, or from the loss
    after it: whoever comes first calls ``over_counts`` or ``over``, and it is worked out once.
    Where all rows count alike it is known beforehand, and costs next to nothing.

    Args:
        every_row: all rows count, whatever their counts of pairs.
        like: (n, d): so many rows, on that device.
        total_rows: of all processes.
        reduction: "mean", or "sum" or "none" for no division.
        row_weight: (n,) acc or None.
        acc: accumulation dtype.
    """

    def __init__(
        self,
        every_row: bool,
        like: Tensor,
        total_rows: int,
        reduction: str,
        row_weight: Tensor | None,
        acc: torch.dtype,
    ) -> None:
        self.every_row, self._row_weight, self._total_rows = every_row, row_weight, total_rows
        self._rows, self._device, self._acc = like.shape[0], like.device, acc
        self._mean = reduction == "mean"
        self._alike = every_row and row_weight is None and total_rows > 0
        self._weight: Tensor | None = None  # (n,) acc, 0 for rows that do not count
        self._sum: Tensor | None = None  # 0-d acc: of the weights of all processes' rows

    def over(self, members: Tensor | None) -> None:
        """The rows that count, (n,) bool; None: all."""
        if self._weight is not None or self._alike:
            return
        if members is None:
            members = torch.ones(self._rows, dtype=torch.bool, device=self._device)
        self._weight = members.to(self._acc)
        if self._row_weight is not None:
            self._weight = torch.where(members, self._row_weight, 0.0)
        if self._mean:
            self._sum = self._weight.sum()

    def over_counts(self, factor: float, num_positives: Tensor, num_negatives: Tensor) -> Tensor:
        """``WalkGradient.row_scale``: :meth:`scale` from the counts of pairs, (n,) int64 each.

        Only where all rows are here.
        """
        if self.every_row:
            self.over(None)
        else:
            self.over((num_positives > 0) & (num_negatives > 0))  # R
        return self.scale(factor)

    def known_scale(self, factor: float) -> Callable[[], Tensor] | None:
        """:meth:`scale` where no counts of pairs are needed for it, else None."""
        return partial(self.scale, factor) if self._alike else None

    def hand_in(self, own: Tensors, name: str, values: Tensor) -> Tensor:
        """Put the sums of the own rows into ``own``; (n,) weighted values.

        ``values`` are 0 in rows outside.
        """
        if self._row_weight is not None:
            assert self._weight is not None
            values = self._weight * values
        own[name] = values.sum()
        if self._sum is not None:
            own[f"{name} weight"] = self._sum
        return values

    def value(self, total: Tensors, name: str) -> Tensor:
        """0-d, from the sums over all processes."""
        if self._alike:
            return total[name] / self._total_rows if self._mean else total[name]
        if self._mean:
            self._sum = total[f"{name} weight"]
        return total[name] if self._sum is None else total[name] * self._share()

    def _share(self) -> Tensor:
        assert self._sum is not None
        return torch.where(self._sum != 0, self._sum.reciprocal(), 0.0)

    def scale(self, factor: float) -> Tensor:
        """(n,) acc: d (factor * average) / d value_i."""
        if self._alike:
            share = factor / self._total_rows if self._mean else factor
            return torch.full((self._rows,), share, dtype=self._acc, device=self._device)
        assert self._weight is not None
        if self._sum is None:
            return times(factor, self._weight)
        return self._weight * times(factor, self._share())


@dataclass
class Direction:
    """The base loss over the own queries, or over the own labels with everything exchanged."""

    part: Part
    request: WalkRequest
    average: RowAverage
    one_positive: bool  # every row has exactly one
    columns: bool = False
    first: First | None = None
    found: RowStatistics | None = None
    rows: RowLoss | None = None
    # Over its rows: of ``GradientResult``, weighted and plain.
    sums: tuple[Tensor, Tensor] | None = None

    def leading_positive(self, hardest: bool) -> tuple[Tensor, Tensor]:
        """Of each row's triplets: its ``hardest`` positive or its first one."""
        if not hardest:
            return self.first_positive()
        found = self.found
        assert found is not None
        assert found.positive_index is not None and found.positive_score is not None
        return found.positive_index, found.positive_score

    @property
    def made(self) -> bool:
        """The base loss's gradient was made during the walk."""
        return self.found is not None and self.found.gradient is not None

    def first_positive(self) -> tuple[Tensor, Tensor]:
        """(n,) int64 index, -1 where none, and (n,) acc score of each row's first positive.

        A walk that has found a row's only positive saves a pass.
        """
        found = self.found
        if found is not None and self.one_positive and found.positive_index is not None:
            assert found.positive_score is not None
            return found.positive_index, found.positive_score
        if self.first is None:
            first, label_first = find_first(self.part, self.columns)
            self.first = label_first if self.columns else first
        assert self.first is not None
        return self.first.index, self.first.score

    def add(self, made: GradientResult | None) -> None:
        """Add to ``sums`` what a pass has left."""
        if made is None or made.weighted_sum is None or made.plain_sum is None:
            return
        here = made.weighted_sum.sum(), made.plain_sum.sum()
        before = self.sums
        self.sums = here if before is None else (before[0] + here[0], before[1] + here[1])

    def scalar_gradient(self) -> Tensor | None:
        """(2,) acc: gradients of the scalars, where the backend has made their sums."""
        if self.sums is None or self.rows is None:
            return None
        weighted, plain = self.sums
        slope = None if self.rows.dense is None else self.rows.dense.inverse_temperature
        if slope is None:
            return torch.stack([weighted, plain])  # x = scale s + bias
        # z = s / T + offset, so dz/dT = -s / T^2
        slope = -(slope * slope)
        return torch.stack([weighted * slope, torch.zeros_like(slope)])


def find_first(part: Part, columns: bool) -> tuple[First, First | None]:
    """First positives of the own queries and, with ``columns``, of the own labels."""
    found: First | None = None

    def visitor(shown: Shown) -> Left:
        nonlocal found
        found = part.first(found, shown)
        return Left(first=part.first(None, shown, columns=True)) if columns else Left()

    label_first = part.visit({}, visitor).first
    assert found is not None
    return found, label_first


# The gradient of a direction as the passes that compute it.


@dataclass(frozen=True)
class GradientPlan:
    """A few pairs per row, a pass over all pairs, or both."""

    direction: Direction | None  # where sums for the scalars go
    index: Tensor | None  # (n, t) int64 global, -1: nothing
    slope: Tensor | None  # (n, t) acc
    dense: GradientRequest | None


def gradient_plan(
    direction: Direction,
    weight: float,
    terms: ThresholdTerms | None,
    want_scalars: bool,
    joint: Direction | None = None,
) -> GradientPlan:
    """What to compute for one direction.

    Args:
        weight: of the base loss in the total.
        terms: the threshold loss, in the forward direction.
        want_scalars: sums for the gradients of temperature, scale and bias.
        joint: the other direction, of which one pass makes the gradient too.
    """
    found, rows = direction.found, direction.rows
    assert found is not None
    dense: GradientRequest | None = None
    pairs: list[tuple[Tensor, Tensor]] = []
    if rows is not None and not direction.made:
        row_scale = direction.average.scale(weight)
        if rows.dense is not None:
            columns = None
            if joint is not None and joint.rows is not None and joint.rows.dense is not None:
                columns = replace(joint.rows.dense, row_scale=joint.average.scale(weight))
            dense = replace(
                rows.dense,
                row_scale=row_scale,
                want_scalars=want_scalars,
                columns=columns,
                similarities=found.similarities,
            )
        elif rows.pair_index is not None and rows.pair_slope is not None:
            pairs.append((rows.pair_index, row_scale[:, None] * rows.pair_slope))
    if terms is not None:
        threshold = terms.settings
        margins = replace(dense or GradientRequest(kind=None), active=found.active)
        if threshold.negative_scope == "hardest":
            pairs.append(hardest_negative_slope(found, terms))
        elif threshold.negative_weight:
            margins = replace(
                margins,
                negative_margin=threshold.negative_margin,
                negative_margin_scale=terms.negative_scale,
            )
        if threshold.positive_weight:
            if direction.one_positive and margins.kind is None:
                first = direction.first_positive()
                pairs.append(single_positive_slope(*first, terms))
            else:
                margins = replace(
                    margins,
                    positive_margin=threshold.positive_margin,
                    positive_margin_scale=terms.positive_scale,
                )
        sides = (margins.positive_margin, margins.negative_margin)
        if margins.kind is not None or sides != (None, None):
            dense = margins
    if not pairs:
        return GradientPlan(direction, None, None, dense)
    index = torch.cat([index for index, _ in pairs], dim=1)
    slope = torch.cat([slope for _, slope in pairs], dim=1)
    return GradientPlan(direction, index, slope, dense)


# Of a gradient request, what is per row and so travels with the labels.
_PER_ROW = ("row_scale", "num_positives", "log_sum_exp", "negative_scale")


@dataclass
class PairSlopes:
    """The pair part's gradient by its logits."""

    head: PairHead
    index: Tensor  # (B, 2) int64 global, -1: nothing
    slope: Tensor  # (B, 2) acc


@dataclass
class Gradients:
    """Gradients by the prepared rows, as they are added up."""

    part: Part
    queries: Tensor | None  # (B, d) acc; None: not wanted
    labels: Tensor | None  # (M, d) acc
    head_weight: Tensor  # (4d,) acc, this process's share; empty without a pair head
    deterministic: bool

    @staticmethod
    def zeros(part: Part, wants: tuple[bool, bool], width: int, deterministic: bool) -> Gradients:
        """Of the queries and labels that are wanted, and ``width`` of the head's weight."""
        problem, acc = part.problem, part.poison.dtype
        queries, labels = (
            torch.zeros(x.shape, dtype=acc, device=x.device) if want else None
            for x, want in zip((problem.queries, problem.labels), wants, strict=True)
        )
        return Gradients(part, queries, labels, part.poison.new_zeros(width), deterministic)

    def add(
        self,
        plan: GradientPlan | None,
        columns: GradientPlan | None = None,
        pairs: PairSlopes | None = None,
    ) -> None:
        """Add what the plans of the own queries and labels say, in one visit to all labels."""
        # What the labels' plan says of each of them goes where they are shown.
        extra: Tensors = {}
        if columns is not None and columns.index is not None and columns.slope is not None:
            extra = {"pair_index": columns.index, "pair_slope": columns.slope}
        if columns is not None and columns.dense is not None:
            found = {name: getattr(columns.dense, name) for name in _PER_ROW}
            extra.update({name: x for name, x in found.items() if x is not None})

        def visitor(shown: Shown) -> Left:
            labels = self.labels
            if labels is not None and not self.part.whole:
                labels = labels.new_zeros(shown.problem.labels.shape)
            if plan is not None:
                here = plan
                if plan.index is not None and not self.part.whole:
                    here = replace(here, index=shown.local(plan.index))
                if plan.dense is not None and plan.dense.label_offset is not shown.label_offset:
                    dense = replace(plan.dense, label_offset=shown.label_offset)
                    here = replace(here, dense=dense)
                self._add(shown.problem, here, self.queries, labels)
            if columns is not None:
                self._add(shown.exchanged, _travelled(columns, shown), labels, self.queries)
            if pairs is not None:
                self.head_weight += self.part.backend.pair_logits_backward(
                    shown.problem,
                    pairs.index if self.part.whole else shown.local(pairs.index),
                    pairs.head.weight, pairs.slope, self.queries, labels, self.deterministic,
                )  # fmt: skip
            return Left(gradient=labels)

        self.labels = self.part.visit(extra, visitor).gradient

    def _add(
        self,
        problem: Problem,
        plan: GradientPlan,
        grad_rows: Tensor | None,
        grad_columns: Tensor | None,
    ) -> None:
        backend, sides = self.part.backend, (grad_rows, grad_columns)
        if plan.index is not None and (grad_rows is not None or grad_columns is not None):
            assert plan.slope is not None
            backend.pair_gradient(problem, plan.index, plan.slope, *sides, self.deterministic)
        if plan.dense is not None:
            made = backend.dense_gradient(problem, plan.dense, *sides)
            if plan.direction is not None and not plan.direction.made:
                plan.direction.add(made)


def _travelled(plan: GradientPlan, shown: Shown) -> GradientPlan:
    """The labels' plan as that of the labels shown."""
    here = shown.extra
    dense = plan.dense
    if dense is not None:
        of_rows: dict[str, Any] = {name: here[name] for name in _PER_ROW if name in here}
        dense = replace(dense, **of_rows)
    index = None if plan.index is None else shown.local_query(here["pair_index"])
    return replace(plan, index=index, slope=here.get("pair_slope"), dense=dense)
