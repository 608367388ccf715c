"""The checkpoints of a run under way, and which weights they give to those who use the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.errors import CheckpointError, TrainingDiverged
from alc_kernels.trainer.model import Model
from alc_kernels.trainer.parallel.processes import ALONE, Processes, Weights, local, whole
from alc_kernels.trainer.training.checkpoint import (
    CURRENT,
    MODEL,
    Checkpoint,
    checkpoint_folder,
    read_tensors,
    save_checkpoint,
)
from alc_kernels.trainer.training.optimizers import WeightAverage
from alc_kernels.trainer.training.state import Part, Position, pack
from alc_kernels.whole import write_whole


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


# What may differ between a run and its continuation: nothing but more epochs.


def check_same_settings(checkpoint: Checkpoint, config: TrainConfig) -> None:
    """The settings of the run, with as many epochs or more; group "processes" is free.

    Raises:
        CheckpointError: fewer epochs, other settings, or more epochs for a run that stopped early.
    """
    before = checkpoint.config
    differing = [
        spec.name
        for spec in dataclasses.fields(config)
        if getattr(config, spec.name) != getattr(before, spec.name)
        and spec.metadata["group"] != "processes"
        and spec.name != "epochs"
    ]
    if differing:
        verb = "differs" if len(differing) == 1 else "differ"
        raise CheckpointError(
            f"{checkpoint.folder}: was trained with other settings "
            f"({' and '.join(differing)} {verb}), expected the same to resume"
        )
    if config.epochs < before.epochs:
        raise CheckpointError(
            f"{checkpoint.folder}: is of a run of {before.epochs} epochs, found epochs = "
            f"{config.epochs}, expected at least {before.epochs} to resume"
        )
    waited = checkpoint.parts.get("stopping", {}).get("waited", 0)
    if config.epochs > before.epochs and 0 < config.early_stopping <= waited:
        raise CheckpointError(
            f"{checkpoint.folder}: stopped early after epoch {checkpoint.position.epoch}, since "
            f"{waited} validation{'s'[: waited > 1]} brought no gain; expected epochs = "
            f"{before.epochs} as before"
        )


def check_same_checkpoint(checkpoint: Checkpoint, processes: Processes) -> None:
    """Every process must have read the same one."""
    step = checkpoint.position.step
    if processes.any(processes.from_main(step) != step):
        raise CheckpointError(
            f"{checkpoint.folder}: processes found different checkpoints (this one that of step "
            f"{step}), expected a run folder that is the same for all"
        )
