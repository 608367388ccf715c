"""Pairs of equal keys, listed sparsely: what relations by text or by class are made of."""

from __future__ import annotations

import torch
from torch import Tensor


def equal_pairs(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """All (row, column) with ``left[row] == right[column]``, by row, then by column.

    Args:
        left: (n,) integers.
        right: (m,) integers, on the same device.

    Returns:
        rows and columns, (pairs,) int64 each. The host waits once, for their number.
    """
    order = torch.argsort(right, stable=True)
    ranked = right[order]
    start = torch.searchsorted(ranked, left)  # (n,)
    count = torch.searchsorted(ranked, left, right=True) - start  # (n,)
    rows = torch.repeat_interleave(torch.arange(left.numel(), device=left.device), count)
    place = torch.arange(rows.numel(), device=left.device) - (count.cumsum(0) - count)[rows]
    return rows, order[start[rows] + place]
