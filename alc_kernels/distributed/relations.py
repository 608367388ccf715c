"""The part of a relation that falls into a block of labels.

A process holds the relation between its own queries and all labels of the global batch. On a
block of labels, columns [start, stop), it becomes a relation of (own queries, block).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels.distributed.control import Sizes
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
