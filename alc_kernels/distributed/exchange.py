"""Two ways to show every process all labels.

Both have one method, ``visit``: the visitor is called with blocks of labels until it has seen all,
and may leave something for each label of a block (a gradient, statistics). What the processes
leave for a label is merged, and ends where the label belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from alc_kernels.distributed.blocks import Block
from alc_kernels.distributed.collectives import (
    Group,
    as_bytes,
    exchange_rows,
    exchanging,
    gather_rows,
)
from alc_kernels.distributed.control import Sizes

Tensors = dict[str, Tensor]  # each (labels, ...), the same names on every process
Visitor = Callable[[Block], Tensors]
Merge = Callable[[Tensors, Tensors], Tensors]


class Exchange(Protocol):
    """The labels of all processes, shown block by block."""

    def visit(self, extra: Tensors, visitor: Visitor, merge: Merge) -> Tensors:
        """Show the labels, with ``extra`` for each label, to ``visitor`` on every process.

        Args:
            extra: of the own labels, (M, ...) each.
            visitor: leaves (block size, ...) tensors, or nothing.
            merge: of what two processes left for the same labels; commutative. May change its
                first argument.

        Returns:
            What all processes left for the own labels, (M, ...) each.
        """
        ...


def add(a: Tensors, b: Tensors) -> Tensors:
    """The merge of gradients."""
    return {name: a[name].add_(b[name]) for name in a}


class Gather:
    """One block with the labels of all processes."""

    def __init__(self, constant: Tensors, sizes: Sizes, group: Group) -> None:
        self.sizes, self.group = sizes, group
        self.constant = self._gathered(constant)

    def _gathered(self, tensors: Tensors) -> Tensors:
        return {
            name: gather_rows(x, self.sizes.labels, self.group, name) for name, x in tensors.items()
        }

    def visit(self, extra: Tensors, visitor: Visitor, merge: Merge) -> Tensors:
        """See ``Exchange.visit``."""
        sizes = self.sizes
        block = Block(0, sizes.total_labels, {**self.constant, **self._gathered(extra)})
        left = visitor(block)
        own = sizes.labels[sizes.rank]
        receive = [own] * len(sizes.labels)
        parts = {
            name: exchange_rows(x, sizes.labels, receive, self.group, name).split(own)
            if own
            else [exchange_rows(x, sizes.labels, receive, self.group, name)]
            for name, x in left.items()
        }
        if not parts:
            return {}
        merged: Tensors | None = None
        for values in zip(*parts.values(), strict=True):
            one = dict(zip(parts, values, strict=True))
            merged = one if merged is None else merge(merged, one)
        assert merged is not None
        return merged


# Labels travel round a ring of processes, one block at a time, while each computes on another.
#
# In step t process r holds the labels of process r - t. They go on to r + 1, and the next ones come
# in from r - 1, while r computes. What r leaves for a block (a gradient, say) is added to what the
# processes before it left, and follows the block one step behind: it is on its way while r computes
# on the next block. After the last step it goes home. So a process holds two blocks of labels and
# three of what is left for them, whatever the number of processes, and each process sends its
# labels P - 1 times and P gradients.


_LABELS, _LEFT = 1, 2  # message tags (Gloo; NCCL goes by the order, which is the same everywhere)


class Transfer:
    """Tensors under way to the next process, and others from the one before."""

    def __init__(self, outgoing: Tensors, incoming: Tensors, group: Group, tag: int) -> None:
        self._outgoing, self._incoming, self._group = outgoing, incoming, group
        rank, count = group.rank(), group.size()
        # Names are the same everywhere, so the order is. Nothing is sent for nothing.
        sends = [x.contiguous() for _, x in sorted(outgoing.items())]
        receives = [x for _, x in sorted(incoming.items())]
        self._kept = sends  # a buffer must live until it has arrived
        operations = [
            dist.P2POp(dist.isend, as_bytes(x), None, group, tag, (rank + 1) % count)
            for x in sends
            if x.numel()
        ]
        operations += [
            dist.P2POp(dist.irecv, as_bytes(x), None, group, tag, (rank - 1) % count)
            for x in receives
            if x.numel()
        ]
        with exchanging("blocks of labels", group):
            self._works = dist.batch_isend_irecv(operations) if operations else []

    def wait(self) -> Tensors:
        """What has come in. On a GPU the stream waits, not the host."""
        with exchanging("blocks of labels", self._group):
            for work in self._works:
                work.wait()
        return self._incoming


class Ring:
    """One block for each process."""

    def __init__(self, constant: Tensors, sizes: Sizes, group: Group) -> None:
        self.constant, self.sizes, self.group = constant, sizes, group

    def visit(self, extra: Tensors, visitor: Visitor, merge: Merge) -> Tensors:
        """See ``Exchange.visit``."""
        sizes, count = self.sizes, len(self.sizes.labels)
        bounds = sizes.label_bounds
        here = {**self.constant, **extra}
        behind: Transfer | None = None  # what others left for the block at hand
        for step in range(count):
            owner = (sizes.rank - step) % count
            coming = (owner - 1) % count
            ahead = None
            if step < count - 1:
                ahead = Transfer(here, _like(here, sizes.labels[coming]), self.group, _LABELS)
            left = visitor(Block(bounds[owner], bounds[owner + 1], here))
            if behind is not None:
                left = merge(behind.wait(), left)
            if left:
                behind = Transfer(left, _like(left, sizes.labels[coming]), self.group, _LEFT)
            if ahead is not None:
                here = ahead.wait()
        return {} if behind is None else behind.wait()


def _like(tensors: Tensors, rows: int) -> Tensors:
    def empty(x: Tensor) -> Tensor:
        return torch.empty((rows, *x.shape[1:]), dtype=x.dtype, device=x.device)

    return {name: empty(x) for name, x in tensors.items()}
