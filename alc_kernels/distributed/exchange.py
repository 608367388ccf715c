"""Two ways to show every process all labels.

Both have one method, ``visit``: the visitor is called with blocks of labels until it has seen all,
and may leave something for each label of a block (a gradient, statistics). What the processes
leave for a label is merged, and ends where the label belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from alc_kernels.distributed.collectives import Group, exchange_rows, gather_rows
from alc_kernels.distributed.control import Sizes
from alc_kernels.distributed.relations import Block

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
