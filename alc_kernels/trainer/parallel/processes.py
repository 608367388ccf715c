"""The processes of a run, and what they tell each other.

With one process nothing is sent and every method gives its argument back, so that callers are
written once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from alc_kernels.trainer.errors import ConfigError, ProcessFailed, describe

# Tensors of which every process holds a part (FSDP2's), and whole ones.


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


# Who gets which of many rows: contiguous shares, in the order of the processes.


def shares(count: int, processes: int, unit: int = 1) -> list[slice]:
    """A contiguous share of ``count`` rows for every process, in order; shares may be empty.

    Args:
        count: rows.
        processes: how many shares.
        unit: only whole runs of so many rows are dealt, the last run may be shorter. What is
            computed run by run then has the same bits for any number of processes.

    Returns:
        Slices that follow one another from 0 to ``count``. Their numbers of runs differ by at
        most one, the first processes have more.
    """
    runs, more = divmod(-(-count // unit), processes)
    ends = [unit * (runs * p + min(p, more)) for p in range(processes + 1)]
    return [slice(min(start, count), min(stop, count)) for start, stop in pairwise(ends)]


T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_rank: its number on this machine, which is also the number of its GPU.
        loss_group: a group of all processes for the loss alone, so that its messages do not mix
            with those about gradients; None where there is one process.
        store: where processes leave notes for each other outside of the group; None likewise.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    loss_group: Any = None
    store: Any = None

    @classmethod
    def current(cls) -> Processes:
        """The processes of ``torch.distributed``'s default group; one where there is none.

        Raises:
            ConfigError: torchrun started several processes and they have not joined.
        """
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            local = int(os.environ.get("LOCAL_RANK", dist.get_rank()))
            return cls(dist.get_rank(), dist.get_world_size(), local, dist.new_group())
        count = os.environ.get("WORLD_SIZE", "1")
        if count != "1":
            raise ConfigError(
                f"this is one of {count} processes (WORLD_SIZE) that do not know of each other: "
                "expected alc_kernels.trainer.parallel.join() or init_process_group() first"
            )
        return cls()

    @property
    def is_main(self) -> bool:
        """Whether this one writes files and reports."""
        return self.rank == 0

    def share(self, count: int, unit: int = 1) -> slice:
        """This process's share of ``count`` rows, see :func:`shares`."""
        return shares(count, self.size, unit)[self.rank]

    def gather_rows(self, rows: Tensor, count: int, unit: int = 1) -> Tensor:
        """All rows (count, ...) from everyone's :meth:`share` of them, on the device of ``rows``.

        Args:
            rows: (n, ...) of this process's share, the same dtype and width everywhere.
            count, unit: as they were given to :meth:`share`.
        """
        if self.size == 1:
            return rows
        counts = [part.stop - part.start for part in shares(count, self.size, unit)]
        return self.gather_uneven(rows, counts)

    def gather_uneven(self, rows: Tensor, counts: list[int]) -> Tensor:
        """All rows in the order of the processes, of which process p has ``counts[p]``."""
        if self.size == 1:
            return rows
        if len(rows) != counts[self.rank]:
            raise ValueError(f"rows: found {len(rows)}, expected {counts[self.rank]}")
        # Padded to the longest: not every backend gathers parts of different lengths.
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        made = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(made, padded)
        return torch.cat([part[:n] for part, n in zip(made, counts, strict=True)])

    def gather_array(self, rows: np.ndarray, count: int, unit: int = 1) -> np.ndarray:
        """As :meth:`gather_rows`, for a NumPy array."""
        if self.size == 1:
            return rows
        return self.gather_rows(torch.from_numpy(np.ascontiguousarray(rows)), count, unit).numpy()

    def counts(self, count: int) -> list[int]:
        """Everyone's ``count``."""
        if self.size == 1:
            return [count]
        found = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(found, torch.tensor([count]))
        return [int(n) for n in found]

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true in one process at least; everyone gets the same answer."""
        return any(self.counts(int(flag)))

    def from_main(self, value: T) -> T:
        """The first process's ``value``, whatever the others have."""
        if self.size == 1:
            return value
        box: list[Any] = [value if self.is_main else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def on_main(self, action: Callable[[], T]) -> T:
        """What ``action`` returns in the first process, where alone it runs, for all.

        Raises:
            ProcessFailed: elsewhere, if it raised there.
        """
        if self.size == 1:
            return action()
        if not self.is_main:
            value, problem = self.from_main((None, ""))
            if problem:
                raise ProcessFailed(f"rank 0 failed: {problem}", told=True)
            return value  # type: ignore[return-value]
        try:
            value = action()
        except BaseException as error:
            self.from_main((None, describe(error)))
            raise
        self.from_main((value, ""))
        return value

    def main_first(self, action: Callable[[], T]) -> T:
        """What ``action`` returns here; the first process of each machine runs it before others.

        For what leaves files that the others then find.
        """
        if self.size == 1:
            return action()
        made = action() if self.local_rank == 0 else None
        self.wait()
        return action() if self.local_rank != 0 else made  # type: ignore[return-value]

    def wait(self) -> None:
        """Until everyone is here."""
        self.counts(0)

    def broadcast(self, tensors: list[Tensor]) -> None:
        """Give ``tensors`` the first process's values."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)


ALONE = Processes()


# Rows and sums over processes with gradients, for terms beside the loss module.
#
# Every process's backward pass starts from the same loss of the whole batch. What it finds are its
# shares of the gradients: over the processes they add up to the gradient of that loss.


class _AllRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, processes: Processes, counts: list[int]) -> Tensor:
        ctx.processes, ctx.counts = processes, counts
        return processes.gather_uneven(rows, counts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient, group=ctx.processes.loss_group)
        return gradient.split(ctx.counts)[ctx.processes.rank], None, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, processes: Processes) -> Tensor:
        value = value.clone()
        dist.all_reduce(value, group=processes.loss_group)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def all_rows(rows: Tensor, processes: Processes, counts: list[int]) -> Tensor:
    """The rows of all processes, (sum(counts), d), in order; gradients go back to their owners.

    Args:
        rows: (counts[rank], d).
        processes: all of them.
        counts: rows of each.
    """
    if processes.size == 1:
        return rows
    return _AllRows.apply(rows, processes, counts)


def sum_of(value: Tensor, processes: Processes) -> Tensor:
    """The sum of everyone's ``value``; its gradient is that of the own one."""
    if processes.size == 1:
        return value
    return _Sum.apply(value, processes)
