"""A process's part of the global batch, and the problems it forms with blocks of labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels.backends.interface import Backend, Problem, accumulation_dtype
from alc_kernels.distributed.collectives import Group
from alc_kernels.distributed.control import Sizes
from alc_kernels.distributed.exchange import Exchange, Gather, Tensors
from alc_kernels.distributed.relations import Block, block_relation
from alc_kernels.distributed.ring import Ring
from alc_kernels.objective.guard import limits, slack_of
from alc_kernels.positives import Positives

# With up to this much for all labels, their gradient and its copy on the way, "auto" gathers.
GATHER_BYTES = 256 << 20


@dataclass(frozen=True)
class Part:
    """Prepared rows of one process and the relations of its queries to all labels."""

    backend: Backend
    queries: Tensor  # (B, d) compute dtype, normalised
    positives: Positives  # own queries by all labels (diagonal, ids: local vectors)
    exclude: Positives
    sizes: Sizes
    group: Group
    exchange: Exchange
    width: int
    acc: torch.dtype
    normalized: bool

    def limits(self, first: Tensor, score: Tensor, exclude_above: float) -> Tensor:
        """The guard of rows, the own queries or labels, from their first positives."""
        return limits(first, score, exclude_above, self.queries, self.normalized)

    def problem(self, block: Block, guard: Tensor | None) -> Problem:
        """Own queries by the block's labels. ``guard`` is of the own queries, (B,) acc."""
        tensors = block.tensors
        slack = None
        if guard is not None:
            slack = slack_of(self.queries, block.labels, self.normalized)
        return Problem(
            self.queries,
            block.labels,
            block_relation(self.positives, block, tensors.get("positive_ids"), self.sizes),
            block_relation(self.exclude, block, tensors.get("excluded_ids"), self.sizes),
            guard,
            slack,
        )


def make_exchange(
    constant: Tensors, sizes: Sizes, group: Group, mode: str, width: int, dtype: torch.dtype
) -> Exchange:
    """The exchange for ``mode`` "auto", "gather" or "ring"; see ``GlobalBatch``.

    Args:
        constant: what belongs to each of the own labels, (M, ...) each.
        width, dtype: d and the compute dtype of the labels.
    """
    if mode == "auto":
        item = dtype.itemsize + 2 * accumulation_dtype(dtype).itemsize
        mode = "gather" if sizes.total_labels * width * item <= GATHER_BYTES else "ring"
    if mode == "gather":
        return Gather(constant, sizes, group)
    return Ring(constant, sizes, group)


def make_part(
    backend: Backend,
    problem: Problem,
    sizes: Sizes,
    group: Group,
    mode: str,
    label_offset: Tensor | None,
    normalized: bool,
) -> Part:
    """Set up the exchange of ``problem``'s labels and what belongs to each of them.

    Args:
        problem: own rows; relations of the own queries to all labels.
        mode: "auto", "gather" or "ring".
        label_offset: (M,) acc of the own labels.
        normalized: the rows are of unit length.
    """
    labels = problem.labels
    constant: Tensors = {"labels": labels}
    relations = (("positive_ids", problem.positives), ("excluded_ids", problem.exclude))
    for name, relation in relations:
        if relation.kind == "ids":
            constant[name] = relation.tensors[1]
    if label_offset is not None:
        constant["label_offset"] = label_offset
    return Part(
        backend=backend,
        queries=problem.queries,
        positives=problem.positives,
        exclude=problem.exclude,
        sizes=sizes,
        group=group,
        exchange=make_exchange(constant, sizes, group, mode, labels.shape[1], labels.dtype),
        width=labels.shape[1],
        acc=problem.acc,
        normalized=normalized,
    )
