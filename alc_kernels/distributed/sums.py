"""Sums over all processes, in one message."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.distributed.collectives import Group, sum_over


class Sums:
    """Numbers to add up. They travel as float64, in which counts up to 2^53 are exact."""

    def __init__(self, poison: Tensor) -> None:
        """``poison``: 0-d acc, 1 or NaN; NaN on one process becomes NaN on all."""
        self._dtype = poison.dtype
        self._place: dict[str, slice] = {}
        self._values: list[Tensor] = []
        self._count = 0
        self._total: Tensor | None = None
        self._processes = 1
        self._put("poison", poison * 0.0)

    def put(self, name: str, value: Tensor) -> None:
        """Add a 0-d number."""
        self._put(name, value)

    def _put(self, name: str, values: Tensor) -> None:
        values = values.reshape(-1).to(torch.float64)
        self._place[name] = slice(self._count, self._count + values.numel())
        self._count += values.numel()
        self._values.append(values)

    def compare(self, numbers: Tensor) -> None:
        """Poison the result unless every process hands in the same (n,) numbers, bit by bit.

        Of integers a, N Σa² = (Σa)² exactly where all N are equal. The bits are taken 16 at a
        time, so that the sums are exact (for up to 32,768 processes).
        """
        pieces = numbers.contiguous().view(torch.int16).to(torch.float64)
        self._put("pieces", pieces)
        self._put("squares", pieces * pieces)

    def reduce(self, group: Group) -> None:
        """Send and receive."""
        self._total = sum_over(torch.cat(self._values), group, "sums over rows")
        self._processes = group.size()

    def get(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """The sum over all processes, 0-d, in acc or ``dtype``."""
        return self._get(name)[0].to(self._dtype if dtype is None else dtype)

    def _get(self, name: str) -> Tensor:
        assert self._total is not None
        return self._total[self._place[name]]

    @property
    def poison(self) -> Tensor:
        """0-d acc: 1, or NaN."""
        poison = self.get("poison") + 1.0
        if "pieces" not in self._place:
            return poison
        sums, squares = (self._get(name).to(torch.int64) for name in ("pieces", "squares"))
        same = (self._processes * squares == sums * sums).all()
        return torch.where(same, poison, torch.nan)
