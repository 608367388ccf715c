"""What needs no training: TF-IDF over character n-grams, the row beside every table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alc_kernels.trainer.data.dataset import Dataset


class TfidfBaseline:
    """Cosine similarity of TF-IDF vectors of character 3-4-grams within words.

    Example::

        baseline = TfidfBaseline.from_dataset(dataset)
        scores, indices = baseline.topk(dataset.test.queries, catalogue.texts, k=5)

    Args:
        ngram_range: shortest and longest n-gram.
        chunk_size: queries scored at once; memory is this times the number of labels.
    """

    def __init__(self, ngram_range: tuple[int, int] = (3, 4), chunk_size: int = 256) -> None:
        # Imported here: scikit-learn is an optional package.
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.chunk_size = chunk_size
        self.vectorizer: Any = TfidfVectorizer(
            analyzer="char_wb", ngram_range=ngram_range, dtype=np.float32
        )

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> TfidfBaseline:
        """Fit on what a model may see: training queries and the names in the open catalogue."""
        return cls().fit([*dataset.train.queries, *dataset.open_catalogue().texts])

    def fit(self, texts: Sequence[str]) -> TfidfBaseline:
        """Learn the vocabulary and the document frequencies from ``texts``."""
        self.vectorizer.fit(texts)
        return self

    def topk(
        self, queries: Sequence[str], labels: Sequence[str], k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best labels of each query.

        Returns:
            scores (n, k) float32 descending, and indices (n, k) int64 into ``labels``; equal
            scores by smaller index.

        Raises:
            ValueError: k is not in 1 .. ``len(labels)``.
        """
        if not 1 <= k <= len(labels):
            raise ValueError(f"k = {k}: expected 1 to {len(labels)} (the number of labels)")
        columns = self.vectorizer.transform(labels).T.tocsr()  # (features, M)
        rows = self.vectorizer.transform(queries)  # (n, features)
        scores = np.empty((len(queries), k), np.float32)
        indices = np.empty((len(queries), k), np.int64)
        for start in range(0, len(queries), self.chunk_size):
            part = slice(start, start + self.chunk_size)
            scores[part], indices[part] = _topk((rows[part] @ columns).toarray(), k)
        return scores, indices


def _topk(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest of each row (n, M), descending, equal values by smaller index."""
    if k == 1:
        best = scores.argmax(1)[:, None]
        return np.take_along_axis(scores, best, 1), best
    # Everything at least as large as the k-th value competes, so ties at the edge are exact.
    threshold = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k, None]
    row, col = np.nonzero(scores >= threshold)
    order = np.lexsort((col, -scores[row, col], row))
    starts = np.searchsorted(row, np.arange(len(scores)))
    picked = order[starts[:, None] + np.arange(k)]
    return scores[row[picked], col[picked]], col[picked]
