"""What may differ between a run and its continuation: nothing but more epochs."""

from __future__ import annotations

import dataclasses

from alc_kernels.xmc.config import TrainConfig
from alc_kernels.xmc.errors import CheckpointError
from alc_kernels.xmc.parallel.processes import Processes
from alc_kernels.xmc.training.checkpoint import Checkpoint


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
