"""The checkpoints of a run under way, and which weights they give to those who use the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from alc_kernels.xmc.config import TrainConfig
from alc_kernels.xmc.errors import TrainingDiverged
from alc_kernels.xmc.model import Model
from alc_kernels.xmc.training.checkpoint import (
    CURRENT,
    MODEL,
    checkpoint_folder,
    save_checkpoint,
)
from alc_kernels.xmc.training.ema import WeightAverage
from alc_kernels.xmc.training.files import read_tensors
from alc_kernels.xmc.training.state import Part, Position


class RunFolder:
    """Where a run writes its checkpoints.

    Args:
        path: the run folder.
        model: what is trained.
        average: of its weights, or None.
        config: all settings.
        parts: what else has a state.

    Attributes:
        saved_step: the step of the last checkpoint, None before the first.
    """

    def __init__(
        self,
        path: Path,
        model: Model,
        average: WeightAverage | None,
        config: TrainConfig,
        parts: Mapping[str, Part],
    ) -> None:
        self.path, self.model, self.average = path, model, average
        self.config, self.parts = config, parts
        self.saved_step: int | None = None

    def write_config(self) -> None:
        """Begin the run: ``config.toml`` with all settings."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = self.config.to_toml()
        (self.path / "config.toml").write_text(text, encoding="utf-8", newline="\n")

    def save(
        self, position: Position, parameters: Iterable[nn.Parameter], *, keep_weights: bool
    ) -> None:
        """Write a checkpoint.

        Args:
            position: how far training has come.
            parameters: all that is trained.
            keep_weights: the last checkpoint's weights stay the ones to use, since an earlier
                epoch did best.

        Raises:
            TrainingDiverged: a parameter is not finite; the last checkpoint stays.
        """
        if not all(bool(parameter.isfinite().all()) for parameter in parameters):
            what = f"the weights became non-finite by step {position.step}"
            raise TrainingDiverged(self.saved_text(what))
        weights: dict[str, Tensor] | Path = dict(self.model.state_dict())
        if keep_weights:
            weights = checkpoint_folder(self.path) / MODEL
        elif self.average is not None:
            weights = {**self.model.state_dict(), **self.average.averaged()}
        save_checkpoint(self.path, self.model, weights, self.config, position, self.parts)
        self.saved_step = position.step

    def use_best(self) -> None:
        """Give the model the weights to use, where those under way are others."""
        if "model" in self.parts:
            self.model.load_state_dict(read_tensors(checkpoint_folder(self.path) / MODEL))

    def saved_text(self, what: str) -> str:
        """``what``, and where the last good checkpoint is."""
        if self.saved_step is None:
            return f"{what}; no checkpoint was written before it"
        return f"{what}; checkpoint of step {self.saved_step} kept in {self.path / CURRENT}"
