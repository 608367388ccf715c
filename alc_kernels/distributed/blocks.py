"""The part of a relation that falls into a block of labels.

A process holds the relation between its own queries and all labels of the global batch. On a
block of labels, columns [start, stop), it becomes a relation of (own queries, block).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from alc_kernels.distributed.control import Sizes
from alc_kernels.engine.interface import Backend, Problem, RowStatistics
from alc_kernels.engine.prepare import First
from alc_kernels.positives import Positives


@dataclass(frozen=True)
class Block:
    """Labels of one process, or of all, as they pass by."""

    start: int  # columns of the global batch
    stop: int
    tensors: dict[str, Tensor]  # what comes with each label, (stop - start, ...)

    @property
    def labels(self) -> Tensor:
        return self.tensors["labels"]  # (stop - start, d)


def block_relation(
    relation: Positives, block: Block, ids: Tensor | None, sizes: Sizes
) -> Positives:
    """``relation`` within ``block``. No host synchronisation on a GPU.

    Args:
        relation: own queries by all labels; "diagonal" and "ids" hold what is local.
        ids: (stop - start,) label ids of the block, for kind "ids".
    """
    rows, columns = relation.num_queries, block.stop - block.start
    own = block.start <= sizes.label_start < block.stop
    if relation.kind == "empty" or columns == 0 or rows == 0:
        return Positives._empty(rows, columns)
    if relation.kind == "diagonal":
        if not own:
            return Positives._empty(rows, columns)
        if rows == columns:
            return Positives.diagonal(rows)
        return _index(_own_columns(rows, sizes, block.labels.device), block)
    if relation.kind == "ids":
        assert ids is not None
        return Positives("ids", rows, columns, (relation.tensors[0], ids))
    if columns == sizes.total_labels:
        return Positives(relation.kind, rows, columns, relation.tensors)
    if relation.kind == "index":
        # Not every row has a label here, which an index cannot say, but ids can.
        numbers = torch.arange(block.start, block.stop, device=block.labels.device)
        return Positives("ids", rows, columns, (relation.tensors[0], numbers))
    return csr_columns(relation, block.start, block.stop, trim=not block.labels.is_cuda)


def _own_columns(rows: int, sizes: Sizes, device: torch.device) -> Tensor:
    return torch.arange(sizes.label_start, sizes.label_start + rows, device=device)


def _index(columns: Tensor, block: Block) -> Positives:
    size = block.stop - block.start
    return Positives("index", columns.numel(), size, (columns - block.start,))


def csr_columns(relation: Positives, start: int, stop: int, trim: bool) -> Positives:
    """Columns [start, stop) of a csr relation, both ways round.

    ``trim`` cuts the vectors of entries to their number, for which the host must know it. Without
    they keep their length, with unused entries (in no row) at the end.
    """
    crow, col, row, first, crow_t, col_t, row_t, first_t = relation.tensors
    inside = (first >= start) & (first < stop)
    forward = _kept(crow, col, row, start, stop)
    # By label the block's entries already stand together.
    pointer = crow_t[start : stop + 1]
    entries = torch.arange(col_t.numel(), device=col_t.device) + pointer[0]
    within = entries < pointer[-1]
    entries = entries.clamp(max=max(col_t.numel() - 1, 0))
    by_label = torch.where(within, row_t[entries] - start, stop - start)
    backward = (pointer - pointer[0], col_t[entries], by_label)
    if trim:
        forward, backward = _trimmed(*forward), _trimmed(*backward)
    own_first = torch.where(inside, first - start, -1)
    made = (*forward, own_first, *backward, first_t[start:stop])
    return Positives("csr", relation.num_queries, stop - start, made)


def _kept(
    crow: Tensor, col: Tensor, row: Tensor, start: int, stop: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Row pointer, columns and rows of the entries in [start, stop), in their order, then unused
    ones."""
    rows, count = crow.numel() - 1, col.numel()
    inside = (col >= start) & (col < stop)
    before = torch.cat([inside.new_zeros(1, dtype=torch.int64), inside.cumsum(0)])  # (nnz + 1,)
    place = torch.where(inside, before[:-1], count)  # the others go to a spare place
    new_col = col.new_zeros(count + 1).scatter_(0, place, col - start)[:count]
    new_row = row.new_full((count + 1,), rows).scatter_(0, place, row)[:count]
    pointer = before[crow]
    used = torch.arange(count, device=col.device) < pointer[-1]
    return pointer, torch.where(used, new_col, 0), torch.where(used, new_row, rows)


def _trimmed(crow: Tensor, col: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    count = int(crow[-1])
    return crow, col[:count], row[:count]


# Each row's first positive when a process sees a block of the columns at a time.
#
# A candidate is (key, index, score): of two candidates the one with the smaller key is first.


NONE = torch.iinfo(torch.int64).max
OWN = -1  # query i with label i, where the ids agree and there are as many of both


def within(index: Tensor, start: int, stop: int) -> Tensor:
    """Global columns as columns of [start, stop), -1 elsewhere."""
    return torch.where((index >= start) & (index < stop), index - start, -1)


def earlier(a: First, b: First) -> First:
    """Row by row the one with the smaller key."""
    assert a.key is not None and b.key is not None
    mine = a.key <= b.key
    return First(
        torch.where(mine, a.index, b.index),
        torch.where(mine, a.score, b.score),
        torch.where(mine, a.key, b.key),
    )


def first_of(
    backend: Backend, problem: Problem, kind: str, row_start: int, start: int, sizes: Sizes
) -> First:
    """The candidates of a problem's rows, own queries or a block's labels, among its columns.

    Args:
        kind: of the whole relation; the problem's may be another.
        row_start, start: the first row and column in the global batch.
    """
    relation = problem.positives
    rows, columns = relation.shape
    if relation.kind == "ids" and columns:
        found = _smallest(*relation.tensors)
    else:
        found = relation.first(problem.queries.device)
    index = torch.where(found >= 0, found + start, -1)
    key = torch.where(index >= 0, index, NONE)
    same = sizes.total_queries == sizes.total_labels
    if kind == "ids" and relation.kind == "ids" and columns and same:
        row_ids, column_ids = relation.tensors
        own = torch.arange(row_start, row_start + rows, device=index.device)
        place = own - start
        here = (place >= 0) & (place < columns)
        agrees = here & (column_ids[place.clamp(0, columns - 1)] == row_ids)
        key, index = torch.where(agrees, OWN, key), torch.where(agrees, own, index)
    local = torch.where(index >= 0, index - start, -1)
    return First(index, backend.score_pairs(problem, local[:, None])[:, 0], key)


def _smallest(row_ids: Tensor, column_ids: Tensor) -> Tensor:
    """Per row the smallest column with the same id, -1 where none."""
    ordered, order = torch.sort(column_ids, stable=True)
    at = torch.searchsorted(ordered, row_ids).clamp_(max=column_ids.numel() - 1)
    return torch.where(ordered[at] == row_ids, order[at], -1)


# Statistics of the same rows over two disjoint sets of columns become those of both.


# Best first: a score and an index, and whether larger or smaller scores win.
_LOG_SUMS = ("log_sum_exp",)
_SELECTED = ("top_score", "top_index", "positive_score", "positive_index")
_OPAQUE = ("active", "gradient", "columns")


def merge_statistics(a: RowStatistics, b: RowStatistics) -> RowStatistics:
    """Of two sets of columns the union; indices must already be global. Commutative."""
    made = RowStatistics(a.num_positives + b.num_positives, a.num_negatives + b.num_negatives)
    for field in fields(RowStatistics):
        name = field.name
        if name in _SELECTED or name in _OPAQUE:
            continue
        x, y = getattr(a, name), getattr(b, name)
        if x is not None:
            setattr(made, name, torch.logaddexp(x, y) if name in _LOG_SUMS else x + y)
    if a.top_score is not None and b.top_score is not None:
        assert a.top_index is not None and b.top_index is not None
        made.top_score, made.top_index = _largest(
            torch.cat([a.top_score, b.top_score], dim=1),
            torch.cat([a.top_index, b.top_index], dim=1),
            a.top_score.shape[1],
        )
    if a.positive_score is not None and b.positive_score is not None:
        assert a.positive_index is not None and b.positive_index is not None
        first = _smaller(a.positive_score, a.positive_index, b.positive_score, b.positive_index)
        made.positive_score = torch.where(first, a.positive_score, b.positive_score)
        made.positive_index = torch.where(first, a.positive_index, b.positive_index)
    return made


def _largest(scores: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of (B, n), equal scores by smaller index, -inf ones last."""
    index, order = index.sort(dim=1)
    scores, by_score = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores[:, :k].contiguous(), index.gather(1, by_score)[:, :k].contiguous()


def _smaller(score: Tensor, index: Tensor, other: Tensor, other_index: Tensor) -> Tensor:
    """(B,) bool: the first comes before the second; index -1 (score +inf) never does."""
    earlier = (score == other) & (index < other_index)
    return ((score < other) | earlier) & (index >= 0) | (other_index < 0)


def shift_indices(found: RowStatistics, start: int) -> RowStatistics:
    """Indices that count from ``start`` on; -1 stays."""
    for name in ("top_index", "positive_index"):
        index = getattr(found, name)
        if index is not None:
            setattr(found, name, torch.where(index >= 0, index + start, index))
    return found


def to_tensors(found: RowStatistics) -> dict[str, Tensor]:
    """The fields that are there, by name."""
    return {
        field.name: getattr(found, field.name)
        for field in fields(RowStatistics)
        if field.name not in _OPAQUE and getattr(found, field.name) is not None
    }


def from_tensors(tensors: dict[str, Tensor]) -> RowStatistics:
    """The inverse of ``to_tensors``."""
    values: dict[str, Any] = dict(tensors)
    return RowStatistics(**values)
