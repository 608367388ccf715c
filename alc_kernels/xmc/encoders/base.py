"""What every encoder offers to the trainer, the evaluation and the checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class TokenizedTexts(ABC):
    """Texts made ready once; batches are then only slices of it."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def select(self, rows: np.ndarray) -> Any:
        """The batch of the given rows (int64 (n,)), as :meth:`Encoder.forward` takes it."""


class Encoder(nn.Module, ABC):
    """Text in, unit vectors out.

    Attributes:
        dim: width d of the vectors.
    """

    dim: int

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        """Prepare texts for batching. Pure: no state of the encoder changes."""

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Vectors (n, d) of unit length for a batch from :meth:`TokenizedTexts.select`.

        A text without any feature gives a zero vector, which the losses treat as similarity 0.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What :meth:`from_config` needs to build the same module, as JSON values."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: dict[str, Any], folder: Path) -> Encoder:
        """Rebuild an encoder, weights apart; ``folder`` holds what :meth:`save_assets` wrote."""

    def save_assets(self, folder: Path) -> None:
        """Write what neither the configuration nor the weights hold (a tokenizer's files)."""

    def adapt(self, *texts: TokenizedTexts) -> None:
        """Look once at the texts that training may see, before training; may set weights."""

    def table_parameters(self) -> list[nn.Parameter]:
        """Parameters with sparse gradients, which go to the table optimizer."""
        return []

    @torch.no_grad()
    def encode_texts(
        self,
        texts: Sequence[str],
        batch_size: int = 1024,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Unit vectors (len(texts), d) float32 on the CPU, in evaluation mode, without a graph.

        Args:
            texts: any number, zero included.
            batch_size: texts per forward pass.
            progress: called with the number of texts done after each batch.
        """
        tokenized = self.tokenize(texts)
        made = torch.empty(len(texts), self.dim)
        was_training = self.training
        self.eval()
        try:
            for start in range(0, len(texts), batch_size):
                end = min(start + batch_size, len(texts))
                made[start:end] = self(tokenized.select(np.arange(start, end))).float().cpu()
                if progress is not None:
                    progress(end)
        finally:
            self.train(was_training)
        return made
