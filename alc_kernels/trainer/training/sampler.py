"""Which queries share a batch, epoch by epoch.

- ``cluster_size`` 1: chance decides.
- above: batches are made of whole clusters of similar queries, drawn at random in every epoch,
  so the negatives are hard without a search (NGAME, Dahiya et al., arXiv 2207.04452). Clusters
  grow: the epochs before the first refresh are shuffled, then the size doubles from 2 at every
  refresh up to ``cluster_size``. (NGAME's published settings for LF-AmazonTitles-131K also start
  shuffled and double, at epochs 10, 20, 25, 50, 75, .. of 300, with new clusters every 5 epochs.)

``hard_negatives`` labels per query, drawn from its nearest wrong ones of the whole label set,
join the batch as further labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.errors import CheckpointError
from alc_kernels.trainer.negatives.clusters import (
    deal_clusters,
    divide,
    draw_hard_negatives,
    mine_hard_negatives,
)
from alc_kernels.trainer.negatives.index import QUERIES_PER_PASS, load_faiss
from alc_kernels.trainer.parallel.processes import ALONE, Processes

if TYPE_CHECKING:
    from alc_kernels.trainer.methods.base import Snapshot

# Batches of queries with one sampled label each, and every known pair among them.
#
# The labels of the other queries are the negatives. A label that is also right for another query
# of the batch is one of that query's positives, never its negative.


@dataclass(frozen=True)
class Batch:
    """One batch, or a process's part of one, in the numbering of the data set, all int64.

    Attributes:
        queries: (B,) distinct rows of the training split.
        labels: (M,) distinct label indices, ascending.
        crow, col: the CSR relation B x M; each row begins with the label sampled for it.
        excluded_crow, excluded_col: CSR of the excluded pairs B x M; None where the data set
            excludes nothing.
        all_labels: where this is a part, the labels of the whole batch: the relations have a
            column for each of them.
    """

    queries: np.ndarray
    labels: np.ndarray
    crow: np.ndarray
    col: np.ndarray
    excluded_crow: np.ndarray | None = None
    excluded_col: np.ndarray | None = None
    all_labels: np.ndarray | None = None

    @property
    def columns(self) -> np.ndarray:
        """The labels that the relations' columns stand for."""
        return self.labels if self.all_labels is None else self.all_labels

    def part(self, queries: slice, labels: slice) -> Batch:
        """These queries with all their pairs, and these labels."""
        known = _rows(self.crow, self.col, queries)
        left_out: tuple[np.ndarray | None, np.ndarray | None] = None, None
        if self.excluded_crow is not None and self.excluded_col is not None:
            left_out = _rows(self.excluded_crow, self.excluded_col, queries)
        return Batch(self.queries[queries], self.labels[labels], *known, *left_out, self.labels)


def grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """``size`` batches at a time; the last group may be smaller."""
    while group := list(islice(batches, size)):
        yield group


def num_batches(num_queries: int, batch_size: int) -> int:
    """Batches per epoch: as few as possible."""
    return -(-num_queries // batch_size)


def sample_labels(relation: csr_matrix, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) int64: one label of each row, -1 for a row without any."""
    starts = relation.indptr[rows].astype(np.int64)
    counts = relation.indptr[rows + 1] - starts
    draw = np.floor(rng.random(len(rows)) * counts).astype(np.int64)
    sampled = np.full(len(rows), -1, np.int64)
    filled = counts > 0
    sampled[filled] = relation.indices[(starts + draw)[filled]]
    return sampled


def make_batch(
    relation: csr_matrix,
    rows: np.ndarray,
    sampled: np.ndarray,
    hard: np.ndarray | None = None,
    excluded: csr_matrix | None = None,
) -> Batch:
    """The batch of ``rows`` with all their known and excluded pairs.

    Args:
        relation, excluded: (n, L).
        rows: (B,) rows of both.
        sampled: (B,) a positive of each row, -1 for none.
        hard: further labels of any shape, -1 for none.
    """
    asked = sampled if hard is None else np.concatenate([sampled, hard.ravel()])
    labels = np.unique(asked[asked >= 0])
    row, col = _pairs(relation, rows, labels)
    # Within a row the sampled label comes first: it is the positive of the triplet.
    order = np.lexsort((col, labels[col] != sampled[row], row))
    batch = rows, labels, _row_pointer(row, len(rows)), col[order]
    if excluded is None:
        return Batch(*batch)
    row, col = _pairs(excluded, rows, labels)
    return Batch(*batch, _row_pointer(row, len(rows)), col[np.lexsort((col, row))])


def _pairs(
    relation: csr_matrix, rows: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Places in ``rows`` (ascending) and in ``labels`` of the pairs of ``relation`` among them."""
    known = relation[rows]
    row = np.repeat(np.arange(len(rows)), np.diff(known.indptr))
    label = known.indices.astype(np.int64)
    col = np.searchsorted(labels, label)
    inside = col < len(labels)
    inside[inside] = labels[col[inside]] == label[inside]
    return row[inside], col[inside]


def _row_pointer(row: np.ndarray, num_rows: int) -> np.ndarray:
    """(num_rows + 1,) int64 CSR row pointer of the row numbers ``row``."""
    crow = np.zeros(num_rows + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=num_rows), out=crow[1:])
    return crow


def _rows(crow: np.ndarray, col: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Some consecutive rows of a CSR relation."""
    pointer = crow[rows.start : rows.stop + 1]
    return pointer - pointer[0], col[pointer[0] : pointer[-1]]


class Sampler:
    """The batches of every epoch.

    What an epoch's batches are depends on the settings, the epoch and :meth:`state_dict` only.

    Args:
        relation: (n, L) training relation.
        queries: (N,) int64 distinct rows to use, N >= 1; rows without labels are legal.
        config: ``seed``, ``batch_size`` and the settings of the group "batches".
        excluded: (n, L) pairs that are neither right nor wrong, or None.
        candidates: (C,) ascending numbers of the labels that may be mined; None for all. Labels
            held out of training do not belong to them.
        device: where hard negatives are searched.
        processes: the first one clusters; each mines for its share of the queries.

    Raises:
        MissingFaiss: clusters or an approximate index without the package faiss.
    """

    def __init__(
        self,
        relation: csr_matrix,
        queries: np.ndarray,
        config: TrainConfig,
        excluded: csr_matrix | None = None,
        *,
        candidates: np.ndarray | None = None,
        device: torch.device | str = "cpu",
        processes: Processes = ALONE,
    ) -> None:
        self.processes = processes
        self.relation, self.queries, self.config = relation, queries, config
        self.excluded, self.candidates, self.device = excluded, candidates, device
        self.clusters: np.ndarray | None = None  # (N,) cluster of every query; None: shuffled
        self.pools: np.ndarray | None = None  # (N, hard_negative_pool), -1 where there is none
        self.refreshed = -1  # epoch of the last refresh
        # Now, not when the first epochs have been trained.
        if config.cluster_size > 1:
            load_faiss("cluster_size above 1")
        if config.hard_negatives and config.index == "approximate":
            load_faiss("index = 'approximate'")

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch: as few as possible, the same in every epoch."""
        return num_batches(len(self.queries), self.config.batch_size)

    def needs_snapshot(self, epoch: int) -> bool:
        """Whether :meth:`refresh` has to be called before :meth:`batches` of ``epoch``."""
        return self._refresh_of(epoch) == epoch != self.refreshed

    def refresh(self, epoch: int, snapshot: Snapshot) -> None:
        """Take new clusters and hard negatives for ``epoch`` and those that follow.

        Args:
            epoch: the epoch about to begin.
            snapshot: all vectors of now; its rows are those of ``queries``.
        """
        config = self.config
        size = self._cluster_size(epoch)
        if size > 1:
            parts = self.steps_per_epoch
            largest_batch = -(-len(self.queries) // parts)
            per_batch = -(-largest_batch // size)
            seed = np.random.SeedSequence([config.seed, epoch, 1]).generate_state(1)
            generator = torch.Generator().manual_seed(int(seed[0]))
            self.clusters = self.processes.on_main(
                lambda: divide(snapshot.queries, parts * per_batch, generator).numpy()
            )
        if config.hard_negatives:
            count = len(self.queries)
            own = self.processes.share(count, QUERIES_PER_PASS)
            pools = mine_hard_negatives(
                snapshot.queries[own],
                snapshot.labels,
                snapshot.relation[own],
                None if self.excluded is None else self.excluded[self.queries[own]],
                config,
                candidates=self.candidates,
                device=self.device,
            )
            self.pools = self.processes.gather_array(pools, count, QUERIES_PER_PASS)
        self.refreshed = epoch

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """All queries once, each with one of its labels drawn at random.

        Batches differ in size by at most one query, so the last one is no remnant with few
        negatives, and no cluster is split between two of them.

        Args:
            epoch: counted from 0.
            first: batches to leave out at the beginning, the others stay the same.

        Raises:
            RuntimeError: :meth:`refresh` was due before this epoch.
        """
        due = self._refresh_of(epoch)
        if due is not None and due != self.refreshed:
            raise RuntimeError(
                f"epoch {epoch}: found clusters or hard negatives of epoch {self.refreshed}, "
                f"expected a refresh at epoch {due}"
            )
        rng = np.random.default_rng([self.config.seed, epoch])
        if self.clusters is None:
            order = rng.permutation(len(self.queries))
            parts = np.array_split(order, self.steps_per_epoch)
        else:
            parts = deal_clusters(self.clusters, self.steps_per_epoch, rng)
            order = np.concatenate(parts)
        sampled = sample_labels(self.relation, self.queries[order], rng)
        start = sum(len(part) for part in parts[:first])
        for index, part in enumerate(parts[first:], start=first):
            hard = None
            if self.pools is not None:
                draw = np.random.default_rng([self.config.seed, epoch, index, 2])
                hard = draw_hard_negatives(self.pools[part], self.config.hard_negatives, draw)
            chosen = sampled[start : start + len(part)]
            yield make_batch(self.relation, self.queries[part], chosen, hard, self.excluded)
            start += len(part)

    def state_dict(self) -> dict[str, Tensor]:
        """What :meth:`refresh` left, for a checkpoint."""
        state = {"refreshed": torch.tensor(self.refreshed)}
        if self.clusters is not None:
            state["clusters"] = torch.from_numpy(self.clusters)
        if self.pools is not None:
            state["pools"] = torch.from_numpy(self.pools)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the result of :meth:`state_dict` of a sampler of the same data and settings.

        Raises:
            CheckpointError: it belongs to other data or settings.
        """
        shapes = {
            "refreshed": (),
            "clusters": (len(self.queries),),
            "pools": (len(self.queries), self.config.hard_negative_pool),
        }
        for name, value in state.items():
            if tuple(value.shape) != shapes.get(name):
                raise CheckpointError(
                    f"sampler state {name!r}: found shape {tuple(value.shape)}, "
                    f"expected {shapes.get(name, 'no such entry')}"
                )
        if "refreshed" not in state:
            raise CheckpointError("sampler state: has no 'refreshed'")
        self.refreshed = int(state["refreshed"])
        self.clusters = state["clusters"].numpy() if "clusters" in state else None
        self.pools = state["pools"].numpy() if "pools" in state else None

    def _cluster_size(self, epoch: int) -> int:
        """The largest cluster of ``epoch``: 1, then doubled at every refresh."""
        refreshes = min(epoch // self.config.refresh_every, 62)
        return min(2**refreshes, self.config.cluster_size)

    def _refresh_of(self, epoch: int) -> int | None:
        """The epoch whose refresh ``epoch`` uses; None where it needs none."""
        due = epoch - epoch % self.config.refresh_every
        return due if self.config.hard_negatives or self._cluster_size(due) > 1 else None
