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
        self._place: dict[str, int] = {}
        self._values: list[Tensor] = []
        self._total: Tensor | None = None
        self.put("poison", poison * 0.0)

    def put(self, name: str, value: Tensor) -> None:
        """Add a 0-d number."""
        self._place[name] = len(self._values)
        self._values.append(value.to(torch.float64))

    def reduce(self, group: Group) -> None:
        """Send and receive."""
        self._total = sum_over(torch.stack(self._values), group, "sums over rows")

    def get(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """The sum over all processes, 0-d, in acc or ``dtype``."""
        assert self._total is not None
        value = self._total[self._place[name]]
        return value.to(self._dtype if dtype is None else dtype)

    @property
    def poison(self) -> Tensor:
        """0-d acc: 1, or NaN."""
        return self.get("poison") + 1.0
