"""From a batch to its loss: texts, vectors, the relation, the loss module, the method's penalty."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alc_kernels import ALCLoss, Positives
from alc_kernels.xmc.methods import LabelSide
from alc_kernels.xmc.parallel.layout import Layout
from alc_kernels.xmc.parallel.processes import ALONE, Processes, shares
from alc_kernels.xmc.training.batches import Batch
from alc_kernels.xmc.training.label_cache import LabelCache
from alc_kernels.xmc.training.precision import Precision
from alc_kernels.xmc.training.training_set import TrainingSet

# What a step reports beside the whole loss; the penalty is the method's own (PRIME's).
TERMS = ("base", "pair", "batch", "tcm_positive", "tcm_negative", "penalty")


class NonFinite(Exception):
    """The loss or the embeddings became NaN or infinite; the text says which."""


class BatchLoss:
    """The loss of batches, with the model in the mode that it is in.

    Args:
        label_side: the model's.
        layout: runs the model.
        loss: the loss module.
        data: texts and relation.
        precision: the arithmetic of the model; losses are always float32.
        cache: vectors of all labels to compare with; None compares with the batch's labels.
        cache_chunk: texts encoded at a time, 0 for all at once.
        false_negative_margin: negatives that score above the positive less this are left out;
            -2, which no difference of similarities falls below, leaves out none.
        processes: each encodes its share of a batch's queries and labels.
    """

    def __init__(
        self,
        label_side: LabelSide,
        layout: Layout,
        loss: ALCLoss,
        data: TrainingSet,
        precision: Precision,
        cache: LabelCache | None,
        cache_chunk: int,
        false_negative_margin: float,
        processes: Processes = ALONE,
    ) -> None:
        self.label_side, self.layout, self.processes = label_side, layout, processes
        self.loss, self.data = loss, data
        self.precision, self.cache, self.cache_chunk = precision, cache, cache_chunk
        self.exclude_above = false_negative_margin if false_negative_margin > -2 else None

    def __call__(self, batch: Batch) -> tuple[Tensor, np.ndarray]:
        """The loss of a batch, which is the same in all processes, as its value is.

        Returns:
            0-d float32 with the graph of this process's share; (1 + len(TERMS),) float64: its
            value and its terms'.

        Raises:
            NonFinite: it is no number.
        """
        whole, alone = batch, self.processes.size == 1
        if not alone:
            batch = whole.part(*map(self.processes.share, _sizes(whole)))
        queries, text, labels = self._vectors(batch, whole)  # (B, d), (M, d), (M, d)
        positives = self._pairs(batch.crow, batch.col, len(batch.columns))
        exclude = None
        if batch.excluded_crow is not None and batch.excluded_col is not None:
            exclude = self._pairs(batch.excluded_crow, batch.excluded_col, len(batch.columns))
        # What the queries are compared with: the batch's labels, or all C that may be seen.
        keys, relation, left_out = labels, positives, exclude
        if self.cache is not None:
            keys = self.cache.with_live(batch, labels)  # (C, d)
            relation, left_out = self.cache.positives(batch), self.cache.exclude(batch)

        terms = self.loss.terms(queries, keys, relation, left_out, exclude_above=self.exclude_above)
        penalty = self.label_side.penalty(
            queries, text, labels, positives, exclude, self.exclude_above, self.processes
        )
        total = terms.total if penalty is None else terms.total + penalty
        # One transfer per batch: the loss itself says whether anything became non-finite.
        added = torch.zeros_like(terms.base) if penalty is None else penalty.detach()
        parts = [getattr(terms, name) for name in TERMS[:-1]]
        values = torch.stack([total.detach(), *parts, added]).tolist()
        if not np.isfinite(values[0]):
            finite = bool(queries.isfinite().all() & labels.isfinite().all())
            finite = not self.processes.any(not finite)
            raise NonFinite(f"{'the loss' if finite else 'the embeddings'} became {values[0]}")
        if not alone:
            # Every vector takes part, so that no process waits for a gradient of another's.
            total = total + 0.0 * (queries.sum() + text.sum() + labels.sum())
        return total, np.array(values)

    def _vectors(self, batch: Batch, whole: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, d), label texts (M, d) and labels (M, d), float32."""
        numbers = torch.from_numpy(batch.labels).to(self.precision.device)
        # The first process has the largest share.
        parts = [shares(count, self.processes.size)[0] for count in _sizes(whole)]
        most = sum(part.stop for part in parts)
        chunks = self.data.select(batch.queries, batch.labels, self.cache_chunk, most)
        with self.precision.autocast():
            queries, text, labels = self.layout.forward(chunks, len(batch.queries), numbers)
        return queries.float(), text.float(), labels.float()

    def _pairs(self, crow: np.ndarray, col: np.ndarray, num_labels: int) -> Positives:
        made = Positives.from_csr(torch.from_numpy(crow), torch.from_numpy(col), num_labels)
        return made.to(self.precision.device)


def _sizes(batch: Batch) -> tuple[int, int]:
    return len(batch.queries), len(batch.labels)
