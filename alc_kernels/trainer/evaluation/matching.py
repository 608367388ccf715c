"""A trained model put to use: new titles to labels of a catalogue, accepted or for review."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from alc_kernels.metrics import threshold_at_precision
from alc_kernels.trainer.evaluation.predictions import Splits, leading_catalogue
from alc_kernels.trainer.model import Model
from alc_kernels.trainer.negatives.index import ExactIndex

TITLES_PER_PASS = 4096

ACCEPT, REVIEW = "accept", "review"


class Match(NamedTuple):
    """A label found for a title.

    Attributes:
        query: the title.
        rank: from 1.
        label: text of the label, empty where none was found.
        score: its similarity; None where none was found.
        decision: ``"accept"`` or ``"review"``. Only a best match is ever accepted: the further
            ones of an accepted title have an empty decision.
        place: of the label among those that were searched; -1 where none was found.
    """

    query: str
    rank: int
    label: str
    score: float | None
    decision: str
    place: int


def validation_threshold(predictions: Splits, precision: float) -> tuple[float, str]:
    """The lowest validation score that attains ``precision``, and in which catalogue.

    The open catalogue where there is one: in use, products are missing. Infinite where no score
    attains it.
    """
    name = leading_catalogue(predictions)
    found = predictions[name]["validation"]
    return float(threshold_at_precision(found.top_score, found.correct, precision)), name


class Matcher:
    """Finds the best labels of titles, exactly.

    Args:
        model: trained, in evaluation mode.
        texts: C label texts.
        label_ids: (C,) the numbers that the model knows them by, -1 for labels unseen in training;
            None where they are all labels of its training data in order.
        threshold: scores of at least this are accepted.
        k: labels per title, >= 1; fewer where the catalogue has fewer.

    Raises:
        ValueError: there is no label.
    """

    def __init__(
        self,
        model: Model,
        texts: Sequence[str],
        label_ids: np.ndarray | None,
        threshold: float,
        k: int = 1,
    ) -> None:
        if not len(texts):
            raise ValueError("the catalogue is empty: there is no label to match")
        self.model, self.texts, self.threshold = model, texts, threshold
        self.k = min(k, len(texts))
        device = next(model.parameters(), torch.empty(0)).device
        self.index = ExactIndex(model.encode_labels(texts, label_ids), device, normalize=False)

    def match(self, titles: Iterable[str]) -> Iterator[list[Match]]:
        """One list per title, best first, in the order given; a part of them is read at a time.

        A blank title is no title: it gets one row without a label, for review.
        """
        rest = iter(titles)
        while part := list(islice(rest, TITLES_PER_PASS)):
            scores, labels = self.index.search(self.model.encode_queries(part), self.k)
            for title, its_scores, its_labels in zip(part, scores, labels, strict=True):
                yield self._rows(title, its_scores, its_labels)

    def _rows(self, title: str, scores: np.ndarray, labels: np.ndarray) -> list[Match]:
        if not title.strip():
            return [Match(title, 1, "", None, REVIEW, -1)]
        accepted = float(scores[0]) >= self.threshold
        rows = []
        for place, (score, label) in enumerate(zip(scores, labels, strict=True)):
            decision = REVIEW if not accepted else ACCEPT if place == 0 else ""
            found = int(label)
            rows.append(Match(title, place + 1, self.texts[found], float(score), decision, found))
        return rows
