"""From a score to a decision."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from alc_kernels.matching.evidence import Certificate, Evidence
from alc_kernels.matching.table import ACCEPT, NEW, REVIEW, Matches
from alc_kernels.trainer.evaluation.certificates import (
    CONFIDENCE,
    certify,
    certify_new,
    least_cost,
)

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
        if math.isfinite(self.accept):  # a product code that is equal scores inf among cosines
            made[score >= np.float32(self.accept)] = ACCEPT
        made[score <= np.float32(self.new)] = NEW  # goes before acceptance, see certify_new
        return made


@dataclass(frozen=True)
class Wish:
    """How to decide; see :meth:`~alc_kernels.matching.Matcher.accepting`."""

    precision: float | None = None
    threshold: float | None = None
    cost: tuple[float, float] | None = None
    new: float | None = None
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        given = [self.precision, self.threshold, self.cost]
        if sum(one is not None for one in given) > 1:
            raise ValueError("precision, threshold and cost exclude each other")
        if self.cost is not None:  # a list, from JSON
            object.__setattr__(self, "cost", tuple(self.cost))

    @property
    def promise(self) -> float | None:
        """The precision to certify; None where a threshold or costs decide."""
        if self.threshold is not None or self.cost is not None:
            return None
        return PRECISION if self.precision is None else self.precision


Kind = tuple[list[str], str]  # warnings about a catalogue, and why no certificate holds with it


def certificate(evidence: Evidence, kind: Kind, precision: float, confidence: float) -> Certificate:
    """See :meth:`~alc_kernels.matching.Matcher.certificate`."""
    made = certify(evidence.predictions, precision, confidence)
    return Certificate(made, tuple(kind[0]), kind[1])


def certificate_of_new(
    evidence: Evidence, kind: Kind, share: float, confidence: float
) -> Certificate | str:
    """See :meth:`~alc_kernels.matching.Matcher.certificate_of_new`."""
    found = certify_new(evidence.predictions, 1.0 - share, confidence)
    return found if isinstance(found, str) else Certificate(found, tuple(kind[0]), kind[1])


def made_rule(wish: Wish, evidence: Evidence, kind: Kind) -> Rule:
    """The rule that a wish comes to with this evidence.

    Raises:
        ValueError: numbers out of range.
    """
    if wish.promise is not None:
        made = certificate(evidence, kind, wish.promise, wish.confidence)
        rule = Rule(made.threshold, told=str(made))
    elif wish.threshold is not None:
        rule = Rule(wish.threshold, told=f"{wish.threshold:g}, as given")
    else:
        rule = _of_cost(evidence, *(wish.cost or (1.0, 1.0)))
    if wish.new is None:
        return rule
    found = certificate_of_new(evidence, kind, wish.new, wish.confidence)
    if isinstance(found, str):
        return replace(rule, told_new=found)
    if not found:
        return replace(rule, told_new=f"nothing is called new: {found}")
    return replace(
        rule,
        new=-found.threshold,
        told_new=f"{-found.threshold:.3f} and below: at most {100 * wish.new:g} % of what is "
        f"called new has a label here, certified with {100 * wish.confidence:g} % confidence",
    )


def _of_cost(evidence: Evidence, wrong: float, review: float) -> Rule:
    found = least_cost(evidence.predictions, wrong, review)
    first, last = (f"{one:.3f}" for one in found.thresholds)
    where = "nothing is accepted"
    if math.isfinite(found.threshold):
        where = (
            f"accept from {found.threshold:.3f} ({first} to {last}), "
            f"{100 * found.coverage:.0f} % of titles"
        )
    told = (
        f"of least cost where a wrong match costs {wrong:g} and a review {review:g}: {where}; "
        f"{found.cost:.3g} ({found.low:.3g} to {found.high:.3g}) per title. No precision is "
        "promised"
    )
    return Rule(found.threshold, told=told)


def decided(
    table: Matches, rule: Rule, scores: np.ndarray, without: np.ndarray | None = None
) -> Matches:
    """The table with its decisions.

    Args:
        table: R rows of n titles.
        rule: how to decide.
        scores: (R,) of its rows.
        without: (n,) bool, titles that are for review whatever their score.
    """
    first = table.rank == 1
    found = table.label[first] >= 0
    made = rule(np.where(found, scores[first], -np.inf))
    made[~found if without is None else ~found | without] = REVIEW
    every = made[table.query]
    every[~first & (every == ACCEPT)] = ""
    return replace(table, decision=every)
