"""The vectors of all labels, so that a batch can be compared with every one of them.

DEXML's loss wants the whole label set in the denominator (Gupta et al., ICLR 2024, arXiv
2310.10636), which encodes all labels in every step. Here the batch's own labels are fresh and
carry gradients; the vectors of all others are from the last batch that held them, or from the
last refresh, and carry none.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from alc_kernels import Positives
from alc_kernels.xmc.parallel.processes import ALONE, Processes, all_rows
from alc_kernels.xmc.training.batches import Batch
from alc_kernels.xmc.training.training_set import TrainingSet


class LabelCache:
    """Vectors (C, d) of the C labels that are not held out, and the relation to all of them.

    Of several processes each keeps the vectors of its share of the labels.

    Args:
        data: queries, labels, relation.
        dim: width d.
        device: where the vectors are.
        processes: all of them.

    Attributes:
        own: this process's share of the C labels, all of them where it is alone.
        vectors: (C, d), or its rows ``own``.
    """

    def __init__(
        self, data: TrainingSet, dim: int, device: torch.device, processes: Processes = ALONE
    ) -> None:
        self.data, self.processes = data, processes
        self.place = np.full(data.relation.shape[1], -1, np.int64)  # of a label among the C
        self.place[data.label_ids] = np.arange(len(data.label_ids))
        self.own = processes.share(len(data.label_ids))
        self.vectors = torch.zeros(self.own.stop - self.own.start, dim, device=device)

    def refresh(self, vectors: Tensor) -> None:
        """Take new vectors of the labels ``own``."""
        self.vectors = vectors.detach().to(self.vectors)

    def with_live(self, batch: Batch, live: Tensor) -> Tensor:
        """The vectors, those of the batch's labels replaced by ``live`` (M, d).

        Gradients flow to ``live``, whose values the cache keeps. Live vectors of other processes
        are fetched from there, and their gradients go back.
        """
        places = self.place[batch.columns]
        if self.processes.size > 1:
            live = all_rows(live, self.processes, self.processes.counts(len(live)))
            mine = np.flatnonzero((places >= self.own.start) & (places < self.own.stop))
            live, places = live[torch.from_numpy(mine).to(live.device)], places[mine]
        at = torch.from_numpy(places - self.own.start).to(live.device)
        vectors = self.vectors.index_copy(0, at, live)
        self.vectors = vectors.detach()
        return vectors

    def positives(self, batch: Batch) -> Positives:
        """The batch's queries x C labels; each row begins with the label sampled for it."""
        sampled = np.full(len(batch.queries), -1, np.int64)
        filled = np.diff(batch.crow) > 0
        sampled[filled] = batch.columns[batch.col[batch.crow[:-1][filled]]]
        return self._pairs(self.data.relation[batch.queries], sampled)

    def exclude(self, batch: Batch) -> Positives | None:
        """The excluded pairs of the batch's queries x C labels."""
        if self.data.excluded is None:
            return None
        return self._pairs(self.data.excluded[batch.queries])

    def _pairs(self, rows: csr_matrix, first: np.ndarray | None = None) -> Positives:
        """``rows`` (B, L) without held-out labels, the label ``first`` (B,) in front."""
        row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        label = rows.indices.astype(np.int64)
        row, label = row[self.place[label] >= 0], label[self.place[label] >= 0]
        if first is not None:
            label = label[np.lexsort((label, label != first[row], row))]
        crow = np.zeros(rows.shape[0] + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=rows.shape[0]), out=crow[1:])
        made = Positives.from_csr(
            torch.from_numpy(crow), torch.from_numpy(self.place[label]), len(self.data.label_ids)
        )
        return made.to(self.vectors.device)

    def state_dict(self) -> dict[str, Tensor]:
        """All vectors (C, d), whoever keeps them; to be called by everyone."""
        return {"vectors": self.processes.gather_rows(self.vectors, len(self.data.label_ids))}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Take the own ones of what :meth:`state_dict` gave.

        Raises:
            ValueError: they are of other labels.
        """
        if len(saved["vectors"]) != len(self.data.label_ids):
            raise ValueError(
                f"found vectors of {len(saved['vectors'])} labels, "
                f"expected {len(self.data.label_ids)}"
            )
        self.vectors.copy_(saved["vectors"][self.own])
