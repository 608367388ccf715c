"""What needs no training: TF-IDF over character n-grams, the row beside every table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alc_kernels.xmc.data.dataset import Dataset


class TfidfBaseline:
    """Cosine similarity of TF-IDF vectors of character 3-4-grams within words.

    Example::

        baseline = TfidfBaseline.from_dataset(dataset)
        scores, indices = baseline.topk(dataset.test.queries, catalogue.texts, k=5)
    """

    def __init__(self, ngram_range: tuple[int, int] = (3, 4), chunk_size: int = 512) -> None:
        raise NotImplementedError

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> TfidfBaseline:
        """Fit on what a model may see: training queries and the names in the open catalogue."""
        raise NotImplementedError

    def fit(self, texts: Sequence[str]) -> TfidfBaseline:
        """Learn the vocabulary and the document frequencies from ``texts``."""
        raise NotImplementedError

    def topk(
        self, queries: Sequence[str], labels: Sequence[str], k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best labels of each query.

        Returns:
            scores (n, k) float32 descending, and indices (n, k) int64 into ``labels``; equal
            scores by smaller index. k is at most ``len(labels)``.
        """
        raise NotImplementedError
