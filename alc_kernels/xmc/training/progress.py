"""What a caller may watch while training runs."""

from __future__ import annotations

from collections.abc import Mapping


class Progress:
    """Callbacks of the training loop; this one ignores everything. Subclass what you need."""

    def start(self, *, epochs: int, steps_per_epoch: int, first_step: int = 0) -> None:
        """Before the first step; ``first_step`` is not 0 when a run is resumed."""

    def step(self, *, step: int, epoch: int, loss: float) -> None:
        """After every step; ``step`` counts from 1 over the whole run."""

    def epoch(self, record: Mapping[str, float]) -> None:
        """After every epoch, with the entry that was added to the history."""

    def finish(self) -> None:
        """After the last step, and also when training stops early."""
