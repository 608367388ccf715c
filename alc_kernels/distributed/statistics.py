"""Statistics of the same rows over two disjoint sets of columns become those of both."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from alc_kernels.backends.interface import RowStatistics

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
