"""When a process is lost: which one, in one message, within a bounded time.

A process that fails leaves a note in the store before it ends. A process whose message to another
one failed leaves a note as well, then reads the others' notes: who failed is named by its own
note, who was killed or hangs by having none.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist

from alc_kernels.xmc.errors import ProcessFailed, describe
from alc_kernels.xmc.parallel.processes import Processes

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
