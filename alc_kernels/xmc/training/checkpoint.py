"""Checkpoints: written whole or not at all, read without executing code.

    RUN/checkpoint/state.json             settings, position, history, checksums
    RUN/checkpoint/model.safetensors      encoder.*, label_side.* and loss.*
    RUN/checkpoint/training.safetensors   dense.* and table.* (optimizers), random state

An encoder may add files of its own (a tokenizer's).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from alc_kernels.xmc.config import TrainConfig
from alc_kernels.xmc.encoders.registry import describe, rebuild
from alc_kernels.xmc.errors import CheckpointError, ConfigError, EncoderError
from alc_kernels.xmc.model import Model, build_model

CURRENT, PREVIOUS = "checkpoint", "checkpoint.previous"
STATE, MODEL, TRAINING = "state.json", "model.safetensors", "training.safetensors"
FORMAT_VERSION = 2


@dataclass
class Position:
    """How far training has come; everything that a resumed run needs beside tensors.

    Attributes:
        epoch: finished epochs.
        step: finished steps over the whole run.
        step_in_epoch: finished steps of the epoch under way.
        sums: sums of the loss terms over those steps.
        seconds: time spent so far.
        history: one entry per finished epoch.
    """

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Checkpoint:
    """What :func:`load_checkpoint` returns.

    Attributes:
        model: with its trained weights.
        config: the settings of the run.
        position: how far it came.
        loss_state: state dict of the loss module.
        training_state: tensors for :func:`restore_training`.
        folder: where it was read from.
    """

    model: Model
    config: TrainConfig
    position: Position
    loss_state: dict[str, Tensor]
    training_state: dict[str, Tensor]
    folder: Path


def checkpoint_folder(run: Path) -> Path:
    """The checkpoint of a run folder; a checkpoint folder is returned as it is."""
    if (run / STATE).is_file():
        return run
    for name in (CURRENT, PREVIOUS):  # the previous one: a write was cut between two renames
        if (run / name / STATE).is_file():
            return run / name
    raise CheckpointError(f"{run}: no checkpoint found, expected {run / CURRENT / STATE}")


def save_checkpoint(
    run: Path,
    model: Model,
    loss: torch.nn.Module,
    optimizers: dict[str, Optimizer],
    config: TrainConfig,
    position: Position,
) -> None:
    """Write ``RUN/checkpoint``; a crash at any moment leaves the old or the new one whole."""
    from safetensors.torch import save_file

    temporary = run / f".{CURRENT}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        weights = dict(model.state_dict())
        weights |= {f"loss.{name}": value for name, value in loss.state_dict().items()}
        files = {MODEL: weights, TRAINING: _training_tensors(optimizers)}
        checksums = {}
        for name, tensors in files.items():
            # Cloned because models may share weights between names, which the format refuses.
            save_file(
                {key: value.detach().contiguous().clone() for key, value in tensors.items()},
                temporary / name,
            )
            checksums[name] = _checksum(temporary / name)
            _flush(temporary / name)
        model.encoder.save_assets(temporary)
        state = {
            "format": FORMAT_VERSION,
            "encoder": describe(model.encoder),
            "num_labels": model.num_labels,
            "config": dataclasses.asdict(config),
            "position": dataclasses.asdict(position),
            "sha256": checksums,
        }
        (temporary / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        _flush(temporary / STATE)
        _swap_in(temporary, run)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder onto the CPU.

    Raises:
        CheckpointError: missing, truncated, altered or foreign files, by name.
    """
    state = _read_state(folder / STATE)
    for name, expected in state["sha256"].items():
        if _checksum(folder / name) != expected:
            raise CheckpointError(
                f"{folder / name}: checksum differs from {STATE}, expected the file as it was "
                "written (truncated or altered)"
            )
    weights, training = (_read_tensors(folder / name) for name in (MODEL, TRAINING))
    try:
        config = TrainConfig().replace(**state["config"])
        position = Position(**state["position"])
        encoder = rebuild(state["encoder"], folder)
        model = build_model(config, int(state["num_labels"]), encoder)
        model.load_state_dict(
            {name: value for name, value in weights.items() if not name.startswith("loss.")}
        )
    except (ConfigError, EncoderError, TypeError) as error:
        raise CheckpointError(f"{folder / STATE}: {error}") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{folder / MODEL}: weights do not fit the model ({reason})"
        ) from None
    return Checkpoint(model, config, position, _without_prefix(weights, "loss."), training, folder)


def restore_training(
    checkpoint: Checkpoint, loss: torch.nn.Module, optimizers: dict[str, Optimizer]
) -> None:
    """Put loss heads, optimizer state and PyTorch's random state back."""
    try:
        loss.load_state_dict(checkpoint.loss_state)
        for name, optimizer in optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _without_prefix(checkpoint.training_state, f"{name}.").items():
                index, _, field_name = key.partition(".")
                state.setdefault(int(index), {})[field_name] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(checkpoint.training_state["random.cpu"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{checkpoint.folder / TRAINING}: state does not fit this run ({reason})"
        ) from None


def _training_tensors(optimizers: dict[str, Optimizer]) -> dict[str, Tensor]:
    tensors = {"random.cpu": torch.get_rng_state()}
    for name, optimizer in optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                tensors[f"{name}.{index}.{key}"] = torch.as_tensor(value)
    return tensors


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise CheckpointError(f"{path}: not JSON, expected the state of a checkpoint") from None
    needed = ("format", "encoder", "num_labels", "config", "position", "sha256")
    missing = [key for key in needed if key not in state] if isinstance(state, dict) else needed
    if missing:
        raise CheckpointError(
            f"{path}: {', '.join(missing)} missing, expected a checkpoint's state"
        )
    if state["format"] != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: found format {state['format']!r}, expected {FORMAT_VERSION}"
        )
    if set(state["sha256"]) != {MODEL, TRAINING}:
        raise CheckpointError(f"{path}: expected checksums of {MODEL} and {TRAINING}")
    return dict(state)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not a readable safetensors file ({reason})") from None


def _checksum(path: Path) -> str:
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None


def _flush(path: Path) -> None:
    """Make the file's content reach the disk before it is renamed into place."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _swap_in(temporary: Path, run: Path) -> None:
    current, previous = run / CURRENT, run / PREVIOUS
    if current.exists():
        shutil.rmtree(previous, ignore_errors=True)
        current.rename(previous)
    temporary.rename(current)
    shutil.rmtree(previous, ignore_errors=True)
