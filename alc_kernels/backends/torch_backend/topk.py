"""The k largest of each row, equal values by smaller index."""

from __future__ import annotations

import torch
from torch import Tensor


def exact_topk(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Largest ``k`` per row of ``values`` (R, M), descending, ties to the smaller column.

    ``torch.topk`` does not promise which of several equal values it takes. Entries of -inf do
    not exist: their index is -1, and rows with fewer than k others are filled up with them.

    Returns:
        values (R, k) and int64 indices (R, k).
    """
    num_rows, num_columns = values.shape
    taken = min(k, num_columns)
    if taken == 0 or num_rows == 0:
        top = values.new_full((num_rows, k), -torch.inf)
        return top, torch.full((num_rows, k), -1, device=values.device)
    if taken == 1:
        top, index = values.max(dim=1, keepdim=True)  # documented to return the first maximum
    else:
        # One value more tells whether the cut goes through a tie (looked at on the CPU only).
        look = not values.is_cuda and taken < num_columns
        top, index = values.topk(taken + look, dim=1)
        tied = look and _cuts_a_tie(top, taken)
        top, index = top[:, :taken], index[:, :taken]
        if values.is_cuda or tied:
            index = _smallest_indices(values, top)
        index, _ = index.sort(dim=1)
        top, order = values.gather(1, index).sort(dim=1, descending=True, stable=True)
        index = index.gather(1, order)
    index = torch.where(top == -torch.inf, -1, index)
    if taken < k:
        missing = (num_rows, k - taken)
        top = torch.cat([top, top.new_full(missing, -torch.inf)], dim=1)
        index = torch.cat([index, index.new_full(missing, -1)], dim=1)
    return top, index


def _cuts_a_tie(top: Tensor, taken: int) -> bool:
    """Whether the last value taken equals the first one left out, in any row."""
    last, left_out = top[:, taken - 1], top[:, taken]
    return bool(((last == left_out) & (last > -torch.inf)).any())


def _smallest_indices(values: Tensor, top: Tensor) -> Tensor:
    """The columns of the k largest, where the last value's ties go to the smaller columns."""
    num_columns = values.shape[1]
    last = top[:, -1:]
    room = (top == last).sum(dim=1, keepdim=True)
    equal = values == last
    chosen = (values > last) | (equal & (equal.cumsum(dim=1) <= room))
    columns = torch.arange(num_columns, device=values.device)
    key = torch.where(chosen, num_columns - columns, 0)
    return num_columns - key.topk(top.shape[1], dim=1).values.clamp(min=1)
