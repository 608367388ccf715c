"""What a decision rule promises: certified thresholds, the band of new products, least cost.

All of it is chosen on validation alone, from predictions whose scores (cosines, or out-of-fold
probabilities of an acceptance model) did not see the titles that they judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alc_kernels.metrics import CertifiedThreshold, certified_threshold
from alc_kernels.metrics.bootstrap import ClusterDraws, percentile_bounds
from alc_kernels.trainer.evaluation.predictions import Predictions

CONFIDENCE = 0.95
WANTED = tuple(step / 20 for step in range(1, 21))  # coverages that an outlook is given for
REPLICATES = 1000
OUT_OF_REACH = 100


@dataclass(frozen=True)
class Certificate:
    """A certified threshold, and what it rests on.

    Attributes:
        found: the threshold with all that is known about it; infinite where none is certified.
        titles: validation titles.
        products: their products; a title whose product is not known counts as one.
        unknown: titles whose product is not known.
        category: of a threshold for one category of the titles; empty for all.
    """

    found: CertifiedThreshold
    titles: int
    products: int
    unknown: int = 0
    category: str = ""

    @property
    def threshold(self) -> float:
        """Accept from this score; inf where nothing is certified."""
        return self.found.threshold

    @property
    def certified(self) -> bool:
        """Whether there is a threshold with a promise."""
        return self.found.certified

    @property
    def coverage(self) -> float:
        """Share of the validation titles that are accepted."""
        return self.found.coverage

    def outlook(self) -> tuple[float, float]:
        """(products, coverage): how few more reviewed products would certify how much.

        Both are NaN where no number of them would, or only :data:`OUT_OF_REACH` times as many as
        there are. At about even odds, with error rate and
        dependence as validation shows them.
        """
        needed = [self.found.needed(coverage) for coverage in WANTED]
        least = min(needed)
        if least > OUT_OF_REACH * self.titles:
            return math.nan, math.nan
        wanted = max(c for c, n in zip(WANTED, needed, strict=True) if n == least)
        return math.ceil(least * self.products / self.titles), wanted

    def text(self) -> str:
        """The promise, or what is missing for one, without a full stop."""
        at = f"at {100 * self.found.precision:.10g} %"
        if self.certified:
            return (
                f"{at}: accept from {self.threshold:.3f}, {100 * self.coverage:.0f} % of titles, "
                f"certified with {100 * self.found.confidence:.10g} % confidence on "
                f"{_products(self.found.num_groups)}{self._alone()}"
            )
        if math.isfinite(self.threshold):
            return f"{at}: accept from {self.threshold:.3f}, the threshold of all: too few titles"
        return f"{at}: not certifiable: {self.lacking()}"

    def lacking(self) -> str:
        """What would certify something, in words."""
        more, coverage = self.outlook()
        if math.isnan(more):
            return (
                f"too many of the best {self.titles:,} validation titles are wrong, more would not "
                "help"
            )
        verb = "product" if more == 1 else "products"
        return f"{more:,.0f} more reviewed {verb} would be needed for {100 * coverage:.0f} %"

    def _alone(self) -> str:
        if not self.unknown:
            return ""
        return f" ({self.unknown:,} titles of unknown product counted as one product each)"


def certify(
    validation: Predictions, precision: float, confidence: float = CONFIDENCE
) -> Certificate:
    """From which score on matches are right with ``precision``, with a promise.

    Args:
        validation: predictions of validation titles.
        precision, confidence: strictly between 0 and 1.
    """
    found = certified_threshold(
        validation.top_score, validation.correct, precision, confidence, validation.group
    )
    return _certificate(found, validation.group)


def certify_new(
    validation: Predictions, precision: float, confidence: float = CONFIDENCE
) -> Certificate | str:
    """Below which score a title's product is not in the catalogue, with a promise.

    Of the titles in this band at least ``precision`` are of products that the catalogue lacks, so
    that at most the rest are sent away in error. The band goes before acceptance: a title in both
    is new (for a precision of at least one half that breaks neither promise).

    Returns:
        A certificate whose threshold is the *negative* of a score: a title is new where
        ``-score >= threshold``. Or why there can be none.
    """
    missing = ~validation.answerable
    if not missing.any():
        return (
            "no band of new products: every validation title has a right answer in the catalogue; "
            "alc data convert --hold-out-share leaves products out to learn from"
        )
    found = certified_threshold(
        -validation.top_score, missing, precision, confidence, validation.group
    )
    return _certificate(found, validation.group)


def certify_categories(
    validation: Predictions,
    categories: Sequence[str],
    precision: float,
    confidence: float = CONFIDENCE,
) -> dict[str, Certificate]:
    """A threshold with the same promise for each category of the titles.

    Args:
        validation: predictions of n titles.
        categories: their n categories.
        precision, confidence: strictly between 0 and 1.

    Returns:
        Category -> certificate, the largest category first. One with too few titles has the
        threshold of all, and is not certified.
    """
    names = np.array([str(one) for one in categories])
    found = certified_threshold(
        validation.top_score, validation.correct, precision, confidence, validation.group, names
    )
    sizes = {name: int((names == name).sum()) for name in found.by_category}
    return {
        name: _certificate(found.by_category[name], validation.group[names == name], name)
        for name in sorted(sizes, key=lambda name: (-sizes[name], name))
    }


def _certificate(found: CertifiedThreshold, group: np.ndarray, category: str = "") -> Certificate:
    unknown = int((group < 0).sum())
    products = len(np.unique(group[group >= 0])) + unknown
    return Certificate(found, len(group), products, unknown, category)


def _products(count: int) -> str:
    return f"{count:,} product" + ("" if count == 1 else "s")


@dataclass(frozen=True)
class LeastCost:
    """The threshold of least expected cost.

    Attributes:
        threshold: accept from this score; inf where a person should look at every title.
        thresholds: (low, high), where the bootstrap over products puts it.
        cost: per validation title at ``threshold``.
        low, high: its interval, for the threshold as it is.
        coverage: share of the validation titles accepted.
        wrong, review: what a wrong match and a look cost.
    """

    threshold: float
    thresholds: tuple[float, float]
    cost: float
    low: float
    high: float
    coverage: float
    wrong: float
    review: float

    def of(self, found: Predictions) -> float:
        """Cost per title of other predictions at the threshold."""
        accept = found.top_score >= self.threshold
        wrong = float((accept & ~found.correct).mean())
        return self.wrong * wrong + self.review * float((~accept).mean())


def least_cost(
    validation: Predictions, wrong: float, review: float, replicates: int = REPLICATES
) -> LeastCost:
    """Where a wrong match and a look by a person together cost least.

    It makes no promise about precision; intervals (95 %) are bootstrapped over products.

    Args:
        validation: predictions of validation titles.
        wrong: cost of an accepted match that is wrong.
        review: cost of a title that a person looks at.
        replicates: draws of the bootstrap.

    Raises:
        ValueError: a cost that is not above 0.
    """
    for name, value in (("wrong", wrong), ("review", review)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"cost of {name} = {value!r}: expected a number above 0")
    order = np.argsort(-validation.top_score, kind="stable")
    scores = validation.top_score[order]
    ends = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    ends = ends[np.isfinite(scores[ends])]  # titles without any candidate are never accepted
    errors = (~validation.correct)[order].astype(np.float64)
    reach = np.append(np.inf, scores[ends])  # accept nothing, or from each score on

    def costs(weights: np.ndarray) -> np.ndarray:  # (S, n) -> (S, thresholds)
        sums = [np.cumsum(weights * one, axis=1)[:, ends] for one in (errors, 1.0)]
        left = weights.sum(axis=1, keepdims=True)
        zero = np.zeros((len(weights), 1))
        wrongs, taken = (np.concatenate([zero, one], axis=1) for one in sums)
        return (wrong * wrongs + review * (left - taken)) / left

    at = costs(np.ones((1, len(scores))))[0]
    best = int(at.argmin())
    drawn, chosen = [], []
    for weights in ClusterDraws(validation.group, len(scores), replicates):
        found = costs(weights[:, order].astype(np.float64))
        drawn.append(found[:, best])
        chosen.append(reach[found.argmin(axis=1)])
    low, high, _ = percentile_bounds(np.concatenate(drawn), CONFIDENCE)
    first, last, _ = percentile_bounds(np.concatenate(chosen), CONFIDENCE)
    return LeastCost(
        float(reach[best]), (first, last), float(at[best]), low, high,
        0.0 if not best else float((ends[best - 1] + 1) / len(scores)), wrong, review,
    )  # fmt: skip
