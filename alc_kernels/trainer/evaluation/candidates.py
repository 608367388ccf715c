"""The candidates of a title that a decision chooses among, and what is known about each.

One class for training, evaluation and matching, so that a threshold that was certified on
validation meets the same candidates and the same numbers in use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from alc_kernels.acceptance import Features, TextFeatures, merge_candidates
from alc_kernels.metrics import topk_with_filter
from alc_kernels.trainer.negatives.index import ExactIndex, pair_scores

OWN, TFIDF = 5, 5  # candidates of the embedding and of TF-IDF


class Candidates(NamedTuple):
    """The candidates of n titles, in no order that means anything.

    Attributes:
        labels: (n, m) int64 places in the catalogue, -1 behind the last one of a title.
        scores: (n, m) float32 of the embedding (of TF-IDF where there is none), -inf where there
            is no label. The best by score is the embedding's best match.
        features: of every candidate, ``score`` among them; what an
            :class:`~alc_kernels.acceptance.AcceptanceModel` takes.
    """

    labels: np.ndarray
    scores: np.ndarray
    features: Features


class CandidateSearch:
    """The union of the embedding's and TF-IDF's best labels, with features.

    Searching changes nothing in it, so threads may share it as far as ``encode`` allows.

    Args:
        texts: text features of the C labels of the catalogue.
        encode: n titles to vectors (n, d) float32, such as ``model.encode_queries``; None for
            TF-IDF alone, whose :data:`OWN` + :data:`TFIDF` best are then the candidates.
        vectors: (C, d) float32 of the same labels, compared by inner product; with ``encode``.
        device: where the vectors are searched; None for where they are.

    Raises:
        ValueError: one of ``encode`` and ``vectors`` alone, or a vector too many or too few.
    """

    def __init__(
        self,
        texts: TextFeatures,
        encode: Callable[[Sequence[str]], Tensor] | None = None,
        vectors: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if (encode is None) != (vectors is None):
            raise ValueError("encode and vectors: expected both, or neither for TF-IDF alone")
        if vectors is not None and len(vectors) != len(texts.first):
            raise ValueError(f"vectors: found {len(vectors)}, expected {len(texts.first)} (labels)")
        self.texts, self.encode, self.vectors = texts, encode, vectors
        self.index = None
        if vectors is not None:
            place = vectors.device if device is None else device
            self.index = ExactIndex(vectors, place, normalize=False)

    def __call__(self, titles: Sequence[str], excluded: csr_matrix | None = None) -> Candidates:
        """The candidates of n titles; memory grows with n, so give many of them in parts.

        Args:
            titles: normalised as training texts are.
            excluded: (n, C) pairs that are never found, such as those of a filter file.

        Raises:
            ValueError: vectors or shapes that do not fit.
        """
        if self.index is None:
            labels, scores = self._tfidf(titles, OWN + TFIDF, excluded)
        else:
            labels, scores = self._both(titles, excluded)
        features = self.texts(titles, labels, {"score": scores})
        return Candidates(labels, np.where(labels < 0, -np.inf, scores), features)

    def _both(
        self, titles: Sequence[str], excluded: csr_matrix | None
    ) -> tuple[np.ndarray, np.ndarray]:
        assert self.encode is not None and self.vectors is not None and self.index is not None
        queries = self.encode(titles)
        count = len(self.vectors)
        _, found = self.index.search(queries, min(OWN, count), excluded=excluded)
        labels = merge_candidates([found, self._tfidf(titles, TFIDF, excluded)[0]])
        row, place = np.nonzero(labels >= 0)
        scores = np.full(labels.shape, np.nan, np.float32)
        scores[row, place] = pair_scores(queries, self.vectors, row, labels[row, place])
        return labels, scores

    def _tfidf(
        self, titles: Sequence[str], k: int, excluded: csr_matrix | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels (n, k) by falling cosine, -1 where the catalogue ran out, and the cosines."""
        if excluded is None or not excluded.nnz:
            return self.texts.search(titles, k)
        count = excluded.shape[1]
        wanted = min(k + int(np.diff(excluded.indptr).max(initial=0)), count)
        labels, scores = self.texts.search(titles, wanted)
        return topk_with_filter(labels, scores, excluded, min(k, wanted))
