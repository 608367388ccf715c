"""How a loss works across processes, as the user says it and as an operator takes it."""

from __future__ import annotations

from ast import literal_eval
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch.distributed as dist
from torch import Tensor

from alc_kernels.positives import OVER_ALL_LABELS, Positives

MODES = ("auto", "gather", "ring")


@dataclass(frozen=True)
class GlobalBatch:
    """A process group with the way to work on it; goes where ``process_group=`` is asked for.

    Args:
        group: a torch.distributed process group, NCCL or Gloo. None: the default group.
        mode: "gather" copies all labels to every process; "ring" passes them round in blocks, so
            that no process ever holds all of them, while it computes on the block at hand.
            "auto" takes the first as long as the labels of the global batch with their gradients
            fit ``GATHER_BYTES``, and the ring beyond.
        equal_sizes: you promise that in every call all processes bring equally many queries and
            equally many labels. Sizes and settings are then compared at the first call of every
            kind only (temperature, scale and bias in every call: where they differ the loss is
            NaN). False: they are exchanged and compared in every call, through a channel between
            the hosts that leaves the GPU alone.
        gradients_are_averaged: multiply every gradient by the number of processes, for wrappers
            that average gradients over them (DistributedDataParallel, FSDP). The loss stays.

    Raises:
        TypeError, ValueError: a field is off.
    """

    group: Any = None
    mode: Literal["auto", "gather", "ring"] = "auto"
    equal_sizes: bool = False
    gradients_are_averaged: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(
                f"GlobalBatch(mode={self.mode!r}): expected one of {', '.join(map(repr, MODES))}"
            )
        for name in ("equal_sizes", "gradients_are_averaged"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(
                    f"GlobalBatch({name}={getattr(self, name)!r}): expected True or False"
                )


class Membership(NamedTuple):
    """A process group as a value that fits through an operator's schema."""

    name: str
    world_size: int
    mode: str
    equal_sizes: bool
    gradient_factor: int  # what every gradient is multiplied by
    settings: str = ""  # of a module, as text: what must be the same beside the call's own
    # How many label columns the call's positives and exclude say they have, where they are over
    # the labels of all processes; -1 elsewhere.
    columns: tuple[int, int] = (-1, -1)
    scalars: str = ""  # of the call, as text: see ``scalar_text``

    def encode(self) -> str:
        """As a string: a Python literal of what does not change from call to call."""
        return repr(tuple(self)[:-2])

    @staticmethod
    @lru_cache(maxsize=64)
    def decode(text: str) -> Membership:
        """The inverse of ``encode``."""
        return Membership(*literal_eval(text))


A_TENSOR = "a tensor"


def scalar_text(settings: object) -> str:
    """A base loss's temperature, or scale and bias, for the processes to compare.

    A number is written out; of a tensor, whose value the host may not know, only that it is one.
    Written for ``torch.compile`` to trace, as ``for_call`` is.
    """
    shown = []
    for name in ("temperature", "scale", "bias"):
        value = getattr(settings, name, None)
        if value is not None:
            shown.append(f"{name}={A_TENSOR if isinstance(value, Tensor) else repr(value)}")
    return ", ".join(shown)


def for_call(group: str, positives: Positives, exclude: Positives, scalars: str = "") -> str:
    """``group`` with what one call states: the relations' numbers of label columns, scalars."""
    if not group:
        return group
    counts = [r.num_labels if r.kind in OVER_ALL_LABELS else -1 for r in (positives, exclude)]
    return f"{group[:-1]}, ({counts[0]}, {counts[1]}), {scalars!r})"


def stating(group: str, settings: str) -> str:
    """``group`` for a module whose ``settings`` must be the same on every process."""
    return Membership.decode(group)._replace(settings=settings).encode() if group else group


def membership(process_group: object | None) -> str:
    """The encoded membership of ``process_group``; "" for None and for a group of one process.

    Raises:
        TypeError: neither a process group nor :class:`GlobalBatch`.
        RuntimeError: the default group is asked for and there is none.
        ValueError: this process is not in the group.
    """
    if process_group is None:
        return ""
    settings = process_group if isinstance(process_group, GlobalBatch) else None
    group: Any = process_group if settings is None else settings.group
    settings = settings or GlobalBatch()
    if group is None:
        if not dist.is_available() or not dist.is_initialized():
            raise RuntimeError(
                "GlobalBatch(group=None): there is no default process group; call "
                "torch.distributed.init_process_group first"
            )
        group = dist.group.WORLD
    if not callable(getattr(group, "size", None)):
        raise TypeError(
            "process_group: expected a torch.distributed process group, GlobalBatch or None, "
            f"got {type(group).__name__}"
        )
    size = int(group.size())
    if size <= 1:
        return ""
    if dist.get_rank(group) < 0:
        raise ValueError("process_group: this process is not a member of the group")
    factor = size if settings.gradients_are_averaged else 1
    return Membership(group.group_name, size, settings.mode, settings.equal_sizes, factor).encode()
