"""What the passes of one evaluation add their gradients to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels.backends.interface import Backend, Problem


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
