"""From a batch to its loss: texts, vectors, the relation, the loss module, the method's penalty."""

from __future__ import annotations

from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from alc_kernels import ALCLoss, Auxiliary, Positives, ThresholdMargin
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.errors import ConfigError
from alc_kernels.trainer.methods import METHODS, LabelSide
from alc_kernels.trainer.parallel.join import check_gpus, uses_gpu
from alc_kernels.trainer.parallel.layout import Layout
from alc_kernels.trainer.parallel.processes import ALONE, Processes, shares
from alc_kernels.trainer.training.sampler import Batch
from alc_kernels.trainer.training.training_set import LabelCache, TrainingSet

# From ``--loss`` to the loss module.


# loss -> (ALC's pair part, ALC's batch part, threshold margin)
PARTS = {
    "base": (False, False, False),
    "alc": (True, True, False),
    "alc-pair": (True, False, False),
    "alc-batch": (False, True, False),
    "tcm": (False, False, True),
    "alc+tcm": (True, True, True),
}


def build_loss(config: TrainConfig, dim: int, process_group: object | None = None) -> ALCLoss:
    """The loss module that ``config`` asks for, for vectors of width ``dim``."""
    pair, batch, tcm = PARTS[config.loss]
    auxiliary = Auxiliary(
        pair_weight=config.pair_weight if pair else 0.0,
        batch_weight=config.batch_weight if batch else 0.0,
        context_dim=config.context_dim or None,
        context_rows=config.context_rows or None,
        context_size=config.context_size,
        dropout=config.context_dropout,
        attention_dropout=None if config.attention_dropout < 0 else config.attention_dropout,
    )
    # Averaged over rows and on each row's hardest negative: the published form, averaged over
    # the few active pairs, lets those outweigh everything else and ruins coverage.
    threshold = ThresholdMargin(
        positive_margin=config.positive_margin,
        negative_margin=config.negative_margin,
        positive_weight=config.tcm_weight,
        negative_weight=config.tcm_weight,
        negative_scope=cast(Literal["hardest", "all"], config.tcm_scope),
        reduction=cast(Literal["rows", "active"], config.tcm_reduction),
    )
    return ALCLoss(
        embedding_dim=dim,
        base=METHODS[config.method].base_loss(config),
        auxiliary=auxiliary if pair or batch else None,
        threshold=threshold if tcm else None,
        backend=config.backend,
        process_group=process_group,
    )


# Where and in what arithmetic: the encoder may run in half, everything else in float32.


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """The arithmetic of the encoder.

    bfloat16 has float32's range and needs nothing else. float16 loses small gradients to zero:
    the loss is multiplied by a scale before the backward pass, which halves when gradients
    overflow (the step is then skipped) and doubles after 2000 good steps
    (Micikevicius et al., arXiv 1710.03740).

    Args:
        name: ``"fp32"``, ``"bf16"`` or ``"fp16"``; all of them work on the CPU as well.
        device: where the model is.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.dtype, self.device = DTYPES[name], device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> torch.autocast:
        """The context in which the model runs; parameters stay float32."""
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )


def find_device(name: str, processes: Processes = ALONE) -> torch.device:
    """The device that a setting names; ``"auto"`` takes a GPU where there is one.

    Of several processes each takes the GPU of its number on its machine.

    Raises:
        ConfigError: it cannot be used here.
    """
    if processes.size > 1 and name.startswith("cuda:"):
        raise ConfigError(
            f"device = {name!r}: {processes.size} processes cannot share a GPU, expected 'cuda'"
        )
    if processes.size > 1 and uses_gpu(name):
        check_gpus(processes.local_rank)
        return torch.device("cuda", processes.local_rank)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or ["unknown device"])[0]
        raise ConfigError(f"device = {name!r}: cannot be used here ({reason})") from None
    return device


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
        config: ``cache_chunk`` and ``false_negative_margin``, whose -2, which no difference of
            similarities falls below, leaves out none.
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
        config: TrainConfig,
        processes: Processes = ALONE,
    ) -> None:
        self.label_side, self.layout, self.processes = label_side, layout, processes
        self.loss, self.data = loss, data
        self.precision, self.cache, self.cache_chunk = precision, cache, config.cache_chunk
        margin = config.false_negative_margin
        self.exclude_above = margin if margin > -2 else None

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
