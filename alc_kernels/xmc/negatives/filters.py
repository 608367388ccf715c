"""Sparse relations beside search results: order of the positives, known pairs among the found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

PAIRS_PER_PASS = 65_536


def best_first(queries: Tensor, labels: Tensor, relation: csr_matrix) -> csr_matrix:
    """``relation`` with scores as values and every row in descending order of them.

    Args:
        queries: (n, d) float32.
        labels: (L, d) float32, on the same device.
        relation: (n, L).
    """
    row = np.repeat(np.arange(relation.shape[0]), np.diff(relation.indptr))
    col = relation.indices.astype(np.int64)
    scores = pair_scores(queries, labels, row, col)
    order = np.lexsort((col, -scores, row))
    return csr_matrix((scores[order], col[order], relation.indptr), shape=relation.shape)


def pair_scores(queries: Tensor, labels: Tensor, row: np.ndarray, col: np.ndarray) -> np.ndarray:
    """(p,) float32: inner products of ``queries[row]`` and ``labels[col]``, summed in float64.

    Rounded once: equal vectors have equal scores, in any company.
    """
    scores = np.empty(len(col), np.float32)
    for start in range(0, len(col), PAIRS_PER_PASS):
        part = slice(start, start + PAIRS_PER_PASS)
        ours = queries[torch.from_numpy(row[part]).to(queries.device)]  # (p, d)
        theirs = labels[torch.from_numpy(col[part]).to(labels.device)]  # (p, d)
        scores[part] = (ours.double() * theirs.double()).sum(dim=1).float().cpu().numpy()
    return scores


def drop_known(
    scores: np.ndarray,
    labels: np.ndarray,
    k: int,
    known: Sequence[csr_matrix],
    ceiling: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The first ``k`` of each row that are in no relation and not above the row's ceiling.

    Args:
        scores: (n, m) float32.
        labels: (n, m) int64, -1 for none.
        k: how many to keep.
        known: relations (n, L) of pairs to drop.
        ceiling: (n,) largest score to keep, or None.

    Returns:
        Scores (n, k) and labels (n, k), -inf and -1 where there are fewer.
    """
    keep = labels >= 0
    rows = np.arange(len(labels))
    for relation in known:
        width = relation.shape[1]
        present = np.repeat(rows, np.diff(relation.indptr)) * width + relation.indices
        keep &= ~np.isin(rows[:, None] * width + labels, present)
    if ceiling is not None:
        keep &= scores <= ceiling[:, None]
    first = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(keep, first, axis=1)
    missing = ((0, 0), (0, k - first.shape[1]))
    return (
        np.pad(
            np.where(kept, np.take_along_axis(scores, first, axis=1), -np.inf),
            missing,
            constant_values=-np.inf,
        ),
        np.pad(
            np.where(kept, np.take_along_axis(labels, first, axis=1), -1),
            missing,
            constant_values=-1,
        ),
    )
