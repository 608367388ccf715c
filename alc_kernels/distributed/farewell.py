"""The last thing that the processes of a group do together."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
import torch.distributed as dist


def farewell(group: Any = None, timeout: float = 10.0) -> None:
    """Wait for all processes of a CPU group, and for its threads, before the interpreter ends.

    A thread of Gloo lets go of a message's tensors only after the message has been waited for, and
    takes the interpreter's lock to do so. If the interpreter is ending by then, Python before 3.14
    ends the thread instead, and the C++ runtime aborts the process. Call this at the end of a
    program, before ``torch.distributed.destroy_process_group``.

    Args:
        group: of all processes that call this, with a backend for CPU tensors; None for the
            default one.
        timeout: seconds until threads are no longer waited for.

    Raises:
        RuntimeError: from torch.distributed, when a process of the group is lost.
    """
    found = [torch.zeros(1) for _ in range(dist.get_world_size(group))]
    mine = torch.zeros(1)
    before = [sys.getrefcount(tensor) for tensor in (mine, *found)]
    dist.all_gather(found, mine, group=group)
    end = time.monotonic() + timeout
    while before != [sys.getrefcount(tensor) for tensor in (mine, *found)]:
        if time.monotonic() > end:
            return
        time.sleep(0.001)
