"""From a score to a decision."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from alc_kernels.matching.evidence import CONFIDENCE
from alc_kernels.matching.table import ACCEPT, NEW, REVIEW

PRECISION = 0.9


@dataclass(frozen=True)
class Rule:
    """From the score of a title's best label to a decision.

    Attributes:
        accept: scores of at least this are accepted.
        new: scores of at most this say that no label is right.
        told: what the first rests on, in a sentence.
        told_new: the same of the second; "" without one.
    """

    accept: float = math.inf
    new: float = -math.inf
    told: str = "nothing is accepted"
    told_new: str = ""

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """(n,) decisions; the scores' float32 are compared, which is what evidence is kept as."""
        score = scores.astype(np.float32)
        made = np.full(len(score), REVIEW, object)
        made[score <= np.float32(self.new)] = NEW
        if math.isfinite(self.accept):  # a product code that is equal scores inf among cosines
            made[score >= np.float32(self.accept)] = ACCEPT
        return made


@dataclass(frozen=True)
class Wish:
    """How to decide; see :meth:`~alc_kernels.matching.Matcher.accepting`."""

    precision: float | None = None
    threshold: float | None = None
    confidence: float = CONFIDENCE
    new: float | None = None
