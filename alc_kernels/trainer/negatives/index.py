"""Nearest labels by cosine, exact or approximate, without what is right or excluded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn import functional as F

from alc_kernels import Positives
from alc_kernels.functional import Catalogue, hardest_negatives, prepare, topk_similarity
from alc_kernels.trainer.errors import XMCError, needs

# Sparse relations beside search results: order of the positives, known pairs among the found.


PAIRS_PER_PASS = 65_536
PAIRS_IN_CACHE = 1024  # of a CPU


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
    size = PAIRS_PER_PASS if queries.is_cuda else PAIRS_IN_CACHE
    for start in range(0, len(col), size):
        part = slice(start, start + size)
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

    def filled(values: np.ndarray, none: float) -> np.ndarray:
        picked = np.where(kept, np.take_along_axis(values, first, axis=1), none)
        return np.pad(picked, missing, constant_values=none)

    return filled(scores, -np.inf), filled(labels, -1)


# FAISS: imported where it is needed, and made repeatable.


class MissingFaiss(XMCError):
    """Something needs FAISS, which is not installed."""


def load_faiss(purpose: str) -> Any:
    """The module ``faiss``.

    Args:
        purpose: what needs it, as the first words of the error.

    Raises:
        MissingFaiss: it is not installed; names the extra to install.
    """
    with needs(purpose, "faiss", "faiss-cpu", MissingFaiss):
        import faiss
    return faiss


@contextmanager
def single_thread(faiss: Any) -> Iterator[None]:
    """One thread for FAISS: results then do not depend on how many the machine offers."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


UNIT = 2.0**-24  # of rounding, in float32
# Processes are dealt whole passes, so that these have the same bits for any number of them.
QUERIES_PER_PASS = 2048
# Below this an approximate search saves nothing over a scan.
SCANNED_LABELS = 10_000
LISTS_PER_ROOT = 4  # inverted lists per square root of the number of labels, as FAISS advises
SEARCHED_SHARE = 16  # one list in so many is searched
MIN_PROBES = 32
SLACK = 8  # labels asked for beyond those needed, which settles most ties at once
GPU_WIDTH = 2048  # faiss-gpu returns no more labels of a query


class LabelIndex(ABC):
    """Finds the nearest labels of queries."""

    @torch.no_grad()
    def search(
        self,
        queries: Tensor,
        k: int,
        relation: csr_matrix | None = None,
        excluded: csr_matrix | None = None,
        margin: float | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest labels that are neither positives nor excluded nor too similar.

        Equal scores go to the smaller label.

        Args:
            queries: (n, d) floating point, on any device.
            k: labels per query, at least 1.
            relation: (n, L) positives of these queries, or None.
            excluded: (n, L) further pairs to leave out, or None.
            margin: leave out labels that score above the query's best positive less this; a query
                without positives loses none. None leaves out none.

        Returns:
            Scores (n, k) float32, descending, and labels (n, k) int64. Where there are fewer than
            k, -inf and -1.
        """
        scores = np.empty((len(queries), k), np.float32)
        found = np.empty((len(queries), k), np.int64)
        for start in range(0, len(queries), QUERIES_PER_PASS):
            part = slice(start, start + QUERIES_PER_PASS)
            own = None if relation is None else relation[part]
            leave_out = None if excluded is None else excluded[part]
            scores[part], found[part] = self._pass(queries[part], k, own, leave_out, margin)
        return scores, found

    @abstractmethod
    def _pass(
        self,
        queries: Tensor,
        k: int,
        relation: csr_matrix | None,
        excluded: csr_matrix | None,
        margin: float | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same for as many queries as are held at once."""


class ExactIndex(LabelIndex):
    """Compares with every label, in memory that does not grow with the number of queries.

    Args:
        labels: (L, d) floating point.
        device: where they are kept and compared; queries are moved there in parts.
        normalize: cosine, or plain inner product.
    """

    def __init__(
        self, labels: Tensor, device: torch.device | str = "cpu", *, normalize: bool = True
    ) -> None:
        self.device, self.normalize = torch.device(device), normalize
        self.labels = self._prepared(labels)

    @cached_property
    def _catalogue(self) -> Catalogue:
        return prepare(self.labels, normalize=False)

    def _prepared(self, rows: Tensor) -> Tensor:
        rows = rows.detach().to(self.device).float()
        return (F.normalize(rows, dim=1) if self.normalize else rows).contiguous()

    def _pass(
        self,
        queries: Tensor,
        k: int,
        relation: csr_matrix | None,
        excluded: csr_matrix | None,
        margin: float | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = self._prepared(queries)
        leave_out = None if excluded is None else self._pairs(excluded)
        if relation is None:
            top = topk_similarity(rows, self._catalogue, k, leave_out, normalize=False)
        else:
            top = hardest_negatives(
                rows,
                self.labels,
                # The guard goes by a row's first positive.
                self._pairs(best_first(rows, self.labels, relation)),
                leave_out,
                k,
                normalize=False,
                exclude_above=margin,
            )
        return top[0].cpu().numpy(), top[1].cpu().numpy()

    def _pairs(self, relation: csr_matrix) -> Positives:
        crow = torch.from_numpy(relation.indptr.astype(np.int64))
        col = torch.from_numpy(relation.indices.astype(np.int64))
        return Positives.from_csr(crow, col, relation.shape[1]).to(self.device)


class ApproximateIndex(LabelIndex):
    """Looks at a part of the labels only: FAISS, inverted lists over full vectors.

    About 4 √L lists, of which one in 16 and at least 32 are searched; up to 10,000 labels all
    are. Repeatable, unlike a graph index, which depends on how threads took turns building it.
    The index lives on the GPU where ``device`` is one and faiss-gpu is installed, else on the CPU.

    True neighbours may be missing, see :meth:`recall`; what a query gets does not depend on the
    others of the call. With a ``margin``, 2 k labels are looked at; a query for which more than k
    of them are too similar gets fewer than k.

    Args:
        labels: (L, d) floating point.
        device: see above.

    Raises:
        MissingFaiss: the package faiss is not installed.
    """

    def __init__(self, labels: Tensor, device: torch.device | str = "cpu") -> None:
        faiss = load_faiss("an approximate index")
        self.labels = F.normalize(labels.detach().float().cpu(), dim=1).contiguous()
        count, dim = self.labels.shape
        if count <= SCANNED_LABELS:
            index: Any = faiss.IndexFlatIP(dim)
        else:
            lists = int(LISTS_PER_ROOT * count**0.5)
            index = faiss.IndexIVFFlat(
                faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT
            )
            index.nprobe = max(MIN_PROBES, lists // SEARCHED_SHARE)
            index.cp.niter = 10
            index.cp.min_points_per_centroid = 1
            index.cp.max_points_per_centroid = 64
            index.train(self.labels.numpy())
        index.add(self.labels.numpy())
        # Two scores of FAISS that differ by no more may belong to equal vectors.
        self.rounding = np.float32(2 * (dim + 4) * UNIT)
        self.widest = count
        device = torch.device(device)
        if device.type == "cuda" and hasattr(faiss, "StandardGpuResources"):
            self.widest = min(count, GPU_WIDTH)
            self._resources = faiss.StandardGpuResources()  # has to live as long as the index
            index = faiss.index_cpu_to_gpu(self._resources, device.index or 0, index)
        self.index = index

    def _pass(
        self,
        queries: Tensor,
        k: int,
        relation: csr_matrix | None,
        excluded: csr_matrix | None,
        margin: float | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = F.normalize(queries.detach().float().cpu(), dim=1).contiguous()
        known = [pairs for pairs in (relation, excluded) if pairs is not None]
        counts = sum((np.diff(pairs.indptr) for pairs in known), np.zeros(len(rows), np.int64))
        looked_at = k * (1 if margin is None else 2) + counts  # (n,)
        ceiling = None
        if relation is not None and margin is not None:
            ceiling = self._ceilings(rows, relation, margin)
        top, labels = self._nearest(rows, looked_at)
        return drop_known(top, labels, k, known, ceiling)

    def _nearest(self, rows: Tensor, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest ``counts`` (n,) labels of each row (n, d), ties to the smaller label.

        FAISS orders equal scores by descending number, cuts a list of them anywhere, and its last
        bits depend on how many queries it is given. So more is asked for than needed, scored
        anew, and asked again where the cut falls among labels that rounding could exchange.
        """
        top = np.full((len(rows), int(counts.max(initial=1))), -np.inf, np.float32)
        found = np.full(top.shape, -1, np.int64)
        open_rows, width = np.arange(len(rows)), top.shape[1] + SLACK
        while len(open_rows):
            width = min(width, self.widest)
            asked, wanted = rows[torch.from_numpy(open_rows)], counts[open_rows, None]
            by_faiss, labels = self.index.search(asked.numpy(), width)
            labels, scores = self._rescored(asked, labels)
            last = np.take_along_axis(scores, np.minimum(wanted, width) - 1, 1)[:, 0]
            # At -inf the searched lists hold no more.
            unsure = (last <= by_faiss[:, -1] + self.rounding) & (last > -np.inf)
            unsure &= width < self.widest
            kept = np.arange(width) < wanted
            shown = min(width, top.shape[1])
            sure = open_rows[~unsure]
            top[sure, :shown] = np.where(kept, scores, -np.inf)[~unsure, :shown]
            found[sure, :shown] = np.where(kept, labels, -1)[~unsure, :shown]
            open_rows, width = open_rows[unsure], 4 * width
        return top, found

    def _rescored(self, rows: Tensor, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, w) labels in order, and their scores: of each pair alone, rounded once."""
        scores = np.full(labels.shape, -np.inf, np.float32)
        row, place = np.nonzero(labels >= 0)
        scores[row, place] = pair_scores(rows, self.labels, row, labels[row, place])
        order = np.lexsort((labels, -scores), axis=1)
        return np.take_along_axis(labels, order, 1), np.take_along_axis(scores, order, 1)

    def _ceilings(self, rows: Tensor, relation: csr_matrix, margin: float) -> np.ndarray:
        """(n,) float32: the best positive's score less ``margin``, inf where there is none."""
        ordered = best_first(rows, self.labels, relation)
        filled = np.diff(ordered.indptr) > 0
        ceilings = np.full(len(rows), np.inf, np.float32)
        guard = np.float32(margin) + self.rounding  # what rounding may lift over it counts as over
        ceilings[filled] = ordered.data[ordered.indptr[:-1][filled]] - guard
        return ceilings

    def recall(self, queries: Tensor, k: int) -> float:
        """Share of the true ``k`` nearest labels of ``queries`` (n, d) that are found."""
        found, true = self.search(queries, k)[1], ExactIndex(self.labels).search(queries, k)[1]
        hits = [
            len(np.intersect1d(mine[mine >= 0], theirs[theirs >= 0]))
            for mine, theirs in zip(found, true, strict=True)
        ]
        return float(sum(hits) / max(int((true >= 0).sum()), 1))


def build_index(kind: str, labels: Tensor, device: torch.device | str = "cpu") -> LabelIndex:
    """The index that the setting ``index`` names, over ``labels`` (L, d).

    Raises:
        ValueError: ``kind`` is neither "exact" nor "approximate".
        MissingFaiss: "approximate" without the package faiss.
    """
    if kind == "exact":
        return ExactIndex(labels, device)
    if kind == "approximate":
        return ApproximateIndex(labels, device)
    raise ValueError(f"index = {kind!r}: expected 'exact' or 'approximate'")
