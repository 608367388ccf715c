"""What a caller may watch while training runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from alc_kernels.trainer.errors import ConfigError, needs


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


# Scalars for TensorBoard.


FOLDER = "tensorboard"


class Board:
    """Writes to ``RUN/tensorboard``; does nothing where it is switched off.

    Args:
        run: the run folder.
        enabled: the setting ``tensorboard``.

    Raises:
        ConfigError: the package tensorboard is missing.
    """

    def __init__(self, run: Path, enabled: bool) -> None:
        self.run = run
        self.writer: Any = None
        self._make: Any = None
        if not enabled:
            return
        with needs("tensorboard = true", "tensorboard", "tensorboard", ConfigError):
            from torch.utils.tensorboard import SummaryWriter
        self._make = SummaryWriter

    def start(self, first_step: int) -> None:
        """Begin to write; what an earlier process wrote from ``first_step`` on is hidden."""
        if self._make is not None:
            self.writer = self._make(str(self.run / FOLDER), purge_step=first_step + 1)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """After a step: ``train/...``."""
        self._write("train", step, values)

    def epoch(self, record: Mapping[str, float]) -> None:
        """After an epoch: ``validation/...``."""
        prefix = "validation_"
        found = {k[len(prefix) :]: v for k, v in record.items() if k.startswith(prefix)}
        self._write("validation", int(record["step"]), found)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _write(self, group: str, step: int, values: Mapping[str, float]) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f"{group}/{name}", value, step)


# When validation no longer gains: which epoch is the best, and whether to stop.


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


# Ctrl-C at a moment that suits: between two steps.


class InterruptFlag:
    """Context manager: the first Ctrl-C only sets ``requested``, a second one interrupts at once.

    Outside the main thread, where Python admits no signal handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def __enter__(self) -> InterruptFlag:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
