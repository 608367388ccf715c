"""From a model, or the TF-IDF yardstick, and a data set to predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from alc_kernels.metrics import (
    coverage_at_precision,
    ideal_gains,
    inverse_propensity,
    topk_with_filter,
)
from alc_kernels.metrics.inputs import as_relation
from alc_kernels.trainer.data.dataset import Dataset
from alc_kernels.trainer.data.text.texts import TextRows
from alc_kernels.trainer.errors import DataError
from alc_kernels.trainer.evaluation.predictions import CATALOGUES, SPLITS, Predictions
from alc_kernels.trainer.evaluation.search import SharedSearch, TextModel
from alc_kernels.trainer.parallel.processes import ALONE, Processes

# What needs no training: TF-IDF over character n-grams, the row beside every table.


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


K = 10
QUERIES_PER_PASS = 1 << 16  # their vectors are held at once
Rankings = dict[str, dict[str, Predictions]]  # catalogue -> split -> predictions


class TextRanker(Protocol):
    """Whatever ranks texts directly: scores (n, k) and places (n, k) among ``labels``."""

    def topk(
        self, queries: Sequence[str], labels: Sequence[str], k: int
    ) -> tuple[np.ndarray, np.ndarray]: ...


def score_model(
    model: TextModel | SharedSearch, dataset: Dataset, labels: Tensor | None = None, k: int = K
) -> Rankings:
    """Every validation and test query against every catalogue of the data set.

    Args:
        model: its vectors are compared by inner product, exactly; as a :class:`SharedSearch` by
            several processes, which all call this with the same arguments and get the same result.
        dataset: texts and relations.
        labels: (L, d) its vectors of all labels, where they are known already.
        k: labels kept per query.

    Raises:
        ValueError: the model returns numbers that are not finite.
        DataError: the data set's propensity cannot be computed.
    """
    judge = Judge(dataset)
    shared = model if isinstance(model, SharedSearch) else SharedSearch(model)
    if labels is None:
        labels = shared.encode_labels(dataset.labels)  # (L, d)
    made: Rankings = {name: {} for name in judge.catalogues}
    for split in SPLITS:
        texts = dataset.splits[split].queries
        parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in made}
        for start in range(0, len(texts), QUERIES_PER_PASS):
            stop = min(start + QUERIES_PER_PASS, len(texts))
            queries = shared.encode_queries(TextRows(texts, np.arange(start, stop)))  # (n, d)
            for name, catalogue in judge.catalogues.items():
                excluded = _if_any(catalogue.excluded[split][start:stop])
                parts[name].append(
                    shared.topk(
                        queries,
                        labels,
                        k,
                        catalogue.label_ids,
                        excluded,
                        device=device_of(shared.model),
                    )
                )
        for name, found in parts.items():
            indices, scores = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
            made[name][split] = judge(name, split, indices, scores)
    return made


def score_ranker(ranker: TextRanker, dataset: Dataset, k: int = K) -> Rankings:
    """The same for something that ranks texts itself, such as TF-IDF."""
    judge = Judge(dataset)
    made: Rankings = {name: {} for name in judge.catalogues}
    for name, catalogue in judge.catalogues.items():
        for split in SPLITS:
            queries, excluded = dataset.splits[split].queries, catalogue.excluded[split]
            wanted = min(k + _most(excluded), len(catalogue))
            scores, places = ranker.topk(queries, catalogue.texts, wanted)
            places, scores = topk_with_filter(places, scores, excluded, min(k, wanted))
            indices = np.where(places < 0, -1, catalogue.label_ids[places])
            made[name][split] = judge(name, split, indices, scores)
    return made


def validation_check(
    dataset: Dataset, *, processes: Processes = ALONE, label_shards: int = 1
) -> Callable[[TextModel], dict[str, float]]:
    """What the training loop asks for between epochs: P@1, C@.9 and C@.95 on validation.

    Against the open catalogue where there is one, else the closed one. ``processes`` and
    ``label_shards`` as for :func:`score_model`.
    """
    judge = Judge(dataset)
    name = next(name for name in CATALOGUES if name in judge.catalogues)
    own = judge.catalogues[name]

    def check(model: TextModel) -> dict[str, float]:
        shared = SharedSearch(model, processes, label_shards)
        found = shared.topk(
            shared.encode_queries(dataset.validation.queries),
            shared.encode_labels(dataset.labels),
            1,
            own.label_ids,
            _if_any(own.excluded["validation"]),
            device=device_of(model),
        )
        judged = judge(name, "validation", *found)
        made = {"p1": float(judged.correct.mean())}
        for key, precision in (("coverage_90", 0.9), ("coverage_95", 0.95)):
            made[key] = float(coverage_at_precision(judged.top_score, judged.correct, precision))
        return made

    return check


class Judge:
    """Which of the labels found are right, and what they are worth.

    Args:
        dataset: relations and propensity.

    Raises:
        DataError: its propensity cannot be computed.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.catalogues = dataset.catalogues()
        try:
            self.inverse = inverse_propensity(dataset.train.relation, *dataset.propensity)  # (L,)
        except ValueError as error:
            raise DataError(f"data set {dataset.name!r}, inverse propensity: {error}") from None

    def __call__(
        self, catalogue: str, split: str, indices: np.ndarray, scores: np.ndarray
    ) -> Predictions:
        """Predictions from ``indices`` (n, k), numbers of the whole label list, -1 for none."""
        relation = self.dataset.splits[split].relation
        own = self.catalogues[catalogue]
        # A found label is a candidate, so the whole relation judges it as the catalogue's would.
        hits = as_relation(relation, "relation").contains(indices)
        return Predictions(
            indices=indices,
            scores=scores.astype(np.float32),
            hits=hits,
            gains=np.where(hits, self.inverse[indices], 0.0),
            ideal=ideal_gains(own.relations[split], self.inverse[own.label_ids], indices.shape[1]),
            num_positives=np.diff(own.relations[split].indptr).astype(np.int64),
            group=self.dataset.splits[split].group_numbers(),
        )


def _most(excluded: csr_matrix) -> int:
    """The largest number of excluded pairs of a query."""
    return int(np.diff(excluded.indptr).max(initial=0))


def device_of(model: object) -> torch.device | None:
    """Where the model runs, so that the search runs there too; None for what is no module."""
    weights = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return None if weights is None else weights.device


def _if_any(excluded: csr_matrix) -> csr_matrix | None:
    """The pairs, or None where there are none and the search need not look for them."""
    return excluded if excluded.nnz else None
