"""One process's part of a batch over many: it sees all labels block by block."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar

import torch
from torch import Tensor

from alc_kernels.distributed.blocks import (
    Block,
    block_relation,
    earlier,
    first_of,
    from_tensors,
    merge_statistics,
    shift_indices,
    to_tensors,
    within,
)
from alc_kernels.distributed.collectives import Group, sum_over
from alc_kernels.distributed.control import Sizes, resolve
from alc_kernels.distributed.exchange import Exchange, Gather, Ring, Tensors
from alc_kernels.distributed.settings import Membership
from alc_kernels.engine.interface import Problem, RowStatistics, accumulation_dtype
from alc_kernels.engine.prepare import First, Left, Part, Shown, Visitor
from alc_kernels.engine.rows import slack_of

# With up to this much for all labels, their gradient and its copy on the way, "auto" gathers.
GATHER_BYTES = 256 << 20


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


@dataclass
class ShownBlock(Shown):
    """The labels of one process, or of all."""

    query_start: int = 0  # the first of the own queries in the global batch

    def local(self, index: Tensor) -> Tensor:
        """See ``Shown.local``."""
        return within(index, self.start, self.start + self.problem.labels.shape[0])

    def local_query(self, index: Tensor) -> Tensor:
        """See ``Shown.local_query``."""
        start = self.query_start
        return within(index, start, start + self.problem.queries.shape[0])


@dataclass
class SharedPart(Part):
    """``problem`` has the own rows, and the relations of the own queries to all labels
    (diagonal, ids: local vectors).
    """

    cut: Sizes
    group: Group
    exchange: Exchange
    unknown_scalars: bool  # the hosts do not compare temperature, scale or bias in every call
    _pairs: Tensor | None = field(default=None, init=False)  # (B, 2, d) compute dtype

    whole: ClassVar[bool] = False

    @staticmethod
    def of(part: Part, sizes: Sizes, member: Membership, unknown_scalars: bool) -> SharedPart:
        """Set up the exchange of the labels of ``part`` and of what belongs to each of them."""
        group = resolve(member)
        problem, labels = part.problem, part.problem.labels
        constant: Tensors = {"labels": labels}
        for name, relation in (
            ("positive_ids", problem.positives),
            ("excluded_ids", problem.exclude),
        ):
            if relation.kind == "ids":
                constant[name] = relation.tensors[1]
        if part.label_offset is not None:
            constant["label_offset"] = part.label_offset
        exchange = make_exchange(constant, sizes, group, member.mode, labels.shape[1], labels.dtype)
        own = {f.name: getattr(part, f.name) for f in fields(Part) if f.init}
        own |= {"total_queries": sizes.total_queries, "total_labels": sizes.total_labels}
        own["sizes"] = sizes.encode()
        made = SharedPart(
            **own, cut=sizes, group=group, exchange=exchange, unknown_scalars=unknown_scalars
        )
        made.one_block = isinstance(exchange, Gather)
        return made

    def _block(self, block: Block) -> ShownBlock:
        tensors, own = block.tensors, self.problem
        problem = Problem(
            own.queries,
            block.labels,
            block_relation(own.positives, block, tensors.get("positive_ids"), self.cut),
            block_relation(own.exclude, block, tensors.get("excluded_ids"), self.cut),
            self.guard,
            None if self.guard is None else slack_of(own.queries, block.labels, self.normalized),
        )
        return ShownBlock(
            problem, tensors.get("label_offset"), tensors, block.start, tensors.get("guard"),
            self.cut.query_start,
        )  # fmt: skip

    def visit(self, extra: Tensors, visitor: Visitor) -> Left:
        """See ``Part.visit``."""
        if self.label_guard is not None:
            extra = {**extra, "guard": self.label_guard}

        def show(block: Block) -> Tensors:
            left = visitor(self._block(block))
            if left.found is not None:
                shift_indices(left.found, self.cut.query_start)
            return _tensors(left)

        return _left(self.exchange.visit(extra, show, _merged))

    def merge(self, before: RowStatistics | None, here: RowStatistics, start: int) -> RowStatistics:
        """See ``Part.merge``."""
        here = shift_indices(here, start)
        return here if before is None else merge_statistics(before, here)

    def first(self, before: First | None, shown: Shown, columns: bool = False) -> First:
        """See ``Part.first``."""
        problem, rows, start = shown.problem, self.cut.query_start, shown.start
        if columns:
            problem, rows, start = shown.exchanged, start, rows
        kind = self.problem.positives.kind
        here = first_of(self.backend, problem, kind, rows, start, self.cut)
        return here if before is None else earlier(before, here)

    def keep_pairs(self, found: RowStatistics, shown: Shown) -> None:
        """See ``Part.keep_pairs``."""
        queries, labels = self.problem.queries, shown.problem.labels
        if self._pairs is None:
            self._pairs = queries.new_zeros(queries.shape[0], 2, queries.shape[1])
        if labels.shape[0] == 0:
            return
        assert found.positive_index is not None and found.top_index is not None
        index = torch.stack([found.positive_index, found.top_index[:, 0]], dim=1)  # (B, 2)
        local = shown.local(index)
        # In place: rows elsewhere keep what they have.
        here = labels[local.clamp(min=0)]
        self._pairs.copy_(torch.where((local >= 0)[..., None], here, self._pairs))

    def mined(self, index: Tensor) -> tuple[Problem, Tensor]:
        """See ``Part.mined``."""
        assert self._pairs is not None
        own = self.problem
        labels = self._pairs.flatten(0, 1)  # (2B, d)
        columns = torch.arange(labels.shape[0], device=labels.device).view(-1, 2)
        problem = Problem(own.queries, labels, own.positives, own.exclude, None)
        return problem, torch.where(index >= 0, columns, -1)

    def summed(self, own: Tensors, scalars: Tensor | None = None) -> Tensors:
        """See ``Part.summed``. Sets the poison of the whole batch."""
        sums = Sums(self.poison)
        if scalars is not None and self.unknown_scalars:
            sums.compare(scalars)
        for name, values in own.items():
            sums.put(name, values)
        sums.reduce(self.group)
        self.poison = sums.poison
        return {name: sums.get(name) for name in own}


def _tensors(left: Left) -> Tensors:
    """What a visitor left, by names that are the same on every process."""
    made: Tensors = {} if left.found is None else to_tensors(left.found)
    if left.first is not None:
        made |= {f"first {name}": x for name, x in vars(left.first).items()}
    if left.sums is not None:
        made["sums 0"], made["sums 1"] = left.sums
    if left.gradient is not None:
        made["gradient"] = left.gradient
    return made


def _left(tensors: Tensors) -> Left:
    """The inverse of ``_tensors``."""
    found = {n: x for n, x in tensors.items() if " " not in n and n != "gradient"}
    first = {n.removeprefix("first "): x for n, x in tensors.items() if n.startswith("first ")}
    return Left(
        from_tensors(found) if found else None,
        First(**first) if first else None,
        (tensors["sums 0"], tensors["sums 1"]) if "sums 0" in tensors else None,
        tensors.get("gradient"),
    )


def _merged(a: Tensors, b: Tensors) -> Tensors:
    """Of what two processes left for the same labels. Gradients are added up in place."""
    x, y = _left(a), _left(b)
    found, first, sums, gradient = x
    if found is not None and y.found is not None:
        found = merge_statistics(found, y.found)
    if first is not None and y.first is not None:
        first = earlier(first, y.first)
    if sums is not None and y.sums is not None:
        sums = (sums[0] + y.sums[0], sums[1] + y.sums[1])
    if gradient is not None and y.gradient is not None:
        gradient.add_(y.gradient)
    return _tensors(Left(found, first, sums, gradient))


# Sums over all processes, in one message.


class Sums:
    """Numbers to add up. They travel as float64, in which counts up to 2^53 are exact."""

    def __init__(self, poison: Tensor) -> None:
        """``poison``: 0-d acc, 1 or NaN; NaN on one process becomes NaN on all."""
        self._like: dict[str, Tensor] = {}
        self._place: dict[str, slice] = {}
        self._values: list[Tensor] = []
        self._count = 0
        self._total: Tensor | None = None
        self._processes = 1
        self.put("poison", poison * 0.0)

    def put(self, name: str, values: Tensor) -> None:
        """Add numbers."""
        self._like[name] = values
        values = values.reshape(-1).to(torch.float64)
        self._place[name] = slice(self._count, self._count + values.numel())
        self._count += values.numel()
        self._values.append(values)

    def compare(self, numbers: Tensor) -> None:
        """Poison the result unless every process hands in the same (n,) numbers, bit by bit.

        Of integers a, N Σa² = (Σa)² exactly where all N are equal. The bits are taken 16 at a
        time, so that the sums are exact (for up to 32,768 processes).
        """
        pieces = numbers.contiguous().view(torch.int16).to(torch.float64)
        self.put("pieces", pieces)
        self.put("squares", pieces * pieces)

    def reduce(self, group: Group) -> None:
        """Send and receive."""
        self._total = sum_over(torch.cat(self._values), group, "sums over rows")
        self._processes = group.size()

    def get(self, name: str) -> Tensor:
        """The sum over all processes, in the shape and dtype that were handed in."""
        assert self._total is not None
        like = self._like[name]
        return self._total[self._place[name]].to(like.dtype).view(like.shape)

    @property
    def poison(self) -> Tensor:
        """0-d acc: 1, or NaN."""
        poison = self.get("poison") + 1.0
        if "pieces" not in self._place:
            return poison
        sums, squares = (self.get(name).to(torch.int64) for name in ("pieces", "squares"))
        same = (self._processes * squares == sums * sums).all()
        return torch.where(same, poison, torch.nan)
