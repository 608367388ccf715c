"""The losses once more, as Python loops over numbers: slow, and sharing nothing with torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

ROUNDING = 1e-12  # far above what the reference allows for, far below an eighth


@dataclass
class Case:
    """Similarities and the relation between rows and columns, as plain lists."""

    s: list[list[float]]  # B rows of M
    pairs: list[tuple[int, int]]  # positives in the order given, duplicates allowed
    excluded: set[tuple[int, int]] = field(default_factory=set)
    num_columns: int = 0
    guard: float | None = None  # exclude_above

    def transpose(self) -> Case:
        b = len(self.s)
        return Case(
            [[self.s[i][j] for i in range(b)] for j in range(self.num_columns)],
            [(j, i) for i, j in self.pairs],
            {(j, i) for i, j in self.excluded},
            b,
            self.guard,
        )

    def positives(self, i: int) -> list[int]:
        """Row i's positives in the order given, each once."""
        return list(dict.fromkeys(j for row, j in self.pairs if row == i))

    def negatives(self, i: int) -> list[int]:
        yes = self.positives(i)
        out = []
        for j in range(self.num_columns):
            if j in yes or (i, j) in self.excluded:
                continue
            # At the guard counts as above it: rounding could have lifted it there.
            near = self.guard is not None and bool(yes)
            if near and self.s[i][j] > self.s[i][yes[0]] - self.guard - ROUNDING:
                continue
            out.append(j)
        return out

    def hardest_negatives(self, i: int, k: int) -> list[int]:
        return sorted(self.negatives(i), key=lambda j: (-self.s[i][j], j))[:k]

    def hardest_positive(self, i: int) -> int:
        return min(self.positives(i), key=lambda j: (self.s[i][j], j))

    def in_loss(self, i: int) -> bool:
        return bool(self.positives(i)) and bool(self.negatives(i))


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def mean(values: list[float], weights: list[float] | None = None) -> float:
    weights = weights or [1.0] * len(values)
    total = sum(weights)
    return sum(w * v for w, v in zip(weights, values, strict=True)) / total if total else 0.0


def rows_mean(
    case: Case, value: Callable[[Case, int], float], weight: list[float] | None = None
) -> float:
    rows = [i for i in range(len(case.s)) if case.in_loss(i)]
    return mean([value(case, i) for i in rows], weight and [weight[i] for i in rows])


def triplet_row(
    case: Case,
    i: int,
    margin: float = 0.3,
    num_negatives: int = 10,
    weight_temperature: float | None = 0.1,
    positive: str = "first",
    dynamic_margin: tuple[float, float] | None = None,
) -> float:
    s = case.s[i]
    p = case.positives(i)[0] if positive == "first" else case.hardest_positive(i)
    chosen = case.hardest_negatives(i, num_negatives)
    losses = []
    for n in chosen:
        delta = s[p] - s[n]
        if dynamic_margin is None:
            losses.append(max(0.0, margin - delta))
        elif delta < dynamic_margin[0]:
            losses.append(min(max(abs(delta), dynamic_margin[0]), dynamic_margin[1]) - delta)
        else:
            losses.append(0.0)
    if weight_temperature is None:
        return sum(losses) / len(losses)
    active = [(n, loss) for n, loss in zip(chosen, losses, strict=True) if loss > 0]
    if not active:
        return 0.0
    e = [math.exp(s[n] / weight_temperature) for n, _ in active]
    return sum(w * loss for w, (_, loss) in zip(e, active, strict=True)) / sum(e)


def triplet(
    case: Case, symmetric: object = False, weight: list[float] | None = None, **options: Any
) -> float:
    def value(side: Case, i: int) -> float:
        return triplet_row(side, i, **options)

    loss = rows_mean(case, value, weight)
    if symmetric is False:
        return loss
    both = loss + rows_mean(case.transpose(), value)
    return both / 2 if symmetric == "mean" else both


def softmax_row(case: Case, z: list[list[float]], i: int, decoupled: bool) -> float:
    yes, no = case.positives(i), case.negatives(i)
    out = []
    for p in yes:
        others = [*no, p] if decoupled else no + yes
        out.append(-math.log(math.exp(z[i][p]) / sum(math.exp(z[i][j]) for j in others)))
    return mean(out)


def softmax(
    case: Case,
    temperature: float = 0.05,
    decoupled: bool = False,
    symmetric: bool = False,
    label_offset: list[float] | None = None,
    weight: list[float] | None = None,
) -> float:
    offset = label_offset or [0.0] * case.num_columns
    z = [[x / temperature + o for x, o in zip(row, offset, strict=True)] for row in case.s]
    loss = rows_mean(case, lambda side, i: softmax_row(side, z, i, decoupled), weight)
    if not symmetric:
        return loss
    zt = [[z[i][j] for i in range(len(z))] for j in range(case.num_columns)]
    other = rows_mean(case.transpose(), lambda side, i: softmax_row(side, zt, i, decoupled))
    return (loss + other) / 2


def sigmoid(
    case: Case, scale: float = 10.0, bias: float = -10.0, weight: list[float] | None = None
) -> float:
    values = []
    for i, s in enumerate(case.s):
        total = 0.0
        for j in case.positives(i):
            total += softplus(-(scale * s[j] + bias))
        for j in case.negatives(i):
            total += softplus(scale * s[j] + bias)
        values.append(total)
    return mean(values, weight)


def threshold_margin(
    case: Case,
    positive_margin: float = 0.9,
    negative_margin: float = 0.5,
    positive_weight: float = 1.0,
    negative_weight: float = 1.0,
    negative_scope: str = "all",
    reduction: str = "active",
) -> float:
    low, high = [], []
    for i, s in enumerate(case.s):
        no = case.negatives(i) if negative_scope == "all" else case.hardest_negatives(i, 1)
        low += [positive_margin - s[j] for j in case.positives(i) if s[j] <= positive_margin]
        high += [s[j] - negative_margin for j in no if s[j] >= negative_margin]
    rows = len(case.s)
    count_low = len(low) if reduction == "active" else rows
    count_high = len(high) if reduction == "active" else rows
    return (positive_weight * sum(low) / count_low if low else 0.0) + (
        negative_weight * sum(high) / count_high if high else 0.0
    )
