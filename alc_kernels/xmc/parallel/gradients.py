"""Sums of gradients over the processes, where no wrapper takes care of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from alc_kernels.xmc.parallel.processes import Processes
from alc_kernels.xmc.training.optimizers import sparse_rows


@torch.no_grad()
def sum_dense_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Every dense gradient becomes the sum over the processes, in one message.

    A parameter without a gradient here and with one elsewhere gets it; one that has none anywhere
    is left without, so that optimizers go on to leave it alone.
    """
    if not parameters:
        return
    has = [p.grad is not None for p in parameters]
    parts = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
    flags = torch.tensor(has, dtype=parts[0].dtype, device=parts[0].device)
    total = torch.cat([*parts, flags])
    dist.all_reduce(total)
    sums = total.split([*(p.numel() for p in parameters), len(parameters)])
    somewhere = has if all(has) else (sums[-1] > 0).tolist()
    for parameter, value, known in zip(parameters, sums[:-1], somewhere, strict=True):
        if known:
            parameter.grad = value.view_as(parameter).clone()


@torch.no_grad()
def sum_table_gradients(tables: Sequence[nn.Parameter], processes: Processes) -> None:
    """Every gradient that is sparse along rows becomes the sum over the processes.

    Only the rows in use travel.
    """
    for table in tables:
        if table.grad is None:
            rows = torch.zeros(0, dtype=torch.int64, device=table.device)
            values: Tensor = table.new_zeros(0, *table.shape[1:])
        else:
            rows, values = sparse_rows(table.grad)
        counts = processes.counts(len(rows))
        if sum(counts) == 0:
            continue
        rows = processes.gather_uneven(rows, counts)
        values = processes.gather_uneven(values, counts)
        whole = torch.sparse_coo_tensor(rows[None], values, table.shape, check_invariants=False)
        table.grad = whole.coalesce()
