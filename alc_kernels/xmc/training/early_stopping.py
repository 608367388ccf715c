"""When validation no longer gains: which epoch is the best, and whether to stop."""

from __future__ import annotations

from collections.abc import Mapping

MEASURE = "coverage_90"


class EarlyStopping:
    """Counts validations without a gain in coverage at precision .9.

    Args:
        patience: so many of them in a row end training; 0 switches everything off.

    Attributes:
        best: highest value so far; None before the first validation.
        best_epoch: the first epoch that reached it; its weights are the ones to use.
        waited: validations since then.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.waited = 0

    @property
    def enough(self) -> bool:
        """Whether training should stop."""
        return 0 < self.patience <= self.waited

    def update(self, epoch: int, value: float) -> bool:
        """Take a validation's result; whether it is the best so far."""
        if self.best is not None and not value > self.best:
            self.waited += 1
            return False
        self.best, self.best_epoch, self.waited = value, epoch, 0
        return True

    def state_dict(self) -> dict[str, float | int | None]:
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited}

    def load_state_dict(self, saved: Mapping[str, float | int | None]) -> None:
        best_epoch, waited = saved["best_epoch"], saved["waited"]
        self.best = saved["best"]
        self.best_epoch = None if best_epoch is None else int(best_epoch)
        self.waited = int(waited or 0)
