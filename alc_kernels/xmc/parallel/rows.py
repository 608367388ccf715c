"""Rows and sums over processes with gradients, for terms beside the loss module.

Every process's backward pass starts from the same loss of the whole batch. What it finds are its
shares of the gradients: over the processes they add up to the gradient of that loss.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from alc_kernels.xmc.parallel.processes import Processes


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
