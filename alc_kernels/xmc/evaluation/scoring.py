"""From a model, or the TF-IDF yardstick, and a data set to predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from scipy.sparse import csr_matrix
from torch import Tensor

from alc_kernels.xmc.data import Dataset
from alc_kernels.xmc.data.dataset import Catalogue
from alc_kernels.xmc.evaluation.predictions import SPLITS, Predictions
from alc_kernels.xmc.evaluation.search import topk_labels

K = 10
Done = Callable[[str], None]


class TextModel(Protocol):
    """Whatever turns query texts (n) and all label texts (L) into vectors (n, d) and (L, d)."""

    def encode_queries(self, texts: Sequence[str]) -> Tensor: ...

    def encode_labels(self, texts: Sequence[str]) -> Tensor: ...


class TextRanker(Protocol):
    """Whatever ranks texts directly: scores (n, k) and places (n, k) among ``labels``."""

    def topk(
        self, queries: Sequence[str], labels: Sequence[str], k: int
    ) -> tuple[np.ndarray, np.ndarray]: ...


def _catalogues(dataset: Dataset) -> dict[str, Catalogue]:
    return {"open": dataset.open_catalogue(), "closed": dataset.closed_catalogue()}


def first_labels(relation: csr_matrix) -> np.ndarray:
    """(n,) int64: the first label of every row, -1 where the row is empty."""
    counts = np.diff(relation.indptr)
    first = np.full(len(counts), -1, np.int64)
    first[counts > 0] = relation.indices[relation.indptr[:-1][counts > 0]]
    return first


def is_member(relation: csr_matrix, columns: np.ndarray) -> np.ndarray:
    """(n, k) bool: whether ``columns[i, r]`` (n, k) is in row i of ``relation``; -1 never is."""
    width = relation.shape[1]
    rows = np.repeat(np.arange(relation.shape[0], dtype=np.int64), np.diff(relation.indptr))
    present = rows * width + relation.indices
    asked = np.arange(len(columns), dtype=np.int64)[:, None] * width + columns
    return np.isin(asked, present) & (columns >= 0)


def _predictions(
    dataset: Dataset, catalogue: Catalogue, split: str, indices: np.ndarray, scores: np.ndarray
) -> Predictions:
    """Judge ``indices`` (n, k), numbers of the whole label list."""
    relation = dataset.splits[split].relation
    return Predictions(
        indices=indices,
        scores=scores.astype(np.float32),
        # A found label is a candidate, so the whole relation judges it as the catalogue's would.
        hits=is_member(relation, indices),
        num_positives=np.diff(catalogue.relations[split].indptr).astype(np.int64),
        group=first_labels(relation),
    )


def score_model(
    model: TextModel, dataset: Dataset, k: int = K, done: Done | None = None
) -> dict[str, dict[str, Predictions]]:
    """Every validation and test query against the open and the closed catalogue.

    Args:
        model: its vectors are compared by inner product, exactly.
        dataset: texts and relations.
        k: labels kept per query.
        done: called with the name of every part that is finished.

    Raises:
        ValueError: the model returns numbers that are not finite.
    """
    labels = model.encode_labels(dataset.labels)  # (L, d)
    made: dict[str, dict[str, Predictions]] = {"open": {}, "closed": {}}
    for split in SPLITS:
        queries = model.encode_queries(dataset.splits[split].queries)  # (n, d)
        for name, catalogue in _catalogues(dataset).items():
            indices, scores = topk_labels(queries, labels, k, catalogue.label_ids)
            made[name][split] = _predictions(dataset, catalogue, split, indices, scores)
            if done is not None:
                done(f"{name} {split}")
    return made


def score_ranker(
    ranker: TextRanker, dataset: Dataset, k: int = K, done: Done | None = None
) -> dict[str, dict[str, Predictions]]:
    """The same for something that ranks texts itself, such as TF-IDF."""
    made: dict[str, dict[str, Predictions]] = {"open": {}, "closed": {}}
    for name, catalogue in _catalogues(dataset).items():
        for split in SPLITS:
            queries = dataset.splits[split].queries
            scores, places = ranker.topk(queries, catalogue.texts, min(k, len(catalogue)))
            indices = catalogue.label_ids[places]
            made[name][split] = _predictions(dataset, catalogue, split, indices, scores)
            if done is not None:
                done(f"{name} {split}")
    return made


def validation_check(dataset: Dataset) -> Callable[[TextModel], dict[str, float]]:
    """What the training loop asks for between epochs: open-catalogue P@1 and C@.9, validation."""
    from alc_kernels.metrics import coverage_at_precision

    catalogue = dataset.open_catalogue()

    def check(model: TextModel) -> dict[str, float]:
        labels = model.encode_labels(dataset.labels)
        queries = model.encode_queries(dataset.validation.queries)
        indices, scores = topk_labels(queries, labels, 1, catalogue.label_ids)
        found = _predictions(dataset, catalogue, "validation", indices, scores)
        coverage = coverage_at_precision(found.top_score, found.correct, 0.9)
        return {"p1": float(found.correct.mean()), "coverage_90": float(coverage)}

    return check
