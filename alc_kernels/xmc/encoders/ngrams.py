"""The n-gram encoder: fast on a CPU, nothing to download, the default.

    text -> hashed words, word pairs, character n-grams      (hashing.py)
         -> sum of table rows, each scaled by its bucket's learned weight
         -> unit vector x -> x + MLP(x) -> unit vector

Rows start as random directions, weights as inverse document frequencies and the MLP at zero:
before training the similarity is that of TF-IDF vectors under a random projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alc_kernels.xmc.encoders.base import Encoder
from alc_kernels.xmc.encoders.hashing import HASH_VERSION, hash_chunks
from alc_kernels.xmc.encoders.token_files import Chunk
from alc_kernels.xmc.encoders.tokens import TokenizedTexts

NGRAMS = (3, 4, 5)
CHUNK = 8192


class NgramBatch(NamedTuple):
    """The features of n texts over the distinct buckets that they use.

    Attributes:
        buckets: (U,) int64 distinct table rows, ascending.
        places: (nnz,) int64 into ``buckets``, text by text.
        offsets: (n + 1,) int64: text i owns ``places[offsets[i]:offsets[i + 1]]``.
    """

    buckets: Tensor
    places: Tensor
    offsets: Tensor

    def to(self, device: torch.device) -> NgramBatch:
        return NgramBatch(*(part.to(device) for part in self))


@dataclass(frozen=True)
class NgramCollate:
    """From hashed features to the batch: its distinct buckets, and places among them."""

    num_buckets: int

    def __call__(self, ids: np.ndarray, offsets: np.ndarray) -> NgramBatch:
        # Distinct buckets through a bitmap: the gradient then has each row once, unsorted
        # duplicates would cost more than the rest of the step.
        used = np.zeros(self.num_buckets, np.bool_)
        used[ids] = True
        buckets = np.flatnonzero(used)
        place_of = np.empty(self.num_buckets, np.int64)
        place_of[buckets] = np.arange(len(buckets))
        return NgramBatch(
            torch.from_numpy(buckets), torch.from_numpy(place_of[ids]), torch.from_numpy(offsets)
        )


def document_frequencies(texts: TokenizedTexts, num_buckets: int) -> np.ndarray:
    """(num_buckets,) int64: in how many of the texts each bucket occurs."""
    counts = np.zeros(num_buckets, np.int64)
    for start in range(0, len(texts), CHUNK):  # bounds the temporary arrays to some 50 MiB
        ids, offsets = texts.gather(np.arange(start, min(start + CHUNK, len(texts))))
        owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        distinct = np.unique(owners * num_buckets + ids)
        counts += np.bincount(distinct % num_buckets, minlength=num_buckets)
    return counts


class NgramEncoder(Encoder):
    """Hashed n-grams, an embedding table and a residual MLP.

    Args:
        dim: width of the table and of the vectors.
        buckets: rows of the table.
        hidden_dim: width of the MLP.
        dropout: share of a text's features left out in training.

    Parameters are initialised from PyTorch's global generator: seed it for repeatability.
    """

    def __init__(
        self,
        dim: int = 256,
        buckets: int = 2**17,
        hidden_dim: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.buckets, self.hidden_dim, self.dropout = dim, buckets, hidden_dim, dropout
        self.table = nn.Parameter(torch.randn(buckets, dim) / dim**0.5)
        self.bucket_weight = nn.Parameter(torch.ones(buckets, 1))
        widen, narrow = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, dim)
        nn.init.zeros_(narrow.weight)
        nn.init.zeros_(narrow.bias)
        self.mlp = nn.Sequential(widen, nn.GELU(), narrow)

    def token_settings(self) -> dict[str, Any]:
        return {"kind": "ngrams", "hash": HASH_VERSION, "buckets": self.buckets, "ngrams": NGRAMS}

    def token_chunks(self, texts: Sequence[str]) -> Iterator[Chunk]:
        return hash_chunks(texts, buckets=self.buckets, ngrams=NGRAMS)

    def token_dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    def collate(self) -> NgramCollate:
        return NgramCollate(self.buckets)

    def adapt(self, *texts: TokenizedTexts) -> None:
        """Set every bucket's weight to its inverse document frequency in ``texts``, mean 1."""
        count = 0
        frequency = np.zeros(self.buckets, np.int64)
        for part in texts:
            count += len(part)
            frequency += document_frequencies(part, self.buckets)
        inverse = np.log((1 + count) / (1 + frequency)) + 1
        with torch.no_grad():
            self.bucket_weight[:, 0] = torch.from_numpy(inverse / inverse.mean())

    def table_parameters(self) -> list[nn.Parameter]:
        return [self.table, self.bucket_weight]

    def forward(self, batch: NgramBatch) -> Tensor:
        buckets, places, offsets = batch.to(self.table.device)
        weight = F.embedding(buckets, self.bucket_weight, sparse=True)  # (U, 1)
        rows = F.embedding(buckets, self.table, sparse=True) * weight  # (U, d)
        keep = None
        if self.training and self.dropout > 0:
            keep = (torch.rand(len(places), device=rows.device) >= self.dropout).to(rows.dtype)
        x = F.embedding_bag(
            places, rows, offsets, mode="sum", include_last_offset=True, per_sample_weights=keep
        )  # (n, d)
        x = F.normalize(x, dim=1)
        # The MLP sees entries of size 1; a text without features stays the zero vector.
        present = (offsets[1:] > offsets[:-1]).to(x.dtype)[:, None]
        scaled = x * self.dim**0.5
        return F.normalize((scaled + self.mlp(scaled)) * present, dim=1)

    def config(self) -> dict[str, Any]:
        return {
            "dim": self.dim,
            "buckets": self.buckets,
            "hidden_dim": self.hidden_dim,
            "dropout": self.dropout,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], folder: Path) -> NgramEncoder:
        return cls(**config)
