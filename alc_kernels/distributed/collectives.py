"""Rows, sums and blocks between processes: thin wrappers that work on NCCL and Gloo alike.

Nothing here computes on what it moves, so tensors travel as bytes: every dtype works on every
backend, and nothing is rounded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Group = Any  # torch.distributed.ProcessGroup


@contextmanager
def exchanging(what: str, group: Group) -> Iterator[None]:
    """Say what failed, and what it may mean, when a collective fails."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"process_group: process {group.rank()} of {group.size()} failed while exchanging "
            f"{what}: another process has stopped, is later than the group's timeout, or sent "
            f"another size ({str(error).splitlines()[0]})"
        ) from error


def as_bytes(x: Tensor) -> Tensor:
    """(n, w) uint8: the rows of a contiguous (n, ...) tensor as bytes, sharing its memory."""
    rows = x.shape[0]
    if x.numel() == 0:
        return torch.empty((rows, 0), dtype=torch.uint8, device=x.device)
    return x.reshape(rows, -1).view(torch.uint8)


def gather_rows(x: Tensor, sizes: Sequence[int], group: Group, what: str) -> Tensor:
    """The rows of all processes in rank order.

    Args:
        x: (sizes[rank], ...).
        sizes: rows of every process.

    Returns:
        (sum(sizes), ...).
    """
    largest, shape = max(sizes), x.shape[1:]
    padded = x.contiguous()
    if x.shape[0] < largest:
        padded = torch.cat([padded, x.new_zeros(largest - x.shape[0], *shape)])
    made = x.new_empty(len(sizes) * largest, *shape)
    if made.numel() == 0:
        return x.new_empty(sum(sizes), *shape)
    # PyTorch 2.13 renamed it and warns about the old name.
    all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    with exchanging(what, group):
        all_gather(as_bytes(made), as_bytes(padded), group=group)
    if min(sizes) == largest:
        return made
    parts = made.view(len(sizes), largest, *shape)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def exchange_rows(
    x: Tensor, send: Sequence[int], receive: Sequence[int], group: Group, what: str
) -> Tensor:
    """Every process sends consecutive rows of ``x`` to every other one.

    Args:
        x: (sum(send), ...): send[r] rows for process r, in rank order.
        receive: rows that come from every process.

    Returns:
        (sum(receive), ...), in rank order.
    """
    made = x.new_empty(sum(receive), *x.shape[1:])
    row_bytes = x.element_size() * prod(x.shape[1:])
    with exchanging(what, group):
        dist.all_to_all_single(
            as_bytes(made).flatten(),
            as_bytes(x.contiguous()).flatten(),
            [rows * row_bytes for rows in receive],
            [rows * row_bytes for rows in send],
            group=group,
        )
    return made


def sum_over(x: Tensor, group: Group, what: str) -> Tensor:
    """The sum of ``x`` over the processes, in place."""
    with exchanging(what, group):
        dist.all_reduce(x, group=group)
    return x


# The last thing that the processes of a group do together.


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
