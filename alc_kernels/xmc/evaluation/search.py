"""Exact nearest labels of every query among a catalogue's candidates, in bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from alc_kernels.xmc.negatives.index import ExactIndex

ROWS_PER_CHECK = 65_536


def topk_labels(
    queries: Tensor,
    labels: Tensor,
    k: int,
    candidates: np.ndarray | None = None,
    excluded: csr_matrix | None = None,
    *,
    device: torch.device | str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` labels of largest inner product per query, ties to the smaller label.

    Beside the arguments and the result, memory is needed for the candidates' vectors and a part
    of the queries; the matrix of all scores never exists. Excluded pairs are left out during the
    search, which gives what retrieving ``k`` plus the largest count of a row and filtering would.

    Args:
        queries: (N, d) embeddings.
        labels: (L, d) embeddings.
        k: how many labels per query, >= 1.
        candidates: (C,) label numbers that may be found, ascending; None admits all, C = L.
        excluded: (N, C) pairs never found, such as those of a filter file; column c stands for
            ``candidates[c]``.
        device: where to search, None for where ``labels`` are. The candidates are kept there,
            queries are moved there in parts.

    Returns:
        Label numbers (N, k) int64 and scores (N, k) float32. With fewer than ``k`` candidates left
        the missing places hold -1 and -inf.

    Raises:
        ValueError: widths or shapes do not fit, a number is not finite, or there is no candidate.
    """
    check_rows("queries", queries)
    check_rows("labels", labels)
    if queries.shape[1] != labels.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} columns, labels {labels.shape[1]}")
    if k < 1:
        raise ValueError(f"k={k}: expected a number >= 1")
    if candidates is not None:
        candidates = np.asarray(candidates, dtype=np.int64)
        if np.any(np.diff(candidates) <= 0):
            raise ValueError("candidates: expected ascending label numbers without repeats")
    count = len(labels) if candidates is None else len(candidates)
    if count == 0:
        raise ValueError("the catalogue is empty: there is no label to search")
    if excluded is not None and excluded.shape != (len(queries), count):
        raise ValueError(
            f"excluded: found shape {excluded.shape}, expected {(len(queries), count)} "
            "(queries x candidates)"
        )
    if candidates is not None and count < len(labels):
        labels = labels[torch.from_numpy(candidates).to(labels.device)]
    index = ExactIndex(labels, labels.device if device is None else device, normalize=False)
    scores, found = index.search(queries, k, excluded=excluded)
    if candidates is not None:
        # Candidates ascend, so a tie that goes to the smaller place goes to the smaller label.
        found = np.where(found < 0, -1, candidates[found])
    return found, scores


def check_rows(name: str, rows: Tensor) -> None:
    """Raise ValueError unless ``rows`` is a matrix of finite numbers."""
    if rows.dim() != 2:
        raise ValueError(f"{name}: expected a matrix (rows, dim), got shape {tuple(rows.shape)}")
    for start in range(0, len(rows), ROWS_PER_CHECK):
        finite = torch.isfinite(rows[start : start + ROWS_PER_CHECK]).all(dim=1)
        if not bool(finite.all()):
            row = start + int((~finite).nonzero()[0])
            raise ValueError(f"{name}: row {row} holds a number not finite")
