"""What every encoder offers to the trainer, the evaluation and the checkpoints."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alc_kernels.trainer.data.text.texts import TextRows, fingerprint
from alc_kernels.trainer.encoders.tokens import (
    Chunk,
    Collate,
    RaggedTokens,
    TokenizedTexts,
    TokenRows,
    open_tokens,
    ragged,
    write_tokens,
)

REMEMBERED = 6  # tokenised texts that an encoder keeps at hand


class Encoder(nn.Module, ABC):
    """Text in, unit vectors out.

    Attributes:
        dim: width d of the vectors.
    """

    dim: int

    def __init__(self) -> None:
        super().__init__()
        self._tokenized: OrderedDict[str, TokenizedTexts] = OrderedDict()

    def tokenize(self, texts: Sequence[str], cache: Path | None = None) -> TokenizedTexts:
        """Prepare texts for batching. The same texts are tokenised once, as long as they are kept.

        Args:
            texts: any number, zero included. Rows of other texts (:class:`TextRows`) become rows
                of the others' tokens.
            cache: folder for memory-mapped files, which a later process finds again; None takes
                the texts' own (``token_cache``; a data set read from a folder has one), and where
                there is none either, the ids stay in memory.

        Raises:
            DataError: ``cache`` cannot be written.
        """
        if isinstance(texts, TextRows):
            return TokenRows(self.tokenize(texts.texts, cache), texts.rows)
        cache = cache or getattr(texts, "token_cache", None)
        settings = json.dumps(self.token_settings(), sort_keys=True)
        digest = hashlib.sha256(f"{settings}\n{fingerprint(texts)}".encode()).hexdigest()
        key = f"{cache}/{digest[:32]}"
        if key not in self._tokenized:
            self._tokenized[key] = self._tokenize(
                texts, None if cache is None else cache / digest[:32]
            )
            if len(self._tokenized) > REMEMBERED:
                self._tokenized.popitem(last=False)
        self._tokenized.move_to_end(key)
        return self._tokenized[key]

    def _tokenize(self, texts: Sequence[str], folder: Path | None) -> RaggedTokens:
        if folder is None:
            return RaggedTokens(*ragged(list(self.token_chunks(texts))), self.collate())
        found = open_tokens(folder, len(texts))
        if found is None:
            write_tokens(folder, self.token_chunks(texts), self.token_dtype())
            found = open_tokens(folder, len(texts))
        assert found is not None, f"{folder}: just written, and not readable"
        ids, offsets = found
        return RaggedTokens(ids.array, offsets, self.collate(), ids)

    @abstractmethod
    def token_settings(self) -> dict[str, Any]:
        """What the ids of a text depend on, as JSON values."""

    @abstractmethod
    def token_chunks(self, texts: Sequence[str]) -> Iterator[Chunk]:
        """(ids, number of ids of each text), a bounded number of texts at a time."""

    @abstractmethod
    def token_dtype(self) -> np.dtype:
        """The smallest integer type that holds every id."""

    @abstractmethod
    def collate(self) -> Collate:
        """From ids and offsets of some texts to the batch that :meth:`forward` takes."""

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
        cache: Path | None = None,
    ) -> Tensor:
        """Unit vectors (len(texts), d) float32 on the CPU, in evaluation mode, without a graph.

        Args:
            texts: any number, zero included.
            batch_size: texts per forward pass.
            progress: called with the number of texts done after each batch.
            cache: as in :meth:`tokenize`.
        """
        tokenized = self.tokenize(texts, cache)
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
