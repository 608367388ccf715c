"""Exact nearest labels of every query among a catalogue's candidates, in bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alc_kernels.functional import topk_similarity


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

    scores, places = topk_similarity(queries, labels[pool], k, normalize=False)
    # Candidates ascend, so a tie that goes to the smaller place goes to the smaller label.
    found = torch.where(places < 0, -1, pool[places.clamp(min=0)])
    return found.cpu().numpy(), scores.cpu().numpy()
