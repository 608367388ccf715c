"""The checkpoints of a run under way, and which weights they give to those who use the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from alc_kernels.whole import write_whole
from alc_kernels.xmc.config import TrainConfig
from alc_kernels.xmc.errors import TrainingDiverged
from alc_kernels.xmc.model import Model
from alc_kernels.xmc.parallel.processes import ALONE, Processes
from alc_kernels.xmc.parallel.sharded import Weights, local, whole
from alc_kernels.xmc.training.checkpoint import (
    CURRENT,
    MODEL,
    checkpoint_folder,
    save_checkpoint,
)
from alc_kernels.xmc.training.ema import WeightAverage
from alc_kernels.xmc.training.files import read_tensors
from alc_kernels.xmc.training.state import Part, Position, pack


class RunFolder:
    """Where a run writes its checkpoints.

    Args:
        path: the run folder.
        model: what is trained.
        average: of its weights, or None.
        config: all settings.
        parts: what else has a state.
        processes: all of them; the first one writes.

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
        processes: Processes = ALONE,
    ) -> None:
        self.path, self.model, self.average = path, model, average
        self.config, self.parts, self.processes = config, parts, processes
        self.saved_step: int | None = None

    def write_config(self) -> None:
        """Begin the run: ``config.toml`` with all settings."""
        self.processes.on_main(self._write_config)

    def _write_config(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.path / "config.toml", self.config.to_toml())

    def save(
        self, position: Position, parameters: Iterable[nn.Parameter], *, keep_weights: bool
    ) -> None:
        """Write a checkpoint; to be called by every process.

        Args:
            position: how far training has come.
            parameters: all that is trained.
            keep_weights: the last checkpoint's weights stay the ones to use, since an earlier
                epoch did best.

        Raises:
            TrainingDiverged: a parameter is not finite; the last checkpoint stays.
        """
        finite = all(bool(local(parameter).isfinite().all()) for parameter in parameters)
        if self.processes.any(not finite):
            what = f"the weights became non-finite by step {position.step}"
            raise TrainingDiverged(self.saved_text(what))
        weights: dict[str, Tensor] | Path
        if keep_weights:
            weights = checkpoint_folder(self.path) / MODEL
        else:
            weights = dict(self.model.state_dict())
            if self.average is not None:
                weights |= self.average.averaged()
            weights = {name: whole(value) for name, value in weights.items()}
        state = pack(self.parts)
        # The others wait, so that no one is ahead of a checkpoint that failed.
        self.processes.on_main(
            lambda: save_checkpoint(self.path, self.model, weights, self.config, position, state)
        )
        self.saved_step = position.step

    def use_best(self) -> None:
        """Give the model the weights to use, where those under way are others."""
        if "model" in self.parts:
            best = read_tensors(checkpoint_folder(self.path) / MODEL)
            Weights(self.model).load_state_dict(best)

    def saved_text(self, what: str) -> str:
        """``what``, and where the last good checkpoint is."""
        if self.saved_step is None:
            return f"{what}; no checkpoint was written before it"
        return f"{what}; checkpoint of step {self.saved_step} kept in {self.path / CURRENT}"
