"""Exact nearest labels of every query among a catalogue's candidates, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Protocol

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from alc_kernels.trainer.data.text.texts import TextRows
from alc_kernels.trainer.model import LABELS_PER_PASS
from alc_kernels.trainer.negatives.index import QUERIES_PER_PASS, ExactIndex
from alc_kernels.trainer.parallel.processes import ALONE, Processes, shares

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


# The same exact search by several processes, over queries and over labels.


class TextModel(Protocol):
    """Whatever turns query texts (n) and label texts (L) into vectors (n, d) and (L, d).

    ``label_ids`` (L,) are the labels' numbers; None where ``texts`` are all labels in order.
    """

    def encode_queries(self, texts: Sequence[str]) -> Tensor: ...

    def encode_labels(
        self, texts: Sequence[str], label_ids: np.ndarray | None = None
    ) -> Tensor: ...


class SharedSearch:
    """Encodes and ranks; everyone gets every result, and the bits do not depend on the processes.

    Args:
        model: turns texts into vectors, see :class:`TextModel`.
        processes: each encodes its share of the texts. For the search they form as many groups
            as divide both their number and ``label_shards``: a group has its shards of the
            labels, its members have shares of the queries.
        label_shards: parts of the labels, searched one by one and merged. A device holds the
            vectors of one at a time.
    """

    def __init__(
        self, model: TextModel, processes: Processes = ALONE, label_shards: int = 1
    ) -> None:
        self.model, self.processes, self.label_shards = model, processes, label_shards

    def encode_queries(self, texts: Sequence[str]) -> Tensor:
        """(n, d) on the CPU; all processes must call it."""
        if self.processes.size == 1:
            return self.model.encode_queries(texts)
        own = self.processes.share(len(texts), QUERIES_PER_PASS)
        vectors = self.model.encode_queries(TextRows(texts, np.arange(own.start, own.stop)))
        return self.processes.gather_rows(vectors.cpu(), len(texts), QUERIES_PER_PASS)

    def encode_labels(self, texts: Sequence[str]) -> Tensor:
        """(L, d) of all labels in order; all processes must call it."""
        if self.processes.size == 1:
            return self.model.encode_labels(texts)
        own = self.processes.share(len(texts), LABELS_PER_PASS)
        ids = np.arange(own.start, own.stop)
        vectors = self.model.encode_labels(TextRows(texts, ids), ids)
        return self.processes.gather_rows(vectors.cpu(), len(texts), LABELS_PER_PASS)

    def topk(
        self,
        queries: Tensor,
        labels: Tensor,
        k: int,
        candidates: np.ndarray,
        excluded: csr_matrix | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As :func:`~.search.topk_labels`, of arguments that are the same in all processes."""
        processes = self.processes
        parts = min(self.label_shards, max(1, len(candidates)))
        if processes.size == parts == 1:
            return topk_labels(queries, labels, k, candidates, excluded, device=device)
        check_rows("queries", queries)
        check_rows("labels", labels)
        groups = gcd(parts, processes.size)
        spread = shares(len(queries), processes.size // groups, QUERIES_PER_PASS)
        own = spread[processes.rank // groups]
        found = [
            topk_labels(
                queries[own],
                labels,
                k,
                candidates[part],
                None if excluded is None else excluded[own][:, part],
                device=device,
            )
            for number, part in enumerate(shares(len(candidates), parts))
            if number % groups == processes.rank % groups
        ]
        counts = [len(queries[spread[rank // groups]]) for rank in range(processes.size)]
        indices, scores = (
            self._side_by_side(np.concatenate(arrays, axis=1), counts, groups)
            for arrays in zip(*found, strict=True)
        )
        return _best(indices, scores, k)

    def _side_by_side(self, own: np.ndarray, counts: list[int], groups: int) -> np.ndarray:
        """All queries in order, what the groups found for one of them in its row."""
        gathered = self.processes.gather_uneven(torch.from_numpy(own), counts)
        parts = [part.numpy() for part in gathered.split(counts)]
        rows = [parts[first : first + groups] for first in range(0, len(parts), groups)]
        return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _best(indices: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best ``k`` of each row's (n, several k) labels, ties to the smaller; -1 are none."""
    last = np.where(indices < 0, np.iinfo(np.int64).max, indices)
    order = np.lexsort((last, -scores), axis=1)[:, :k]
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(scores, order, axis=1)
