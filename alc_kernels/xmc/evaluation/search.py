"""Exact nearest labels of every query, in bounded memory.

The score matrix is never held: it is made in tiles of ``query_chunk`` x ``label_chunk``. What a
tile keeps becomes 64-bit keys, score above and reversed label number below, so that tiles merge
exactly and equal scores go to the smaller label, whatever the chunks.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_LOW = (1 << 32) - 1


def _sort_keys(scores: Tensor, columns: Tensor) -> Tensor:
    """int64 keys (B, C) whose order is: larger score first, then smaller column."""
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 makes -0.0 and 0.0 the same score
    # Bits of negative floats grow as the number falls; flipping all but the sign mends the order.
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.to(torch.int64) << 32) | (_LOW - columns)


def _unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The columns (B, k) int64 and scores (B, k) float32 behind ``keys``."""
    columns = _LOW - (keys & _LOW)
    ordered = (keys >> 32).to(torch.int32)
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    return columns, bits.view(torch.float32)


def _top_keys(scores: Tensor, columns: Tensor, k: int) -> Tensor:
    """The ``k`` largest keys of every row of a tile ``scores`` (b, c): (b, min(k, c))."""
    if scores.shape[1] <= k:
        return _sort_keys(scores, columns)
    values, places = scores.topk(k + 1, dim=1)
    keys = _sort_keys(values[:, :k], columns[places[:, :k]])
    # torch.topk picks any of several equal scores; where the cut goes through a tie, look again.
    tied = (values[:, k - 1] == values[:, k]).nonzero().squeeze(1)
    if len(tied):
        keys[tied] = _sort_keys(scores[tied], columns).topk(k, dim=1).values
    return keys


def _check(name: str, rows: Tensor) -> Tensor:
    if rows.dim() != 2:
        raise ValueError(f"{name}: expected a matrix (rows, dim), got shape {tuple(rows.shape)}")
    rows = rows.float().contiguous()
    finite = torch.isfinite(rows).all(dim=1)
    if not bool(finite.all()):
        raise ValueError(f"{name}: row {int((~finite).nonzero()[0])} holds a number not finite")
    return rows


@torch.no_grad()
def topk_labels(
    queries: Tensor,
    labels: Tensor,
    k: int,
    candidates: np.ndarray | None = None,
    *,
    query_chunk: int = 256,
    label_chunk: int = 16384,
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` labels of largest inner product per query, ties to the smaller label.

    Args:
        queries: (N, d) embeddings.
        labels: (L, d) embeddings, on the same device.
        k: how many labels per query, >= 1.
        candidates: (C,) label numbers that may be found, ascending; None admits all.

    Returns:
        Label numbers (N, k) int64 and scores (N, k) float32. With fewer than ``k`` candidates the
        missing places hold -1 and -inf.

    Raises:
        ValueError: widths differ, a number is not finite, or there is no candidate.
    """
    queries, labels = _check("queries", queries), _check("labels", labels)
    if queries.shape[1] != labels.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} columns, labels {labels.shape[1]}")
    if k < 1:
        raise ValueError(f"k={k}: expected a number >= 1")
    if candidates is None:
        candidates = np.arange(labels.shape[0])
    candidates = np.asarray(candidates, dtype=np.int64)
    if candidates.size == 0:
        raise ValueError("the catalogue is empty: there is no label to search")
    if np.any(np.diff(candidates) <= 0):
        raise ValueError("candidates: expected ascending label numbers without repeats")
    pool = torch.from_numpy(candidates).to(labels.device)

    found = torch.full((queries.shape[0], k), -1, dtype=torch.int64)
    best = torch.full((queries.shape[0], k), -torch.inf)
    for start in range(0, queries.shape[0], query_chunk):
        block = queries[start : start + query_chunk]  # (b, d)
        kept = block.new_empty((block.shape[0], 0), dtype=torch.int64)
        for first in range(0, len(candidates), label_chunk):
            columns = pool[first : first + label_chunk]
            tile = block @ labels[columns].T  # (b, c)
            merged = torch.cat([kept, _top_keys(tile, columns, k)], dim=1)
            kept = merged.topk(min(k, merged.shape[1]), dim=1).values
        indices, scores = _unpack(kept)
        found[start : start + query_chunk, : kept.shape[1]] = indices.cpu()
        best[start : start + query_chunk, : kept.shape[1]] = scores.cpu()
    return found.numpy(), best.numpy()
