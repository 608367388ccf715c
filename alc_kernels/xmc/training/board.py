"""Scalars for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alc_kernels.xmc.errors import ConfigError

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
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "tensorboard = true needs the package tensorboard: "
                "pip install 'alc-kernels[tensorboard]'"
            ) from None
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
