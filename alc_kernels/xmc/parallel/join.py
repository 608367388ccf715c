"""Becoming one of the processes that ``torchrun`` started, and noticing when one is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from alc_kernels.distributed import farewell
from alc_kernels.xmc.errors import ConfigError
from alc_kernels.xmc.parallel.failure import explained
from alc_kernels.xmc.parallel.processes import Processes

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def join(device: str = "auto", timeout: float = 600.0) -> Iterator[Processes]:
    """Be one of the processes that the environment speaks of; alone where it does not.

    ``torchrun`` sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; other launchers
    may do the same. NCCL carries what is on GPUs, Gloo what is in main memory.

    Args:
        device: the setting ``device``.
        timeout: seconds until a process that waits for another gives up.

    Raises:
        ConfigError: variables are missing or wrong, PyTorch was built without torch.distributed,
            or there are fewer GPUs than processes on this machine.
        ProcessFailed: inside, when another process is lost or fails.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield Processes()
        return
    if not dist.is_available():
        raise ConfigError("several processes need a PyTorch with torch.distributed")
    rank, size, local_rank = _from_environment()
    on_gpu = uses_gpu(device)
    if on_gpu:
        check_gpus(local_rank)
        torch.cuda.set_device(local_rank)
    patience = timedelta(seconds=timeout)
    store, rank, size = next(iter(rendezvous("env://", rank, size, timeout=patience)))
    store.set_timeout(patience)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=dist.PrefixStore("group", store),
        rank=rank,
        world_size=size,
        timeout=patience,
    )
    notes = dist.PrefixStore("notes", store)
    processes = Processes(rank, size, local_rank, dist.new_group(timeout=patience), notes)
    # After an error no farewell: the others may be gone, and it would be waited for.
    with explained(processes, timeout):
        yield processes
        farewell()
    dist.destroy_process_group()


def uses_gpu(device: str) -> bool:
    """Whether the setting ``device`` means a GPU here."""
    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


def check_gpus(local_rank: int) -> None:
    """Every process of a machine has a GPU of its own.

    Raises:
        ConfigError: there are too few.
    """
    found = torch.cuda.device_count()
    if local_rank >= found:
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU: found {found}, expected one for "
            "each process (torchrun --nproc-per-node), or device = 'cpu'"
        )


def _from_environment() -> tuple[int, int, int]:
    """Rank, number of processes, rank on this machine."""
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE = {os.environ['WORLD_SIZE']}, but {', '.join(missing)} not set: expected "
            "what torchrun sets"
        )
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
    except ValueError:
        raise ConfigError(
            "RANK, WORLD_SIZE, LOCAL_RANK: expected whole numbers, as torchrun sets them"
        ) from None
    if not 0 <= rank < size:
        raise ConfigError(f"RANK = {rank}: expected 0 to {size - 1} (WORLD_SIZE = {size})")
    return rank, size, local_rank
