"""What training may see of a data set: queries in use, and labels that are not held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from alc_kernels import Positives
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data.beside import first_id
from alc_kernels.trainer.data.dataset import Dataset
from alc_kernels.trainer.data.tables import normalize_text
from alc_kernels.trainer.data.text.texts import Digests
from alc_kernels.trainer.data.text.texts import fingerprint as text_fingerprint
from alc_kernels.trainer.encoders.base import ConcatTokens, Encoder, TokenRows
from alc_kernels.trainer.errors import DataError
from alc_kernels.trainer.methods import Snapshot
from alc_kernels.trainer.model import Model
from alc_kernels.trainer.parallel.processes import ALONE, Processes, all_rows
from alc_kernels.trainer.training.sampler import Batch

TEXTS_PER_PASS = 1024


class TrainingSet:
    """The training split of a data set, in the data set's numbers.

    Args:
        dataset: texts and relation.
        config: ``keep_unmatched``.

    Attributes:
        queries: (N,) int64 rows of the training split in use.
        label_ids: (C,) int64, ascending: labels that are not held out. Negatives are of these.
        relation: (n, L) CSR of the training split.
        excluded: (n, L) CSR of pairs that are neither right nor wrong, or None.

    Raises:
        DataError: no training query has a label, or ``keep_unmatched`` finds none to keep.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig) -> None:
        self.dataset = dataset
        self.queries = _queries_in_use(dataset, config)
        self.label_ids = np.flatnonzero(~dataset.held_out)
        self.relation, self.excluded = dataset.train.relation, dataset.train.excluded

    def adapt(self, encoder: Encoder) -> None:
        """Let a fresh encoder look at the texts."""
        train = self.dataset.train.queries
        encoder.adapt(
            TokenRows(encoder.tokenize(train), self.queries),
            encoder.tokenize(self.dataset.open_catalogue().texts),
        )

    def tokenize(self, encoder: Encoder) -> None:
        """Make all texts ready; to be called before :meth:`select` and :meth:`snapshot`."""
        # Queries and labels as one: a batch is then a single pass of the encoder.
        self.texts = ConcatTokens(
            encoder.tokenize(self.dataset.train.queries), encoder.tokenize(self.dataset.labels)
        )

    def select(
        self, queries: np.ndarray, labels: np.ndarray, chunk: int = 0, most: int = 0
    ) -> list[Any]:
        """The encoder's inputs for the texts of ``queries`` (B,), then of ``labels`` (M,).

        In one piece, or in pieces of at most ``chunk`` texts. Where other processes have up to
        ``most`` texts, there are as many pieces as they have: the last ones are then of a text
        that nobody asked for, whose vectors are to be left out.
        """
        rows = np.concatenate([queries, labels + len(self.dataset.train)])
        most = max(most, len(rows))
        size = chunk or most
        needed = size * (-(-most // size) - 1) + 1
        rows = np.pad(rows, (0, max(0, needed - len(rows))))
        return [
            self.texts.select(rows[start : start + size]) for start in range(0, len(rows), size)
        ]

    @torch.no_grad()
    def snapshot(
        self,
        model: Model,
        autocast: AbstractContextManager[Any],
        processes: Processes = ALONE,
    ) -> Snapshot:
        """Vectors of all queries in use and of all labels, in evaluation mode.

        Each process encodes its share of them and gets all.

        Labels that are held out are among them, because the label side gives them a place among
        the others; nothing that is trained looks at their vectors.
        """
        model.eval()
        none = np.zeros(0, np.int64)
        with autocast:
            queries = self._encode(model, self.queries, none, processes)
            labels = self._encode(model, none, np.arange(self.dataset.num_labels), processes)
        return Snapshot(queries, labels, self.relation[self.queries])

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digits over all that training sees."""
        digest = hashlib.sha256()
        for texts in (self.dataset.train.queries, self.dataset.labels):
            digest.update(text_fingerprint(texts).encode())
        digest.update(np.packbits(self.dataset.held_out).tobytes())
        for pairs in (self.relation, self.excluded):
            if pairs is not None:
                digest.update(pairs.indptr.astype("<i8").tobytes())
                digest.update(pairs.indices.astype("<i8").tobytes())
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """The fingerprint, so that no run resumes on other data, and digests of the labels.

        Vectors of labels are found again by their text, or their id, in data of another order.
        """
        return {"fingerprint": self.fingerprint, **self._labels}

    @cached_property
    def _labels(self) -> dict[str, np.ndarray]:
        """(L, 2) int64 digests of the label texts, and of their first ids where there are some."""
        data = self.dataset
        sides = {"labels": map(normalize_text, data.labels)}
        if data.label_ids is not None:
            sides["label_ids"] = map(first_id, data.label_ids)
        # Copies may be written to.
        return {name: Digests(texts).array().view(np.int64).copy() for name, texts in sides.items()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Check that this is the data that :meth:`state_dict` was taken of.

        Raises:
            ValueError: it is not.
        """
        if saved["fingerprint"] != self.fingerprint:
            raise ValueError("it was trained on other queries, labels or pairs")

    def _encode(
        self, model: Model, queries: np.ndarray, labels: np.ndarray, processes: Processes
    ) -> Tensor:
        """(n, d) float32 on the CPU; one of the two is empty."""
        count = len(queries) + len(labels)
        own = processes.share(count, TEXTS_PER_PASS)
        made = torch.empty(own.stop - own.start, model.dim)
        for start in range(own.start, own.stop, TEXTS_PER_PASS):
            part = slice(start, min(start + TEXTS_PER_PASS, own.stop))
            (batch,) = self.select(queries[part], labels[part])
            made[start - own.start : part.stop - own.start] = model.encoder(batch).float().cpu()
        return processes.gather_rows(made, count, TEXTS_PER_PASS)


def _queries_in_use(dataset: Dataset, config: TrainConfig) -> np.ndarray:
    """(N,) int64: the rows of the training split to use."""
    unmatched = dataset.train.unmatched
    if unmatched.all():
        raise DataError(f"data set {dataset.name!r}: no training query has a label, expected some")
    if not config.keep_unmatched:
        return np.flatnonzero(~unmatched)
    if not unmatched.any():
        raise DataError(
            f"data set {dataset.name!r}: found no training query without a label for "
            "keep_unmatched, expected a data set that was written with it"
        )
    return np.arange(len(unmatched))


# The vectors of all labels, so that a batch can be compared with every one of them.
#
# DEXML's loss wants the whole label set in the denominator (Gupta et al., ICLR 2024, arXiv
# 2310.10636), which encodes all labels in every step. Here the batch's own labels are fresh and
# carry gradients; the vectors of all others are from the last batch that held them, or from the
# last refresh, and carry none.


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
