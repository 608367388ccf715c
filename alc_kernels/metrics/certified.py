"""A threshold with a promise: at least p of the accepted matches are right, with a confidence.

The lowest validation score that attains p (:func:`threshold_at_precision`) misses p about half of
the time. Here thresholds are tested one after the other so that, with probability ``confidence``,
every one of them that passes has a precision of at least p. Queries of one product may depend on
each other (``groups``). The test is asymptotic in the number of groups: Clopper-Pearson on the
effective number of queries; ``experiments/promise.py`` simulates how well that holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alc_kernels.metrics.bootstrap import ClusterDraws
from alc_kernels.metrics.bounds import (
    design_effect,
    error_p_value,
    fallback,
    group_sums,
    plan,
    precision_lower_bound,
    queries_allowing,
)
from alc_kernels.metrics.inputs import (
    BoolArray,
    FloatArray,
    IntArray,
    as_groups,
    as_rate,
    as_scored,
    check_lengths,
)
from alc_kernels.metrics.monitor import PrecisionMonitor

if TYPE_CHECKING:
    from alc_kernels.metrics.inputs import ArrayLike
    from alc_kernels.metrics.monitor import State


class _Tests(NamedTuple):
    """What every tested threshold showed, (T,) each; the accepted share rises."""

    thresholds: FloatArray
    accepted: FloatArray
    wrong: FloatArray
    deff: FloatArray
    groups: FloatArray
    p_values: FloatArray
    levels: FloatArray  # the level each was tested at
    own_levels: FloatArray  # of that, what began there

    def reaches(self, place: int, factor: float, precision: float) -> bool:
        """Whether so many times the queries, with the rates seen, would certify ``place``.

        Or a threshold below it. The sequence has to come there: what is clear by itself does not
        help where every start before it fails.
        """
        many = factor / self.deff
        p_values = error_p_value(many * self.wrong, many * self.accepted, 1.0 - precision)
        return bool(fallback(p_values, self.own_levels)[0][place:].any())


@dataclass(frozen=True)
class CertifiedThreshold:
    """A threshold and what is known about it; made by :func:`certified_threshold`.

    Attributes:
        threshold: accept what scores at least this; inf where nothing can be certified.
        coverage: share of the given queries that score at least ``threshold``.
        precision: the promised p.
        confidence: the chance that a promise made in this way is kept.
        certified: whether the promise holds; False with ``threshold`` inf, and for a category that
            takes the threshold of all.
        precision_bound: lower confidence bound of the precision at this threshold, at the level it
            was tested at (never below ``precision`` where certified); NaN without a threshold.
        effective_queries: the accepted queries, as so many independent ones; 0 without.
        num_queries: validation queries.
        num_groups: groups (products) of the accepted queries; 0 without a threshold.
        reason: in a sentence, what the threshold rests on or why there is none.
        by_category: the same for each category, in its own right; empty without ``categories``.
        monitor: counts the reviewed matches given to :meth:`update`; its own state, not part of
            the comparison of two results.
    """

    threshold: float
    coverage: float
    precision: float
    confidence: float
    certified: bool
    precision_bound: float
    effective_queries: float
    num_queries: int
    num_groups: int
    reason: str
    by_category: dict[Any, CertifiedThreshold] = field(default_factory=dict)
    monitor: PrecisionMonitor | None = field(default=None, compare=False, repr=False)
    _tests: _Tests | None = field(default=None, compare=False, repr=False)

    def needed(self, coverage: float) -> float:
        """How many more reviewed queries would certify a coverage, at about even odds.

        Assumes that error rate and dependence at that coverage stay as validation shows them.

        Args:
            coverage: in (0, 1].

        Returns:
            A whole number; 0 where so much is certified already; inf where validation's precision
            there is not above the wanted one, so that no number of queries would do.

        Raises:
            ValueError: a coverage outside (0, 1].
        """
        wanted = as_rate(coverage, "coverage")
        if wanted == 0.0:
            raise ValueError("coverage=0.0: expected a number above 0, at most 1")
        if self.certified and self.coverage >= wanted:
            return 0.0
        if self._tests is None:  # too few for any test: at least one must be possible
            least = queries_allowing(np.zeros(1, np.int64), 1 - self.precision, 1 - self.confidence)
            return float(max(math.ceil(int(least[0]) / wanted) - self.num_queries, 1))
        tests = self._tests
        place = min(
            int(np.searchsorted(tests.accepted, wanted * self.num_queries - 1e-9)),
            len(tests.accepted) - 1,
        )
        return _more(tests, place, self.precision, self.num_queries)

    def update(
        self, scores: ArrayLike, correct: ArrayLike, groups: ArrayLike | None = None
    ) -> State:
        """Count reviewed matches and say whether the promise still stands.

        Decisions add up over the calls (in ``monitor``), and one may look after each: a kept
        promise ever becomes "void" with a chance of at most 1 - confidence, "weakened" with at most
        its square root. Matches below the threshold are passed over. Give each decision once: a
        product that an earlier call showed is set aside, without ``groups`` a decision given twice
        counts twice. The matches must be all accepted ones of a time or a random part of them.

        Args:
            scores: (n,) top-1 scores.
            correct: (n,) whether the top-1 label is right, booleans or 0/1.
            groups: (n,) as for :func:`certified_threshold`.

        Returns:
            ``"valid"``, ``"weakened"`` (evidence against the promise: review more) or ``"void"``
            (the promise is broken, for good: certify anew).

        Raises:
            ValueError: bad arrays, or nothing was certified, so that there is nothing to watch.

        Source: :class:`~alc_kernels.metrics.monitor.PrecisionMonitor`.
        """
        if self.monitor is None:
            raise ValueError(f"there is no threshold to watch: {self.reason}")
        checked, right = as_scored(scores, correct)
        named = None if groups is None else as_groups(groups)
        if named is not None:
            check_lengths("scores", len(checked), "groups", len(named))
        accept = checked >= self.threshold
        if not accept.any():
            return self.monitor.state
        return self.monitor.update(right[accept], None if named is None else named[accept])


def certified_threshold(
    scores: ArrayLike,
    correct: ArrayLike,
    precision: float,
    confidence: float = 0.95,
    groups: ArrayLike | None = None,
    categories: ArrayLike | None = None,
) -> CertifiedThreshold:
    """The lowest threshold at which at least p of the accepted matches are certified to be right.

    Precision is E[right accepted] / E[accepted] for groups drawn as the given ones are. The scores
    must come from a model that was not fitted on these queries.

    Args:
        scores: (n,) top-1 scores, any real dtype; infinities are legal.
        correct: (n,) whether the top-1 label is right, booleans or 0/1; 0 for a query whose product
            is not in the catalogue.
        precision: p, strictly between 0 and 1.
        confidence: strictly between 0 and 1; the promise is broken with a chance of at most
            1 - confidence.
        groups: (n,) product of each query, integers or strings: its true label, also where that is
            not in the catalogue (the wrong answers of one missing product come together). A
            negative integer means a group of its own, None that all are, and the reason says so.
        categories: (n,) integers or strings: each category gets a threshold with the same promise.
            Where a category has too few queries for one, it takes the threshold of all, its
            ``certified`` is False and its ``reason`` says why; where enough queries show a
            precision below p there, its threshold is inf.

    Returns:
        A :class:`CertifiedThreshold`; ``threshold`` is one of the scores, or inf with the reason.

    Raises:
        ValueError: empty input, NaN scores, ``correct`` not 0/1, lengths that disagree, a precision
            or confidence not strictly between 0 and 1.

    Source: thresholds fixed by the scores alone and tested in sequence (Bauer, "Multiple testing in
    clinical trials", 1991; Angelopoulos et al., "Learn then test", arXiv 2110.01052), with the
    fallback procedure and the bound named in ``bounds.py``.
    """
    checked, right = as_scored(scores, correct)
    rate = as_rate(precision, "precision", open_ends=True)
    confidence = as_rate(confidence, "confidence", open_ends=True)
    if groups is not None:
        groups = as_groups(groups)
        check_lengths("scores", len(checked), "groups", len(groups))
    group = ClusterDraws(groups, len(checked)).cluster
    pooled = _certify(checked, ~right, group, rate, confidence, groups is None)
    if categories is None:
        return pooled
    names = as_groups(categories, "categories")
    check_lengths("scores", len(checked), "categories", len(names))
    for name in np.unique(names).tolist():
        rows = names == name
        pooled.by_category[name] = _category(
            pooled, checked[rows], ~right[rows], group[rows], groups is None
        )
    return pooled


def _certify(
    scores: FloatArray,
    wrong: BoolArray,
    group: IntArray,
    precision: float,
    confidence: float,
    alone: bool,
) -> CertifiedThreshold:
    num_queries, level = len(scores), 1.0 - confidence
    tests = _test(scores, wrong, group, precision, level)
    if tests is None:
        least = queries_allowing(np.zeros(1, np.int64), 1.0 - precision, level)[0]
        return _nothing(
            f"{_count(num_queries, 'query', 'queries')}, and even without a wrong answer {least} "
            f"accepted ones are needed for precision {precision:g} at confidence {confidence:g}",
            precision, confidence, num_queries, None,
        )  # fmt: skip
    passed = np.flatnonzero(tests.p_values <= tests.levels)
    if not len(passed):
        best = int(tests.p_values.argmin())
        more = _more(tests, best, precision, num_queries)
        outlook = (
            "too near the wanted precision for any number of queries"
            if math.isinf(more)
            else f"about {more:.0f} more reviewed queries could certify that much"
        )
        return _nothing(
            f"the nearest to it, at coverage {tests.accepted[best] / num_queries:.3f}, has "
            f"{tests.wrong[best]:.0f} of {tests.accepted[best]:.0f} wrong, worth "
            f"{tests.accepted[best] / tests.deff[best]:.0f} independent queries; {outlook}",
            precision, confidence, num_queries, tests,
        )  # fmt: skip
    last = int(passed[-1])
    accepted, wrong_ones = float(tests.accepted[last]), float(tests.wrong[last])
    deff, count = float(tests.deff[last]), int(tests.groups[last])
    threshold = float(tests.thresholds[last])
    dependence = (
        "taken as independent (no groups were given)"
        if alone
        else f"of {_count(count, 'group', 'groups')}, worth {accepted / deff:.0f} independent ones"
    )
    return CertifiedThreshold(
        threshold=threshold,
        coverage=accepted / num_queries,
        precision=precision,
        confidence=confidence,
        certified=True,
        precision_bound=max(
            precision,
            precision_lower_bound(wrong_ones / deff, accepted / deff, float(tests.levels[last])),
        ),
        effective_queries=accepted / deff,
        num_queries=num_queries,
        num_groups=count,
        reason=f"certified on {_count(int(accepted), 'accepted query', 'accepted queries')} "
        f"{dependence}, {wrong_ones:.0f} of them wrong",
        monitor=_monitor(scores, group, threshold, precision, confidence),
        _tests=tests,
    )


def _test(
    scores: FloatArray, wrong: BoolArray, group: IntArray, precision: float, level: float
) -> _Tests | None:
    """Every planned threshold; None where the queries are too few for any."""
    num_queries = len(scores)
    planned = plan(num_queries, precision, level)
    if not len(planned.places):
        return None
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # a threshold accepts all queries of its score; inf itself stands for "none"
    places = np.maximum(planned.places, np.searchsorted(-ranked, -np.inf, side="right") + 1)
    thresholds = ranked[np.minimum(places, num_queries) - 1]
    ends = np.searchsorted(-ranked, -thresholds, side="right")
    ends, place = np.unique(ends, return_inverse=True)
    levels = np.bincount(place, weights=level * planned.shares).astype(np.float64)
    middle = np.searchsorted(-ranked, -ranked[(num_queries + 1) // 2 - 1], side="right")
    every = np.unique(np.append(ends, middle))
    sums = group_sums(group[order], wrong[order], every)
    deff = design_effect(sums, int(np.searchsorted(every, middle)))
    kept = np.searchsorted(every, ends)
    accepted, wrong_ones, deff = sums.accepted[kept], sums.wrong[kept], deff[kept]
    p_values = error_p_value(wrong_ones / deff, accepted / deff, 1.0 - precision)
    return _Tests(
        ranked[ends - 1], accepted, wrong_ones, deff, sums.groups[kept], p_values,
        fallback(p_values, levels)[1], levels,
    )  # fmt: skip


def _category(
    pooled: CertifiedThreshold, scores: FloatArray, wrong: BoolArray, group: IntArray, alone: bool
) -> CertifiedThreshold:
    """A category's own threshold; that of all where it has too few queries for one."""
    precision, confidence = pooled.precision, pooled.confidence
    group = np.unique(group, return_inverse=True)[1]
    own = _certify(scores, wrong, group, precision, confidence, alone)
    if own.certified or not pooled.certified:
        return own
    accept = scores >= pooled.threshold
    accepted, wrong_ones = int(accept.sum()), int(wrong[accept].sum())
    order = np.argsort(-scores, kind="stable")
    effective = 0.0
    if accepted:
        ends = np.unique([accepted, max(accepted, (len(scores) + 1) // 2)])
        sums = group_sums(group[order], wrong[order], ends)
        effective = accepted / float(design_effect(sums, len(ends) - 1)[0])
    least = queries_allowing(np.zeros(1, np.int64), 1.0 - precision, 1.0 - confidence)[0]
    if effective >= least and wrong_ones > (1.0 - precision) * accepted:
        return own  # enough of them, and they say no
    return CertifiedThreshold(
        threshold=pooled.threshold,
        coverage=accepted / len(scores),
        precision=precision,
        confidence=confidence,
        certified=False,
        precision_bound=precision_lower_bound(
            wrong_ones * effective / max(accepted, 1), effective, 1.0 - confidence
        ),
        effective_queries=effective,
        num_queries=len(scores),
        num_groups=len(np.unique(group[accept])),
        reason="too few queries for a threshold of its own, so that of all, whose promise holds "
        f"over all categories together: {own.reason}",
        monitor=_monitor(scores, group, pooled.threshold, precision, confidence),
        _tests=own._tests,
    )


def _more(tests: _Tests, place: int, precision: float, num_queries: int) -> float:
    """Queries to add so that the tests come to ``place`` with the rates seen."""
    low, high = 1.0, 2.0
    while not tests.reaches(place, high, precision):
        low, high = high, 2.0 * high
        # The precision there is not above the wanted one, or next to it.
        if high * num_queries > 1e9:
            return math.inf
    while (high - low) * num_queries > 0.5:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if tests.reaches(place, middle, precision) else (middle, high)
    return float(max(math.ceil((high - 1.0) * num_queries), 1))


def _monitor(
    scores: FloatArray, group: IntArray, threshold: float, precision: float, confidence: float
) -> PrecisionMonitor:
    """One whose bets fit the groups that validation has above the threshold."""
    sizes = np.bincount(group[scores >= threshold], minlength=1)
    return PrecisionMonitor(precision, confidence, max(1, int(sizes.max())))


def _nothing(
    why: str, precision: float, confidence: float, num_queries: int, tests: _Tests | None
) -> CertifiedThreshold:
    return CertifiedThreshold(
        threshold=math.inf,
        coverage=0.0,
        precision=precision,
        confidence=confidence,
        certified=False,
        precision_bound=math.nan,
        effective_queries=0.0,
        num_queries=num_queries,
        num_groups=0,
        reason=f"not certifiable: {why}",
        _tests=tests,
    )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
