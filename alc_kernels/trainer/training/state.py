"""What a resumed run needs beside the model: its parts, each with a state dict of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from alc_kernels.trainer.parallel.processes import ALONE, Processes

State = Mapping[str, Any]
# Tensors as part.key, and the other values per part.
Packed = tuple[dict[str, Tensor], dict[str, dict[str, Any]]]


@dataclass
class Position:
    """How far training has come.

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


class Part(Protocol):
    """Something whose state a checkpoint holds: flat, of tensors, arrays and JSON values."""

    def state_dict(self) -> State: ...

    def load_state_dict(self, saved: Any) -> Any: ...


class RandomState:
    """PyTorch's random generators, of the CPU and of the GPU in use.

    NumPy's and Python's global generators are used nowhere in training: samplers make their own
    from seed and epoch.

    One process draws on through the whole run. Of several each starts anew in every step, from
    :meth:`start_step`: then a checkpoint needs no state of each, and may be resumed by any number.
    """

    def __init__(self, device: torch.device, seed: int = 0, processes: Processes = ALONE) -> None:
        self.device, self.seed, self.processes = device, seed, processes

    def start_step(self, step: int) -> None:
        """Before a step: other numbers in every process, the same ones in a resumed run."""
        if self.processes.size > 1:
            words = [self.seed, step, self.processes.rank, 4]
            torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))

    def state_dict(self) -> dict[str, Tensor]:
        state = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state_dict` gave; a run that moved to or from a GPU starts that
        device's generator from the seed."""
        torch.set_rng_state(saved["cpu"])
        if self.device.type == "cuda" and "cuda" in saved:
            torch.cuda.set_rng_state(saved["cuda"], self.device)


def pack(parts: Mapping[str, Part]) -> Packed:
    """All states as tensors under ``part.key``, and the rest as JSON values per part.

    NumPy arrays become tensors; their keys are kept under ``"arrays"``.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for name, part in parts.items():
        rest: dict[str, Any] = {}
        arrays: list[str] = []
        for key, value in part.state_dict().items():
            if isinstance(value, np.ndarray):
                arrays.append(key)
                value = torch.from_numpy(np.ascontiguousarray(value))
            if isinstance(value, Tensor):
                tensors[f"{name}.{key}"] = value
            else:
                rest[key] = value
        values[name] = {"values": rest, "arrays": arrays}
    return tensors, values


def unpack(
    tensors: Mapping[str, Tensor], values: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Part name -> its state dict, from what :func:`pack` gave."""
    states: dict[str, dict[str, Any]] = {
        name: dict(found["values"]) for name, found in values.items()
    }
    for path, tensor in tensors.items():
        name, key = path.split(".", 1)
        states[name][key] = tensor.numpy() if key in values[name]["arrays"] else tensor
    return states
