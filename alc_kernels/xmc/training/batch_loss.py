"""From a batch to its loss: texts, vectors, the relation, the loss module, the method's penalty."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alc_kernels import ALCLoss, Positives
from alc_kernels.xmc.model import Model
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
        model: queries and labels to vectors.
        loss: the loss module.
        data: texts and relation.
        precision: the arithmetic of the model; losses are always float32.
        cache: vectors of all labels to compare with; None compares with the batch's labels.
        cache_chunk: texts encoded at a time, 0 for all at once.
        false_negative_margin: negatives that score above the positive less this are left out;
            -2, which no difference of similarities falls below, leaves out none.
    """

    def __init__(
        self,
        model: Model,
        loss: ALCLoss,
        data: TrainingSet,
        precision: Precision,
        cache: LabelCache | None,
        cache_chunk: int,
        false_negative_margin: float,
    ) -> None:
        self.model, self.loss, self.data = model, loss, data
        self.precision, self.cache, self.cache_chunk = precision, cache, cache_chunk
        self.exclude_above = false_negative_margin if false_negative_margin > -2 else None

    def __call__(self, batch: Batch) -> tuple[Tensor, np.ndarray]:
        """The loss of a batch.

        Returns:
            0-d float32 with its graph; (1 + len(TERMS),) float64: its value and its terms'.

        Raises:
            NonFinite: it is no number.
        """
        queries, text, labels = self._vectors(batch)  # (B, d), (M, d), (M, d)
        positives = self._pairs(batch.crow, batch.col, len(batch.labels))
        exclude = None
        if batch.excluded_crow is not None and batch.excluded_col is not None:
            exclude = self._pairs(batch.excluded_crow, batch.excluded_col, len(batch.labels))
        # What the queries are compared with: the batch's labels, or all C that may be seen.
        keys, relation, left_out = labels, positives, exclude
        if self.cache is not None:
            keys = self.cache.with_live(batch, labels)  # (C, d)
            relation, left_out = self.cache.positives(batch), self.cache.exclude(batch)

        terms = self.loss.terms(queries, keys, relation, left_out, exclude_above=self.exclude_above)
        penalty = self.model.label_side.penalty(
            queries, text, labels, positives, exclude, self.exclude_above
        )
        total = terms.total if penalty is None else terms.total + penalty
        # One transfer per batch: the loss itself says whether anything became non-finite.
        added = torch.zeros_like(terms.base) if penalty is None else penalty.detach()
        parts = [getattr(terms, name) for name in TERMS[:-1]]
        values = torch.stack([total.detach(), *parts, added]).tolist()
        if not np.isfinite(values[0]):
            finite = bool(queries.isfinite().all() & labels.isfinite().all())
            raise NonFinite(f"{'the loss' if finite else 'the embeddings'} became {values[0]}")
        return total, np.array(values)

    def _vectors(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, d), label texts (M, d) and labels (M, d), float32."""
        numbers = torch.from_numpy(batch.labels).to(self.precision.device)
        chunks = self.data.select(batch.queries, batch.labels, self.cache_chunk)
        with self.precision.autocast():
            queries, text, labels = self.model(chunks, len(batch.queries), numbers)
        return queries.float(), text.float(), labels.float()

    def _pairs(self, crow: np.ndarray, col: np.ndarray, num_labels: int) -> Positives:
        made = Positives.from_csr(torch.from_numpy(crow), torch.from_numpy(col), num_labels)
        return made.to(self.precision.device)
