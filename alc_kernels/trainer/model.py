"""The trained model: a text encoder, and what a method adds on the label side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alc_kernels.cached import cached_chunks
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.encoders import build_encoder
from alc_kernels.trainer.encoders.base import Encoder
from alc_kernels.trainer.methods import METHODS, LabelSide

LABELS_PER_PASS = 4096


class Model(nn.Module):
    """Queries and labels to vectors of one space, compared by inner product.

    Args:
        encoder: texts of both sides.
        num_labels: L, labels of the data set that it is trained on.
        label_side: from a label's text vector to its vector.
    """

    def __init__(
        self, encoder: Encoder, num_labels: int, label_side: LabelSide | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_labels = num_labels
        self.label_side = label_side or LabelSide()

    @property
    def dim(self) -> int:
        """Width d of the vectors."""
        return self.encoder.dim

    def forward(
        self, chunks: Sequence[Any], num_queries: int, label_ids: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One pass over a batch of query texts followed by label texts.

        Args:
            chunks: texts in one piece, or in several that are encoded one at a time and again in
                the backward pass; each as the encoder takes it.
            num_queries: B, how many of them are queries.
            label_ids: (M,) int64, the numbers of the labels that follow.

        Returns:
            Query vectors (B, d), text vectors of the labels (M, d), label vectors (M, d).
        """
        vectors = cached_chunks(self.encoder, chunks)
        # Behind them there may be vectors of texts that only fill up chunks.
        queries = vectors[:num_queries]
        text = vectors[num_queries : num_queries + len(label_ids)]
        return queries, text, self.label_side(text, label_ids)

    def encode_queries(self, texts: Sequence[str]) -> Tensor:
        """Vectors (n, d) float32 on the CPU, without a graph."""
        return self.encoder.encode_texts(texts)

    @torch.no_grad()
    def encode_labels(self, texts: Sequence[str], label_ids: np.ndarray | None = None) -> Tensor:
        """Vectors (L, d) float32 on the CPU, without a graph.

        Args:
            texts: label texts.
            label_ids: (L,) int64, their numbers, -1 for labels that the data set does not have;
                None where ``texts`` are all labels in order.

        Raises:
            ValueError: ``texts`` are not all labels and have no numbers.
        """
        if label_ids is None and len(texts) != self.num_labels:
            raise ValueError(
                f"texts: found {len(texts)}, expected all {self.num_labels} labels, or label_ids"
            )
        ids = np.arange(len(texts)) if label_ids is None else label_ids
        return self.label_vectors(self.encoder.encode_texts(texts), ids)

    @torch.no_grad()
    def label_vectors(self, text: Tensor, ids: np.ndarray) -> Tensor:
        """Vectors (m, d) on the CPU of the labels ``ids`` (m,) from their texts' (m, d)."""
        device = next(self.parameters()).device
        made = torch.empty_like(text)
        was_training = self.training
        self.eval()
        try:
            for start in range(0, len(text), LABELS_PER_PASS):
                part = slice(start, start + LABELS_PER_PASS)
                number = torch.from_numpy(ids[part]).to(device)
                made[part] = self.label_side(text[part].to(device), number).float().cpu()
        finally:
            self.train(was_training)
        return made

    def table_parameters(self) -> list[nn.Parameter]:
        """Parameters with sparse gradients."""
        return [*self.encoder.table_parameters(), *self.label_side.table_parameters()]


def build_model(config: TrainConfig, num_labels: int, encoder: Encoder | None = None) -> Model:
    """The model that ``config`` describes, with fresh weights where ``encoder`` is None.

    Raises:
        EncoderError: no such encoder, or a package that it needs is missing.
    """
    if encoder is None:
        encoder = build_encoder(config.encoder, config)
    label_side = METHODS[config.method].label_side(config, encoder.dim, num_labels)
    return Model(encoder, num_labels, label_side)
