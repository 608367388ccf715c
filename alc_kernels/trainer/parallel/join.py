"""Becoming one of the processes that ``torchrun`` started, and noticing when one is lost."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from alc_kernels.distributed import farewell
from alc_kernels.trainer.errors import ConfigError, ProcessFailed, describe
from alc_kernels.trainer.parallel.processes import Processes

# When a process is lost: which one, in one message, within a bounded time.
#
# A process that fails leaves a note in the store before it ends. A process whose message to another
# one failed leaves a note as well, then reads the others' notes: who failed is named by its own
# note, who was killed or hangs by having none.


LOST, FAILED = "lost contact", "failed: "
GRACE = 5.0  # seconds in which others that are alive notice the same


@contextmanager
def explained(processes: Processes, timeout: float, grace: float = GRACE) -> Iterator[None]:
    """Errors of communication inside become :class:`ProcessFailed`, which names the process.

    Args:
        processes: all of them.
        timeout: the group's, for the message.
        grace: seconds to wait for the others' notes.
    """
    try:
        yield
    except ProcessFailed:
        raise
    except BaseException as error:
        if not is_communication_error(error):
            text = describe(error)
            _leave_note(processes, FAILED + text)
            error.told = not _is_first_to_say(processes, text)  # type: ignore[attr-defined]
            raise
        found = roll_call(processes, grace)
        failed = {rank: text for rank, text in found.items() if text.startswith(FAILED)}
        if failed:
            rank, text = min(failed.items())
            raise ProcessFailed(f"rank {rank} {text}", told=True) from error
        missing = [rank for rank in range(processes.size) if rank not in found]
        if not missing:
            raise
        names = ", ".join(map(str, missing))
        one = len(missing) == 1
        raise ProcessFailed(
            f"{'rank' if one else 'ranks'} {names} of {processes.size} "
            f"{'was' if one else 'were'} killed or did not answer within {timeout:g} s "
            "(process_timeout); the last checkpoint is whole, go on with --resume"
        ) from error


def is_communication_error(error: BaseException) -> bool:
    """Whether ``error`` says that a message to or from another process failed."""
    if isinstance(error, dist.DistError):
        return True
    words = str(error).lower()
    return type(error) is RuntimeError and any(
        name in words for name in ("gloo", "nccl", "process_group: process")
    )


def roll_call(processes: Processes, grace: float) -> dict[int, str]:
    """The notes of all processes that leave one within ``grace`` seconds, by rank."""
    _leave_note(processes, LOST)
    found: dict[int, str] = {processes.rank: LOST}
    end = time.monotonic() + grace
    try:
        while len(found) < processes.size and time.monotonic() < end:
            for rank in set(range(processes.size)) - set(found):
                if processes.store.check([str(rank)]):
                    found[rank] = processes.store.get(str(rank)).decode()
            time.sleep(0.05)
    except (RuntimeError, dist.DistError):
        # Without torchrun the store lives in the first process, and went away with it.
        return {rank: found.get(rank, LOST) for rank in range(1, processes.size)}
    return found


def _leave_note(processes: Processes, text: str) -> None:
    if processes.store is not None:
        with suppress(RuntimeError, dist.DistError):
            processes.store.set_timeout(timedelta(seconds=GRACE))
            processes.store.set(str(processes.rank), text)


def _is_first_to_say(processes: Processes, text: str) -> bool:
    """Whether no other process has reported the same error, so that one of them is enough."""
    if processes.store is None:
        return True
    me = str(processes.rank)
    with suppress(RuntimeError, dist.DistError):
        key = hashlib.sha256(text.encode()).hexdigest()
        return bool(processes.store.compare_set(key, "", me).decode() == me)
    return True


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
