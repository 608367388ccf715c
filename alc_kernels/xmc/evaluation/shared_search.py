"""The same exact search by several processes, over queries and over labels."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Protocol

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from alc_kernels.xmc.data.text.texts import TextRows
from alc_kernels.xmc.evaluation.search import check_rows, topk_labels
from alc_kernels.xmc.model import LABELS_PER_PASS
from alc_kernels.xmc.negatives.index import QUERIES_PER_PASS
from alc_kernels.xmc.parallel.processes import ALONE, Processes
from alc_kernels.xmc.parallel.shares import shares


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
