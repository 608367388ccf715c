"""What the tests of training watch a run with."""

from __future__ import annotations

from alc_kernels.trainer.training import Progress


class Losses(Progress):
    """Notes the loss of every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def step(self, *, step: int, epoch: int, loss: float) -> None:
        self.seen.append(loss)
