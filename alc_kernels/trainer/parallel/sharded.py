"""Tensors of which every process holds a part (FSDP2's), and whole ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

try:
    from torch.distributed.tensor import DTensor, distribute_tensor
except ImportError:  # PyTorch without torch.distributed
    DTensor = None  # type: ignore[assignment,misc]


def is_sharded(tensor: Any) -> bool:
    """Whether processes hold parts of ``tensor``."""
    return DTensor is not None and isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, on the CPU where it had to be put together; to be called by everyone."""
    return tensor.full_tensor().cpu() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def local(tensor: Tensor) -> Tensor:
    """This process's part, which shares its memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def like(value: Tensor, reference: Tensor) -> Tensor:
    """The whole ``value`` spread over the processes as ``reference`` is."""
    if not is_sharded(reference) or is_sharded(value):
        return value
    mesh, placements = reference.device_mesh, reference.placements  # type: ignore[attr-defined]
    # Everyone has the same value, so that nothing need be sent.
    return distribute_tensor(value.to(reference.device), mesh, placements, src_data_rank=None)


class Weights:
    """A module's weights as a part of a checkpoint: whole, however they are spread.

    Args:
        module: any.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def state_dict(self) -> dict[str, Tensor]:
        return {name: whole(value) for name, value in self.module.state_dict().items()}

    @torch.no_grad()
    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state_dict` gave.

        Raises:
            RuntimeError: names or shapes do not fit.
        """
        own = self.module.state_dict()
        if not any(is_sharded(value) for value in own.values()):
            self.module.load_state_dict(saved)
            return
        if own.keys() != saved.keys():
            differ = ", ".join(sorted(own.keys() ^ saved.keys()))
            raise RuntimeError(f"weights that are missing or too many: {differ}")
        for name, value in own.items():
            if value.shape != saved[name].shape:
                raise RuntimeError(f"weight {name} has another shape")
            value.copy_(like(saved[name], value))
