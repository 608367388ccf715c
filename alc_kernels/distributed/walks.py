"""The walk over all labels of the global batch, and what has to go round before and after it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from alc_kernels.backends.interface import Problem, RowStatistics, WalkRequest
from alc_kernels.distributed.exchange import Tensors
from alc_kernels.distributed.first import First, earlier, first_of_labels, first_of_queries
from alc_kernels.distributed.part import Part
from alc_kernels.distributed.relations import Block
from alc_kernels.distributed.statistics import (
    from_tensors,
    merge_statistics,
    shift_indices,
    to_tensors,
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
