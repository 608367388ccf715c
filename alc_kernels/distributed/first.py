"""Each row's first positive when a process sees a block of the columns at a time.

A candidate is (key, index, score): of two candidates the one with the smaller key is first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels.backends.interface import Backend, Problem
from alc_kernels.distributed.control import Sizes
from alc_kernels.distributed.relations import Block
from alc_kernels.positives import Positives

NONE = torch.iinfo(torch.int64).max
OWN = -1  # query i with label i, where the ids agree and there are as many of both


@dataclass(frozen=True)
class First:
    """Candidates of some rows."""

    key: Tensor  # (n,) int64
    index: Tensor  # (n,) int64, global column, -1 where there is none
    score: Tensor  # (n,) acc, 0 where there is none

    def tensors(self) -> dict[str, Tensor]:
        return {"first_key": self.key, "first_index": self.index, "first_score": self.score}

    @staticmethod
    def of(tensors: dict[str, Tensor]) -> First:
        names = ("first_key", "first_index", "first_score")
        return First(*(tensors[name] for name in names))


def earlier(a: First, b: First) -> First:
    """Row by row the one with the smaller key."""
    mine = a.key <= b.key
    return First(
        torch.where(mine, a.key, b.key),
        torch.where(mine, a.index, b.index),
        torch.where(mine, a.score, b.score),
    )


def first_of_queries(
    backend: Backend, problem: Problem, relation: Positives, block: Block, sizes: Sizes
) -> First:
    """The own queries' candidates among the block's labels."""
    own = torch.arange(problem.queries.shape[0], device=problem.queries.device)
    if relation.kind == "ids":
        found = _smallest(*problem.positives.tensors) if problem.positives.tensors else own * 0 - 1
        found = torch.where(found >= 0, found + block.start, -1)
        opposite = own + sizes.query_start
        key, index = _prefer_own(found, opposite, *_ids(problem), block.start, sizes)
        return _scored(backend, problem, key, index, block.start)
    if relation.kind == "diagonal":
        index = own + sizes.label_start
    elif relation.kind == "index":
        index = relation.tensors[0]
    elif relation.kind == "csr":
        index = relation.tensors[3]
    else:
        index = torch.full_like(own, -1)
    index = torch.where((index >= block.start) & (index < block.stop), index, -1)
    return _scored(backend, problem, _key(index), index, block.start)


def first_of_labels(
    backend: Backend, problem: Problem, relation: Positives, block: Block, sizes: Sizes
) -> First:
    """The block's labels' candidates among the own queries.

    ``problem`` is the exchanged one: its rows are labels.
    """
    rows, columns = problem.positives.shape
    device, start = problem.queries.device, sizes.query_start
    number = torch.arange(rows, device=device)
    index = torch.full_like(number, -1)
    if columns == 0 or rows == 0:
        return _scored(backend, problem, _key(index), index, start)
    if relation.kind == "ids":
        found = _smallest(*problem.positives.tensors)
        found = torch.where(found >= 0, found + start, -1)
        opposite = number + block.start
        key, index = _prefer_own(found, opposite, *_ids(problem), start, sizes)
        return _scored(backend, problem, key, index, start)
    if relation.kind == "diagonal":
        query = number + block.start - sizes.label_start
        index = torch.where((query >= 0) & (query < columns), query, -1)
    elif relation.kind == "index":
        label = relation.tensors[0] - block.start  # (columns,)
        inside = (label >= 0) & (label < rows)
        query = torch.arange(columns, device=device)
        smallest = torch.full((rows + 1,), columns, device=device).scatter_reduce(
            0, torch.where(inside, label, rows), query, "amin"
        )[:rows]
        index = torch.where(smallest < columns, smallest, -1)
    elif relation.kind == "csr":
        index = relation.tensors[7][block.start : block.stop]
    index = torch.where(index >= 0, index + start, -1)
    return _scored(backend, problem, _key(index), index, start)


def _key(index: Tensor) -> Tensor:
    return torch.where(index >= 0, index, NONE)


def _ids(problem: Problem) -> tuple[Tensor, Tensor]:
    """Ids of the rows and of the columns."""
    if problem.positives.tensors:
        return problem.positives.tensors[0], problem.positives.tensors[1]
    none = torch.empty(0, dtype=torch.int64, device=problem.queries.device)
    return none, none


def _smallest(row_ids: Tensor, column_ids: Tensor) -> Tensor:
    """Per row the smallest column with the same id, -1 where none."""
    ordered, order = torch.sort(column_ids, stable=True)
    at = torch.searchsorted(ordered, row_ids).clamp_(max=column_ids.numel() - 1)
    return torch.where(ordered[at] == row_ids, order[at], -1)


def _prefer_own(
    found: Tensor, own: Tensor, row_ids: Tensor, column_ids: Tensor, start: int, sizes: Sizes
) -> tuple[Tensor, Tensor]:
    """Keys and indices; ``own`` (n,) is the column with the row's own global number."""
    key = _key(found)
    if sizes.total_queries != sizes.total_labels or column_ids.numel() == 0:
        return key, found
    place = own - start
    here = (place >= 0) & (place < column_ids.numel())
    agrees = here & (column_ids[place.clamp(0, column_ids.numel() - 1)] == row_ids)
    return torch.where(agrees, OWN, key), torch.where(agrees, own, found)


def _scored(backend: Backend, problem: Problem, key: Tensor, index: Tensor, start: int) -> First:
    local = torch.where(index >= 0, index - start, -1)
    return First(key, index, backend.score_pairs(problem, local[:, None])[:, 0])
