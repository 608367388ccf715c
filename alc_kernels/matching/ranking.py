"""From titles to ranked labels: by the acceptance model where there is one, else by cosine."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alc_kernels.acceptance import (
    AcceptanceModel,
    TextFeatures,
    TextState,
    best_first,
    exact_first,
    exact_matches,
)
from alc_kernels.matching.catalogue import Catalogue
from alc_kernels.trainer.evaluation.candidates import CandidateSearch
from alc_kernels.trainer.model import Model
from alc_kernels.trainer.negatives.index import ExactIndex, pair_scores


class Ranked(NamedTuple):
    """Labels of n titles, best first; -1 for none.

    Attributes:
        labels: (n, m) int64.
        cosines: (n, m) float32, -inf where there is no label.
        probabilities: (n, m) float64, NaN without a model or beyond its candidates.
    """

    labels: np.ndarray
    cosines: np.ndarray
    probabilities: np.ndarray


class Titles:
    """Turns titles into vectors, one thread at a time: encoders keep tokens between calls.

    Args:
        model: trained, in evaluation mode.
    """

    def __init__(self, model: Model) -> None:
        self.model, self._lock = model, threading.Lock()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters(), torch.empty(0)).device

    def __call__(self, texts: Sequence[str]) -> Tensor:
        with self._lock:
            return self.model.encode_queries(texts)

    def labels(self, catalogue: Catalogue) -> Tensor:
        """(C, d) vectors of a catalogue's labels."""
        with self._lock:
            return self.model.encode_labels(catalogue.texts, catalogue.numbers)


class Ranker:
    """Ranks the labels of one catalogue; searching changes nothing in it.

    Args:
        titles: encodes.
        catalogue: C labels.
        vectors: (C, d) of them.
        acceptance: the model that ranks; None for the cosine.
        state: what its text features were taught.
    """

    def __init__(
        self,
        titles: Titles,
        catalogue: Catalogue,
        vectors: Tensor,
        acceptance: AcceptanceModel | None = None,
        state: TextState | None = None,
    ) -> None:
        self.titles, self.catalogue, self.vectors = titles, catalogue, vectors
        self.acceptance = acceptance
        self.search: CandidateSearch | None = None
        if acceptance is None:
            self.index = ExactIndex(vectors, titles.device, normalize=False)
        else:
            texts = TextFeatures(list(catalogue.texts), state)
            self.search = CandidateSearch(texts, titles, vectors, titles.device)
            assert self.search.index is not None
            self.index = self.search.index

    def __call__(
        self, texts: Sequence[str], k: int, codes: Mapping[str, Sequence[str]] | None = None
    ) -> Ranked:
        """At least the k best labels of n titles, fewer where the catalogue has fewer.

        Args:
            texts: normalised.
            k: labels wanted.
            codes: kind -> (n,) product codes of the titles, "" for none.
        """
        wanted = min(k, len(self.catalogue))
        ranked = self._by_cosine(texts, wanted) if self.search is None else self._by_model(
            texts, wanted
        )  # fmt: skip
        if codes and self.catalogue.codes:
            exact = exact_matches(codes, self.catalogue.codes)
            if (exact >= 0).any():
                ranked = self._exact(texts, ranked, exact)
        return ranked

    def _by_cosine(self, texts: Sequence[str], k: int) -> Ranked:
        cosines, labels = self.index.search(self.titles(texts), k)
        return Ranked(labels, cosines, np.full(labels.shape, np.nan))

    def _by_model(self, texts: Sequence[str], k: int) -> Ranked:
        assert self.search is not None and self.acceptance is not None
        found = self.search(texts)
        probabilities = self.acceptance.probabilities(found.features)
        order = best_first(probabilities, found.labels)
        labels, cosines, sure = (
            np.take_along_axis(one, order, axis=1)
            for one in (found.labels, found.scores, probabilities)
        )
        sure = np.where(labels < 0, np.nan, sure)
        if k > labels.shape[1] or (labels[:, :k] < 0).any():
            return self._further(texts, Ranked(labels, cosines, sure), k)
        return Ranked(labels, cosines, sure)

    def _further(self, texts: Sequence[str], ranked: Ranked, k: int) -> Ranked:
        """The candidates, then the labels nearest by cosine that are none of them."""
        cosines, labels = self.index.search(self.titles(texts), min(
            k + ranked.labels.shape[1], len(self.catalogue)
        ))  # fmt: skip
        again = (labels[:, :, None] == ranked.labels[:, None]).any(axis=2)
        labels = np.concatenate([ranked.labels, np.where(again, -1, labels)], axis=1)
        cosines = np.concatenate([ranked.cosines, cosines], axis=1)
        sure = np.pad(
            ranked.probabilities, ((0, 0), (0, labels.shape[1] - ranked.labels.shape[1])),
            constant_values=np.nan,
        )  # fmt: skip
        order = np.argsort(labels < 0, axis=1, kind="stable")[:, :k]
        return Ranked(*(np.take_along_axis(one, order, axis=1) for one in (labels, cosines, sure)))

    def _exact(self, texts: Sequence[str], ranked: Ranked, exact: np.ndarray) -> Ranked:
        """Labels found by their product code first, with probability 1."""
        labels, sure = exact_first(ranked.labels, ranked.probabilities, exact)
        sure[exact < 0, 0] = np.nan
        rows = np.flatnonzero(exact >= 0)
        front = np.full((len(labels), 1), -np.inf, np.float32)
        vectors = self.titles([texts[row] for row in rows.tolist()])
        front[rows, 0] = pair_scores(vectors, self.vectors, np.arange(len(rows)), exact[rows])
        cosines = np.concatenate([front, ranked.cosines], axis=1)
        order = np.argsort(labels < 0, axis=1, kind="stable")
        return Ranked(*(np.take_along_axis(one, order, axis=1) for one in (labels, cosines, sure)))

    def explain_best(self, texts: Sequence[str]) -> list[str]:
        """Which features carried the best candidate of each of n titles."""
        if self.search is None or self.acceptance is None:
            return [self.explain(text, None) for text in texts]
        return self.acceptance.explain(self.search(texts).features)

    def explain(self, text: str, label: int | None) -> str:
        """Which features carried a match of a title, in a line; None for its best label."""
        if self.search is None or self.acceptance is None:
            vector = self.titles([text])
            if label is None:
                label = int(self.index.search(vector, 1)[1][0, 0])
            score = pair_scores(vector, self.vectors, np.zeros(1, np.int64), np.array([label]))
            return f"cosine {score[0]:.3g} (no acceptance model)"
        found = self.search([text])
        if label is None:
            return self.acceptance.explain(found.features)[0]
        labels, scores = found.labels, found.scores
        if label not in labels[0]:
            score = pair_scores(
                self.titles([text]), self.vectors, np.zeros(1, np.int64), np.array([label])
            )
            labels = np.append(labels, [[label]], axis=1)
            scores = np.append(scores, score[None], axis=1)
        given = {"score": np.where(labels < 0, np.nan, scores)}
        features = self.search.texts([text], labels, given)
        place = np.flatnonzero(labels[0] == label)[:1]
        return self.acceptance.explain(features, place)[0]
