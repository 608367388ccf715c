"""What the examples share: generated product titles, a tiny encoder, coverage of a model."""

from __future__ import annotations

import zlib
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alc_kernels import ALCLoss, Positives
from alc_kernels.functional import topk_similarity
from alc_kernels.metrics import coverage_at_precision
from alc_kernels.trainer.data import Dataset, generate_catalogue

BUCKETS = 1 << 14


def make_dataset(num_labels: int, num_titles: int) -> Dataset:
    """Invented products and the titles that merchants give them; always the same."""
    return generate_catalogue(num_labels, num_titles, seed=0)


def training_pairs(dataset: Dataset) -> list[tuple[str, str, int]]:
    """(title, label text, label number) of every training pair."""
    rows, cols = dataset.train.relation.nonzero()
    titles, labels = dataset.train.queries, dataset.labels
    return [(titles[i], labels[j], int(j)) for i, j in zip(rows, cols, strict=True)]


def tokens(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Hashed character trigrams: numbers (total,) and where each text begins (n,)."""
    rows = []
    for text in texts:
        padded = f" {text.lower()} "
        grams = (padded[i : i + 3] for i in range(len(padded) - 2))
        rows.append([zlib.crc32(gram.encode()) % BUCKETS for gram in grams])
    starts = np.cumsum([0, *(len(row) for row in rows[:-1])])
    return torch.tensor([x for row in rows for x in row]), torch.as_tensor(starts)


def collate(rows: Sequence[tuple[str, str, int]]) -> dict[str, Tensor]:
    """A batch of pairs: tokens of both sides, and the label numbers."""
    queries, labels, numbers = zip(*rows, strict=True)
    found = dict(zip(("query_tokens", "query_starts"), tokens(queries), strict=True))
    found |= dict(zip(("label_tokens", "label_starts"), tokens(labels), strict=True))
    return {**found, "numbers": torch.tensor(numbers)}


class TitleEncoder(nn.Module):
    """Mean of trigram vectors, then a linear layer: texts to (n, dim)."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(BUCKETS, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, numbers: Tensor, starts: Tensor) -> Tensor:
        vectors = self.bag(numbers, starts)  # (n, dim)
        return vectors + self.out(vectors)


class EncoderWithLoss(nn.Module):
    """One model that returns the loss: so that the heads are wrapped, cast and saved with it.

    ``options`` are those of :class:`alc_kernels.ALCLoss`.
    """

    def __init__(self, dim: int = 64, **options: Any) -> None:
        super().__init__()
        self.encoder = TitleEncoder(dim)
        self.loss = ALCLoss(embedding_dim=dim, **options)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        queries = self.encoder(batch["query_tokens"], batch["query_starts"])
        labels = self.encoder(batch["label_tokens"], batch["label_starts"])
        # Two titles of one product match each other's label, also across processes.
        same = Positives.from_ids(batch["numbers"], batch["numbers"])
        loss: Tensor = self.loss(queries, labels, positives=same)
        return loss


def parser_of(text: str | None, batch_size: int = 256, of: str | None = None) -> ArgumentParser:
    """The options that the examples share."""
    parser = ArgumentParser(description=text)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--titles", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=batch_size, help=of)
    return parser


@torch.no_grad()
def validation_coverage(encode: Callable[[Tensor, Tensor], Tensor], dataset: Dataset) -> float:
    """C@.9 on the validation titles, open catalogue: some have no right answer."""
    catalogue = dataset.open_catalogue()
    queries = encode(*tokens(dataset.validation.queries))  # (n, dim)
    labels = encode(*tokens(catalogue.texts))  # (C, dim)
    scores, best = topk_similarity(queries, labels, 1)
    relation = catalogue.relations["validation"]
    right = [relation[i, j] > 0 for i, j in enumerate(best[:, 0].tolist())]
    return coverage_at_precision(scores[:, 0].float().cpu().numpy(), np.array(right), 0.9)
