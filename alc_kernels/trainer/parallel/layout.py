"""How the weights are spread over the processes, and how their gradients become whole.

    one process    as it is
    ddp            the whole model everywhere (DistributedDataParallel)
    fsdp           a part of the encoder everywhere (FSDP2, ``fully_shard``); the rest whole

Gradients are summed, not averaged: each process has its share of the gradient of one loss.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from alc_kernels.trainer.model import Model
from alc_kernels.trainer.parallel.processes import Processes, is_sharded
from alc_kernels.trainer.training.optimizers import sparse_rows

# Sums of gradients over the processes, where no wrapper takes care of them.


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


class Layout:
    """One process.

    Attributes:
        forward: the model's forward pass, to be called once per batch in every process.
    """

    forward: Callable[..., tuple[Tensor, Tensor, Tensor]]

    def __init__(self, model: Model) -> None:
        self.forward = model

    def backward(self, last: bool) -> AbstractContextManager[None]:
        """Around a batch's forward and backward pass; ``last``: of those of a step."""
        return nullcontext()

    def finish_gradients(self) -> None:
        """After the last backward pass of a step: gradients are those of the whole batches."""

    def independent(self) -> AbstractContextManager[None]:
        """In it each process may run the model by itself, without gradients."""
        return nullcontext()


class Replicated(Layout):
    """The whole model in every process.

    Args:
        model: the same in all processes; gets the first one's weights.
        loss: has parameters of its own.
        processes: more than one.
    """

    def __init__(self, model: Model, loss: nn.Module, processes: Processes) -> None:
        super().__init__(model)
        self.processes, self.tables = processes, model.table_parameters()
        self.heads = list(loss.parameters())
        processes.broadcast([*_tensors(model), *_tensors(loss)])
        tables = {id(table) for table in self.tables}
        spare = _Spare(model)
        ignored = [name for name, p in spare.named_parameters() if id(p) in tables]
        wrapper = nn.parallel.DistributedDataParallel
        # Sparse gradients are left to us: NCCL cannot add them up.
        wrapper._set_params_and_buffers_to_ignore_for_model(spare, ignored)
        # Buffers are the same everywhere. PyTorch 2.13 renamed the option.
        names = inspect.signature(wrapper).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
        # Text models have layers that pooling does not use.
        options: dict[str, Any] = {buffers: False, "find_unused_parameters": True}
        self.wrapped = wrapper(spare, **options)
        self.wrapped.register_comm_hook(None, _summed)
        self.forward = self.wrapped

    def backward(self, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self.wrapped.no_sync()

    def finish_gradients(self) -> None:
        sum_dense_gradients(self.heads)
        sum_table_gradients(self.tables, self.processes)


class _Spare(nn.Module):
    """The model, and a parameter that is never used.

    DistributedDataParallel looks for unused parameters in every step, and warns where that finds
    none in the first one. Not looking is no choice: it then rearranges its messages after that
    step, and a resumed run would add up gradients in another order.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.unused = nn.Parameter(torch.zeros(1, device=next(model.parameters()).device))

    def forward(self, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        return self.model(*arguments)


class Sharded(Layout):
    """A part of each of the encoder's dense weights in every process.

    What is gathered at a time are the elements of the encoder's longest list of modules (its
    layers). Tables with sparse gradients, the label side and the loss's heads stay whole.

    Args:
        model, loss, processes: as for :class:`Replicated`.
        device: where the model is.
    """

    def __init__(
        self, model: Model, loss: nn.Module, processes: Processes, device: torch.device
    ) -> None:
        from torch.distributed.fsdp import fully_shard

        super().__init__(model)
        self.processes, self.tables = processes, model.table_parameters()
        processes.broadcast([*_tensors(model), *_tensors(loss)])
        mesh = dist.init_device_mesh(device.type, (processes.size,))
        lists = [m for m in model.encoder.modules() if isinstance(m, nn.ModuleList)]
        layers = list(max(lists, key=len, default=[]))
        ignored = set(model.encoder.table_parameters())
        for module in [*layers, model.encoder]:
            fully_shard(module, mesh=mesh, ignored_params=ignored)
        self.modules: list[Any] = [*layers, model.encoder]
        tables = {id(table) for table in self.tables}
        parameters = [*model.parameters(), *loss.parameters()]
        self.parts = [p for p in parameters if is_sharded(p)]
        self.others = [p for p in parameters if not is_sharded(p) and id(p) not in tables]

    @torch.no_grad()
    def finish_gradients(self) -> None:
        for parameter in self.parts:
            if parameter.grad is not None:
                parameter.grad.mul_(self.processes.size)  # FSDP has averaged
        sum_dense_gradients(self.others)
        sum_table_gradients(self.tables, self.processes)

    @contextmanager
    def independent(self) -> Iterator[None]:
        for module in self.modules:
            module.set_reshard_after_forward(False)
            module.unshard()
        try:
            yield
        finally:
            for module in self.modules:
                module.reshard()
                module.set_reshard_after_forward(module is not self.modules[-1])


def make_layout(
    parallel: str, model: Model, loss: nn.Module, processes: Processes, device: torch.device
) -> Layout:
    """The layout for so many processes and the setting ``parallel``; before any optimizer.

    FSDP replaces the encoder's parameters by parts of them.
    """
    if processes.size == 1:
        return Layout(model)
    if parallel == "fsdp":
        return Sharded(model, loss, processes, device)
    return Replicated(model, loss, processes)


# PyTorch reads the annotations of such a hook and does not understand postponed ones.
def _summed(state, bucket):  # type: ignore[no-untyped-def]
    """DistributedDataParallel's message for a bucket of gradients, without its division."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
