"""Checkpoints: written whole or not at all, read without executing code.

    RUN/checkpoint/state.json             settings, position, history, checksums
    RUN/checkpoint/model.safetensors      the weights to use: encoder.*, label_side.*
    RUN/checkpoint/training.safetensors   what else a resumed run needs, by part: loss heads,
                                          optimizers, random state, sampler, ...
    RUN/checkpoint.previous/              the same, one checkpoint earlier

The weights to use are the averaged ones where training averages, and the best epoch's where it
stops early; ``training.safetensors`` then holds those under way as ``model.*``. An encoder may
add files of its own (a tokenizer's).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.encoders import describe, rebuild
from alc_kernels.trainer.encoders.base import Encoder
from alc_kernels.trainer.errors import CheckpointError, ConfigError, EncoderError
from alc_kernels.trainer.model import Model, build_model
from alc_kernels.trainer.training.state import Packed, Part, Position, unpack

# Folders written whole or not at all, and files that are known by their checksum.


@contextmanager
def replacing(folder: Path, previous: Path) -> Iterator[Path]:
    """A new folder to fill, which then becomes ``folder``; the old one becomes ``previous``.

    Whenever the process is killed, ``folder`` or else ``previous`` is whole: files reach the disk
    before the folder is renamed, and only whole folders are renamed to either.
    """
    sweep(folder)
    new, old = (folder.parent / f".{folder.name}.{os.getpid()}.{end}" for end in ("new", "old"))
    new.mkdir(parents=True)
    try:
        yield new
        for path in sorted(new.rglob("*")):
            flush(path)
        flush(new)
        if folder.exists():
            if previous.exists():
                previous.rename(old)  # in one go: a half-deleted folder must not be found there
            folder.rename(previous)
        new.rename(folder)
        flush(folder.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process left of :func:`replacing` beside ``folder``."""
    for stray in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(stray, ignore_errors=True)


def flush(path: Path) -> None:
    """Make a file's content, or a folder's list of names, reach the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in ``folder``, by its path with forward slashes."""
    return {
        path.relative_to(folder).as_posix(): checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def checksum(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        CheckpointError: not such a file, or a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not a readable safetensors file ({reason})") from None


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file."""
    from safetensors.torch import save_file

    # Cloned because models may share weights between names, which the format refuses.
    save_file({key: value.detach().contiguous().clone() for key, value in tensors.items()}, path)


CURRENT, PREVIOUS = "checkpoint", "checkpoint.previous"
STATE, MODEL, TRAINING = "state.json", "model.safetensors", "training.safetensors"
FORMAT_VERSION = 3


@dataclass
class Checkpoint:
    """What :func:`load_checkpoint` returns.

    Attributes:
        model: with the weights to use.
        config: the settings of the run.
        position: how far it came.
        parts: the state of each part of training, for :func:`restore_parts`.
        folder: where it was read from.
    """

    model: Model
    config: TrainConfig
    position: Position
    parts: dict[str, dict[str, Any]]
    folder: Path


def checkpoint_folder(run: Path) -> Path:
    """The checkpoint of a run folder; a checkpoint folder is returned as it is."""
    if (run / STATE).is_file():
        return run
    if (run / CURRENT).is_dir():
        return run / CURRENT
    # The previous one is all there is: a write was cut between two renames.
    return previous_folder(run) if (run / PREVIOUS).is_dir() else _none(run, CURRENT)


def previous_folder(run: Path) -> Path:
    """The checkpoint before the last one of a run folder.

    Raises:
        CheckpointError: there is none.
    """
    return run / PREVIOUS if (run / PREVIOUS).is_dir() else _none(run, PREVIOUS)


def _none(run: Path, name: str) -> Path:
    raise CheckpointError(f"{run}: no checkpoint found, expected {run / name / STATE}")


def use_previous(run: Path) -> None:
    """Put the previous checkpoint in the place of the last one, which is deleted."""
    shutil.rmtree(run / CURRENT, ignore_errors=True)
    (run / PREVIOUS).rename(run / CURRENT)


def save_checkpoint(
    run: Path,
    model: Model,
    weights: Mapping[str, Tensor] | Path,
    config: TrainConfig,
    position: Position,
    parts: Packed,
) -> None:
    """Write ``RUN/checkpoint``; a crash at any moment leaves the old or the new one whole.

    Args:
        run: the run folder.
        model: what is trained.
        weights: the weights to use, or an earlier checkpoint's file of them.
        config: all settings.
        position: how far training has come.
        parts: the states of all else, packed.
    """
    tensors, values = parts
    with replacing(run / CURRENT, run / PREVIOUS) as folder:
        if isinstance(weights, Path):
            shutil.copyfile(weights, folder / MODEL)
        else:
            write_tensors(folder / MODEL, dict(weights))
        write_tensors(folder / TRAINING, tensors)
        model.encoder.save_assets(folder)
        state = {
            "format": FORMAT_VERSION,
            "encoder": describe(model.encoder),
            "num_labels": model.num_labels,
            "config": dataclasses.asdict(config),
            "position": dataclasses.asdict(position),
            "parts": values,
            "sha256": checksums(folder),
        }
        state["sha256_of_this"] = _digest(state)
        (folder / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder onto the CPU.

    Raises:
        CheckpointError: missing, truncated, altered or foreign files, by name; says whether the
            run has a previous checkpoint.
    """
    try:
        return _load(folder)
    except CheckpointError as error:
        previous = folder.parent / PREVIOUS
        if folder.name != CURRENT or not (previous / STATE).is_file():
            raise
        raise CheckpointError(
            f"{error}; the one before it is in {previous}: alc train --resume --from-previous"
        ) from None


def _load(folder: Path) -> Checkpoint:
    state = _read_state(folder / STATE)
    for name, expected in state["sha256"].items():
        if checksum(folder / name) != expected:
            raise CheckpointError(
                f"{folder / name}: checksum differs from {STATE}, expected the file as it was "
                "written (truncated or altered)"
            )
    weights, tensors = (read_tensors(folder / name) for name in (MODEL, TRAINING))
    try:
        config = TrainConfig.stored(state["config"])
        position = Position(**state["position"])
        parts = unpack(tensors, state["parts"])
        encoder = rebuild(state["encoder"], folder)
        model = build_model(config, int(state["num_labels"]), encoder)
    except (ConfigError, EncoderError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder / STATE}: {error}") from None
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{folder / MODEL}: weights do not fit the model ({reason})"
        ) from None
    return Checkpoint(model, config, position, parts, folder)


def restore_parts(checkpoint: Checkpoint, parts: Mapping[str, Part]) -> None:
    """Give every part its state back.

    Raises:
        CheckpointError: a state is missing, too many or does not fit.
    """
    where = checkpoint.folder / TRAINING
    if set(parts) != set(checkpoint.parts):
        raise CheckpointError(
            f"{where}: found the state of {', '.join(sorted(checkpoint.parts))}, expected "
            f"{', '.join(sorted(parts))}"
        )
    for name, part in parts.items():
        try:
            part.load_state_dict(checkpoint.parts[name])
        except (CheckpointError, RuntimeError, ValueError, LookupError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{where}: the state of {name} does not fit this run ({reason})"
            ) from None


def _digest(state: Mapping[str, Any]) -> str:
    """SHA-256 of a checkpoint's state without that number itself."""
    rest = {key: value for key, value in state.items() if key != "sha256_of_this"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise CheckpointError(f"{path}: not JSON, expected the state of a checkpoint") from None
    if not isinstance(state, dict) or "format" not in state:
        raise CheckpointError(f"{path}: format missing, expected a checkpoint's state")
    if state["format"] != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: found format {state['format']!r}, expected {FORMAT_VERSION}"
        )
    if state.get("sha256_of_this") != _digest(state):
        raise CheckpointError(
            f"{path}: checksum differs, expected the file as it was written (altered)"
        )
    if not {MODEL, TRAINING} <= set(state["sha256"]):
        raise CheckpointError(f"{path}: expected checksums of {MODEL} and {TRAINING}")
    return dict(state)


def load_encoder(run: str | Path) -> Encoder:
    """The trained encoder of a run folder (or of a checkpoint folder), in evaluation mode.

    Raises:
        CheckpointError: missing, truncated or foreign files, by name.
    """
    # Imported late: checkpoints rebuild encoders, so the module imports this one.

    return load_checkpoint(checkpoint_folder(Path(run))).model.encoder.eval()
