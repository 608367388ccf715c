"""The walk over all labels of the global batch, and what has to go round before and after it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from alc_kernels.distributed.blocks import (
    Block,
    First,
    block_relation,
    earlier,
    first_of_labels,
    first_of_queries,
    from_tensors,
    merge_statistics,
    shift_indices,
    to_tensors,
)
from alc_kernels.distributed.collectives import Group, sum_over
from alc_kernels.distributed.control import Sizes
from alc_kernels.distributed.exchange import Exchange, Gather, Ring, Tensors
from alc_kernels.engine.guard import limits, slack_of
from alc_kernels.engine.interface import (
    Backend,
    Problem,
    RowStatistics,
    WalkRequest,
    accumulation_dtype,
)
from alc_kernels.positives import Positives

# A process's part of the global batch, and the problems it forms with blocks of labels.


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


@dataclass
class Walked:
    """What a process knows of its own rows after the walk."""

    queries: RowStatistics  # of the own queries over all labels
    labels: RowStatistics | None  # of the own labels over all queries, for symmetric losses
    first: First | None  # first positives of the own queries
    label_first: First | None
    pairs: Tensor | None  # (B, 2, d) compute dtype: hardest positive and hardest negative


def find_first(part: Part, columns: bool) -> tuple[First, First | None]:
    """First positives of the own queries and, with ``columns``, of the own labels."""
    found: list[First] = []

    def visitor(block: Block) -> Tensors:
        problem = part.problem(block, None)
        _add_first(found, part, problem, block)
        if not columns:
            return {}
        return _label_first(part, problem.exchanged(), block).tensors()

    left = part.exchange.visit({}, visitor, _merge_first)
    return found[0], First.of(left) if columns else None


def walk_all(
    part: Part,
    request: WalkRequest,
    label_request: WalkRequest | None,
    guard: Tensor | None,
    label_guard: Tensor | None,
    want_first: tuple[bool, bool],
    want_pairs: bool,
) -> Walked:
    """One visit to all labels.

    Args:
        request: of the own queries.
        label_request: of the labels over the queries, for symmetric losses.
        guard, label_guard: (B,) and (M,) acc, of the own queries and labels.
        want_first: first positives of the queries, of the labels.
        want_pairs: embeddings of the hardest pairs.
    """
    found: list[RowStatistics] = []
    first: list[First] = []
    pairs = part.queries.new_zeros(part.queries.shape[0], 2, part.width) if want_pairs else None

    def visitor(block: Block) -> Tensors:
        problem = part.problem(block, guard)
        offset = None if request.label_offset is None else block.tensors["label_offset"]
        here = part.backend.walk(problem, replace(request, label_offset=offset))
        shift_indices(here, block.start)
        found[:] = [merge_statistics(found[0], here) if found else here]
        if want_first[0]:
            _add_first(first, part, problem, block)
        if pairs is not None:
            _keep_pairs(pairs, found[0], block)
        left: Tensors = {}
        if label_request is not None:
            problem = problem.exchanged(block.tensors.get("guard"))
            shown = part.backend.walk(problem, label_request)
            left = to_tensors(shift_indices(shown, part.sizes.query_start))
            if want_first[1]:
                left.update(_label_first(part, problem, block).tensors())
        return left

    extra = {} if label_guard is None else {"guard": label_guard}
    left = part.exchange.visit(extra, visitor, _merge_walks)
    label_first = First.of(left) if want_first[1] else None
    return Walked(
        queries=found[0],
        labels=None if label_request is None else _statistics(left),
        first=first[0] if first else None,
        label_first=label_first,
        pairs=pairs,
    )


def positive_sums(
    part: Part,
    request: WalkRequest,
    log_sum_exp: Tensor | None,
    label_request: WalkRequest | None,
    label_log_sum_exp: Tensor | None,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What ``Backend.positive_pass`` gives over all labels, and for the labels over all queries.

    A log-sum-exp of None leaves that direction out; its result is then empty.
    """
    none = part.queries.new_empty(0, dtype=part.acc)
    own = [none, none]
    if log_sum_exp is not None:
        own = [torch.zeros_like(log_sum_exp) for _ in range(2)]

    def visitor(block: Block) -> Tensors:
        problem = part.problem(block, None)
        if log_sum_exp is not None and request.inverse_temperature is not None:
            sums = part.backend.positive_pass(
                problem, log_sum_exp, request.inverse_temperature, block.tensors.get("label_offset")
            )
            for total, more in zip(own, sums, strict=True):
                total += more
        if label_request is None or label_request.inverse_temperature is None:
            return {}
        if label_log_sum_exp is None:
            return {}
        softplus, sigmoid = part.backend.positive_pass(
            problem.exchanged(),
            block.tensors["log_sum_exp"],
            label_request.inverse_temperature,
            None,
        )
        return {"sigmoid": sigmoid, "softplus": softplus}

    extra = {} if label_log_sum_exp is None else {"log_sum_exp": label_log_sum_exp}
    left = part.exchange.visit(extra, visitor, _add)
    return (own[0], own[1]), (left.get("softplus", none), left.get("sigmoid", none))


def _add(a: Tensors, b: Tensors) -> Tensors:
    return {name: a[name] + b[name] for name in a}


def _add_first(found: list[First], part: Part, problem: Problem, block: Block) -> None:
    here = first_of_queries(part.backend, problem, part.positives, block, part.sizes)
    found[:] = [earlier(found[0], here) if found else here]


def _label_first(part: Part, problem: Problem, block: Block) -> First:
    return first_of_labels(part.backend, problem, part.positives, block, part.sizes)


def _keep_pairs(pairs: Tensor, found: RowStatistics, block: Block) -> None:
    """Copy the embeddings of the hardest pairs that lie in this block."""
    if block.stop == block.start:
        return
    assert found.positive_index is not None and found.top_index is not None
    index = torch.stack([found.positive_index, found.top_index[:, 0]], dim=1)  # (B, 2)
    here = (index >= block.start) & (index < block.stop)
    local = torch.where(here, index - block.start, 0)
    # In place: rows elsewhere keep what they have.
    pairs.copy_(torch.where(here[..., None], block.labels[local], pairs))


def _statistics(tensors: Tensors) -> RowStatistics:
    return from_tensors({k: v for k, v in tensors.items() if not k.startswith("first_")})


def _merge_first(a: Tensors, b: Tensors) -> Tensors:
    return earlier(First.of(a), First.of(b)).tensors()


def _merge_walks(a: Tensors, b: Tensors) -> Tensors:
    made = to_tensors(merge_statistics(_statistics(a), _statistics(b)))
    if "first_key" in a:
        made.update(_merge_first(a, b))
    return made


# Sums over all processes, in one message.


class Sums:
    """Numbers to add up. They travel as float64, in which counts up to 2^53 are exact."""

    def __init__(self, poison: Tensor) -> None:
        """``poison``: 0-d acc, 1 or NaN; NaN on one process becomes NaN on all."""
        self._dtype = poison.dtype
        self._place: dict[str, slice] = {}
        self._values: list[Tensor] = []
        self._count = 0
        self._total: Tensor | None = None
        self._processes = 1
        self._put("poison", poison * 0.0)

    def put(self, name: str, value: Tensor) -> None:
        """Add a 0-d number."""
        self._put(name, value)

    def _put(self, name: str, values: Tensor) -> None:
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
        self._put("pieces", pieces)
        self._put("squares", pieces * pieces)

    def reduce(self, group: Group) -> None:
        """Send and receive."""
        self._total = sum_over(torch.cat(self._values), group, "sums over rows")
        self._processes = group.size()

    def get(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """The sum over all processes, 0-d, in acc or ``dtype``."""
        return self._get(name)[0].to(self._dtype if dtype is None else dtype)

    def _get(self, name: str) -> Tensor:
        assert self._total is not None
        return self._total[self._place[name]]

    @property
    def poison(self) -> Tensor:
        """0-d acc: 1, or NaN."""
        poison = self.get("poison") + 1.0
        if "pieces" not in self._place:
            return poison
        sums, squares = (self._get(name).to(torch.int64) for name in ("pieces", "squares"))
        same = (self._processes * squares == sums * sums).all()
        return torch.where(same, poison, torch.nan)
