"""Selective prediction: how many queries can be answered at a wanted precision.

A query is accepted at threshold t when its top-1 score is at least t. With n queries,
``phi(t)`` = accepted / n is the coverage and ``pi(t)`` = right / accepted the precision. Open-set
queries (no correct label exists) count in phi and are wrong when accepted: pass ``correct`` 0.
Tied scores are accepted together, so thresholds are the distinct scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np

from alc_kernels.metrics.inputs import (
    BoolArray,
    FloatArray,
    IntArray,
    Weights,
    as_count,
    as_groups,
    as_rate,
    as_scored,
    as_weights,
    check_lengths,
)

if TYPE_CHECKING:
    from alc_kernels.metrics.inputs import ArrayLike


class PrecisionCoverageCurve(NamedTuple):
    """Coverage and precision at every threshold.

    Attributes:
        thresholds: (T,) float64, the distinct scores, descending.
        coverage: (T,) float64, share of the queries that score at least the threshold.
        precision: (T,) float64, share of right ones among those.
    """

    thresholds: FloatArray
    coverage: FloatArray
    precision: FloatArray


class TransferredCoverage(NamedTuple):
    """A threshold chosen on validation, and what it gives on test.

    Attributes:
        threshold: inf where validation never reaches the precision.
        coverage: share of the test queries that score at least ``threshold``.
        precision: share of right ones among those; NaN where there are none.
    """

    threshold: float
    coverage: float
    precision: float


@dataclass(frozen=True)
class Sweep:
    """All thresholds at once, for S weightings of the queries: what every figure here is read off.

    Attributes:
        thresholds: (T,) distinct scores, descending.
        accepted: (S, T) weight of the queries that score at least each threshold.
        right: (S, T) weight of the right ones among them.
    """

    thresholds: FloatArray
    accepted: FloatArray
    right: FloatArray

    @cached_property
    def coverage(self) -> FloatArray:
        """phi, (S, T)."""
        return self.accepted / self.accepted[:, -1:]

    @cached_property
    def precision(self) -> FloatArray:
        """pi, (S, T)."""
        # nothing accepted (leading queries of weight 0): 0 / 0 = NaN, which attains no precision
        with np.errstate(invalid="ignore"):
            return self.right / self.accepted

    def coverage_at(self, precision: float) -> FloatArray:
        """C(precision), (S,); see :func:`coverage_at_precision`."""
        attained = np.where(self.precision >= precision, self.coverage, 0.0)  # (S, T)
        return np.asarray(attained.max(axis=1))

    def threshold_at(self, precision: float) -> FloatArray:
        """The lowest threshold that attains ``precision``, (S,); inf where none does."""
        attains = self.precision >= precision  # (S, T)
        # argmax takes the first maximum: scores that only queries of weight 0 have are passed over
        best = np.where(attains, self.accepted, -1.0).argmax(axis=1)
        return np.where(attains.any(axis=1), self.thresholds[best], np.inf)

    def aurc(self) -> FloatArray:
        """Area under the risk-coverage curve, (S,); see :func:`aurc`."""
        share = np.diff(self.coverage, axis=1, prepend=0.0)  # (S, T): weight of each tied run
        risk = np.where(self.accepted > 0.0, 1.0 - self.precision, 0.0)
        return np.asarray((share * risk).sum(axis=1))


def sweep(scores: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None) -> Sweep:
    """One pass over the queries that several figures can share.

    Arguments and errors as for :func:`coverage_at_precision`.
    """
    checked = as_scored(scores, correct)
    return _sweep(*checked, as_weights(weights, len(checked[0])))


def _sweep(scores: FloatArray, correct: BoolArray, weights: Weights) -> Sweep:
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(ranked[1:] != ranked[:-1], True)  # last query of each tied run
    # take keeps rows contiguous, so a batch of weights sums each row as that row alone would
    sorted_already = bool((np.diff(order) > 0).all())
    weighted = weights.matrix if sorted_already else weights.matrix.take(order, axis=1)  # (S, n)
    accepted = np.cumsum(weighted, axis=1)
    right = np.cumsum(weighted * correct[order], axis=1)
    if not ends.all():
        kept = np.flatnonzero(ends)
        ranked, accepted, right = ranked[kept], accepted.take(kept, 1), right.take(kept, 1)
    return Sweep(ranked, accepted, right)


def _read_off(
    scores: ArrayLike, correct: ArrayLike, weights: ArrayLike | None,
    figure: Callable[[Sweep], FloatArray],
) -> float | FloatArray:  # fmt: skip
    checked = as_scored(scores, correct)
    query_weights = as_weights(weights, len(checked[0]))
    return query_weights.result(figure(_sweep(*checked, query_weights)))


def precision_coverage_curve(
    scores: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None
) -> PrecisionCoverageCurve:
    """Coverage and precision at every threshold.

    Args:
        scores: (n,) top-1 scores, any real dtype; infinities are legal.
        correct: (n,) whether the top-1 label is right, booleans or 0/1.
        weights: (n,) query weights.

    Returns:
        ``(thresholds, coverage, precision)``, each (T,) float64 for T distinct scores, thresholds
        descending, so that coverage rises to 1. Precision is NaN where the accepted weight is 0.

    Raises:
        ValueError: empty input, NaN scores, ``correct`` not 0/1, or lengths that disagree.
    """
    checked = as_scored(scores, correct)
    query_weights = as_weights(weights, len(checked[0]))
    if not query_weights.single:
        raise ValueError("weights must have shape (n,) here: one curve per call")
    swept = _sweep(*checked, query_weights)
    return PrecisionCoverageCurve(swept.thresholds, swept.coverage[0], swept.precision[0])


@overload
def coverage_at_precision(
    scores: ArrayLike, correct: ArrayLike, precision: float, weights: None = None
) -> float: ...
@overload
def coverage_at_precision(
    scores: ArrayLike, correct: ArrayLike, precision: float, weights: ArrayLike
) -> float | FloatArray: ...
def coverage_at_precision(
    scores: ArrayLike, correct: ArrayLike, precision: float, weights: ArrayLike | None = None
) -> float | FloatArray:
    """Largest coverage at a precision: ``C(p) = max phi(t) over t with pi(t) >= p``.

    The threshold is chosen on the same queries, so this is an optimistic bound on what
    :func:`transferred_coverage` gives. It is not the "coverage@k" of extreme classification (the
    share of labels ever predicted).

    Args:
        scores: (n,) top-1 scores, any real dtype; infinities are legal.
        correct: (n,) whether the top-1 label is right, booleans or 0/1.
        precision: p in [0, 1].
        weights: (n,) query weights, or (S, n) for S results at once (one sort for all).

    Returns:
        A float in [0, 1] ((S,) float64 for (S, n) weights); 0 if no threshold attains p.

    Raises:
        ValueError: empty input, NaN scores, ``correct`` not 0/1, lengths that disagree, or p
            outside [0, 1].

    Source: C@p of arXiv 2510.04551.
    """
    rate = as_rate(precision, "precision")
    return _read_off(scores, correct, weights, lambda swept: swept.coverage_at(rate))


@overload
def threshold_at_precision(
    scores: ArrayLike, correct: ArrayLike, precision: float, weights: None = None
) -> float: ...
@overload
def threshold_at_precision(
    scores: ArrayLike, correct: ArrayLike, precision: float, weights: ArrayLike
) -> float | FloatArray: ...
def threshold_at_precision(
    scores: ArrayLike, correct: ArrayLike, precision: float, weights: ArrayLike | None = None
) -> float | FloatArray:
    """The lowest score that, as a threshold, attains :func:`coverage_at_precision`.

    Arguments and errors as there. Returns a float, one of the scores ((S,) float64 for (S, n)
    weights); inf if no threshold attains the precision.
    """
    rate = as_rate(precision, "precision")
    return _read_off(scores, correct, weights, lambda swept: swept.threshold_at(rate))


def transferred_coverage(
    val_scores: ArrayLike,
    val_correct: ArrayLike,
    test_scores: ArrayLike,
    test_correct: ArrayLike,
    precision: float,
) -> TransferredCoverage:
    """Coverage and precision on test at the threshold chosen on validation: what a user gets.

    Args:
        val_scores, val_correct: (n,) validation scores and whether the top-1 label is right.
        test_scores, test_correct: (m,) the same for test; m and n are independent.
        precision: p in [0, 1], asked of validation.

    Returns:
        ``TransferredCoverage(threshold, coverage, precision)``: the lowest validation score that
        attains C(p), phi and pi on test. Without such a score ``(inf, 0.0, nan)``; where no test
        query reaches the threshold, coverage 0 and precision NaN.

    Raises:
        ValueError: as :func:`coverage_at_precision`, naming the argument.
    """
    rate = as_rate(precision, "precision")
    validation = as_scored(val_scores, val_correct, "val_")
    scores, correct = as_scored(test_scores, test_correct, "test_")
    swept = _sweep(*validation, as_weights(None, len(validation[0])))
    threshold = float(swept.threshold_at(rate)[0])
    if not bool((swept.precision >= rate).any()):
        return TransferredCoverage(float("inf"), 0.0, float("nan"))
    accept = scores >= threshold
    accepted, right = int(accept.sum()), int((accept & correct).sum())
    return TransferredCoverage(
        threshold,
        accepted / len(scores),
        right / accepted if accepted else float("nan"),
    )


@overload
def aurc(scores: ArrayLike, correct: ArrayLike, weights: None = None) -> float: ...
@overload
def aurc(scores: ArrayLike, correct: ArrayLike, weights: ArrayLike) -> float | FloatArray: ...
def aurc(
    scores: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None
) -> float | FloatArray:
    """Area under the risk-coverage curve: ``(1/n) sum_i (1 - pi(c_i))``, c_i the i-th score.

    The mean, over the queries, of the error rate when everything that scores at least as high is
    accepted; tied scores share one threshold. Lower is better; 0 when every query is right.

    Args:
        scores, correct: (n,) as for :func:`coverage_at_precision`.
        weights: (n,) query weights, or (S, n) for S results at once.

    Returns:
        A float in [0, 1] ((S,) float64 for (S, n) weights).

    Raises:
        ValueError: as :func:`coverage_at_precision`.

    Source: Geifman, Uziel and El-Yaniv, "Bias-reduced uncertainty estimation", ICLR 2019.
    """
    return _read_off(scores, correct, weights, Sweep.aurc)


# OPIS: does one threshold serve every group of queries alike?


MIN_PER_GROUP = 20  # of either kind: fewer make a rate too coarse to compare
FALSE_ACCEPT_RATES = (1e-1, 1e-2)


def opis(
    scores: ArrayLike, correct: ArrayLike, groups: ArrayLike, num_thresholds: int = 101
) -> float:
    """Operating-point inconsistency score, top-1 form: the variance of utility between groups.

    ``U_g(t)`` is the harmonic mean of sensitivity and specificity, within group g, of "accept a
    query when its score is >= t" (positives: queries whose top-1 label is right).
    ``OPIS = mean over g and t of (U_g(t) - mean_g U_g(t))^2``. Lower is better: 0 means that the
    groups agree at every threshold.

    The thresholds are equally spaced, ends included, between those where the false-accept rate of
    all queries together is 1e-1 and 1e-2: the .9 and .99 quantiles (linearly interpolated) of the
    scores of the wrong queries. U is 0 where sensitivity and specificity are both 0.

    Args:
        scores: (n,) finite top-1 scores.
        correct: (n,) whether the top-1 label is right, booleans or 0/1.
        groups: (n,) group identifiers, integers or strings.
        num_thresholds: at least 2.

    Returns:
        A float in [0, 0.25]. Groups with under 20 right or under 20 wrong queries are left out
        (their queries still count in the overall false-accept rate); NaN if no group is left, 0
        if one is.

    Raises:
        ValueError: empty input, scores not finite, or lengths that disagree.

    Source: after OPIS of arXiv 2307.04047, which compares pairs; this form compares queries.
    """
    checked_scores, checked_correct = as_scored(scores, correct)
    group_ids = as_groups(groups)
    check_lengths("scores", len(checked_scores), "groups", len(group_ids))
    count = as_count(num_thresholds, "num_thresholds", low=2)
    infinite = np.flatnonzero(~np.isfinite(checked_scores))
    if len(infinite):  # no grid can be spaced equally up to infinity
        raise ValueError(f"scores[{infinite[0]}] is infinite: expected finite scores")

    _, group = np.unique(group_ids, return_inverse=True)
    group_sizes = np.bincount(group * 2 + checked_correct, minlength=2 * (group.max() + 1))
    enough = group_sizes.reshape(-1, 2) >= MIN_PER_GROUP  # (groups, 2)
    kept = enough[:, 0] & enough[:, 1]  # (groups,)
    if not kept.any():
        return float("nan")
    member = kept[group]  # (n,)
    renumbered = np.cumsum(kept) - 1
    utility = _utilities(
        checked_scores[member],
        checked_correct[member],
        renumbered[group[member]],
        _threshold_grid(checked_scores[~checked_correct], count),
    )
    return float(np.mean((utility - utility.mean(axis=0)) ** 2))


def _threshold_grid(wrong_scores: FloatArray, count: int) -> FloatArray:
    low, high = np.quantile(wrong_scores, [1.0 - rate for rate in FALSE_ACCEPT_RATES])
    return np.linspace(low, high, count)


def _utilities(
    scores: FloatArray, correct: BoolArray, group: IntArray, thresholds: FloatArray
) -> FloatArray:
    """U_g(t), (G, T), for groups numbered 0..G-1 that all hold both kinds."""
    num_groups, num_bins = int(group.max()) + 1, len(thresholds) + 1
    passed = np.searchsorted(thresholds, scores, side="right")  # thresholds <= score
    cell = (group * 2 + correct) * num_bins + passed
    counts = np.bincount(cell, minlength=2 * num_groups * num_bins)
    counts = counts.reshape(num_groups, 2, num_bins)
    # accepted at threshold j: all that pass more than j thresholds
    accepted = np.cumsum(counts[:, :, ::-1], axis=2)[:, :, ::-1][:, :, 1:]  # (G, 2, T)
    rate = accepted / counts.sum(axis=2, keepdims=True)
    sensitivity, specificity = rate[:, 1], 1.0 - rate[:, 0]  # (G, T)
    total = sensitivity + specificity
    return np.asarray(
        2.0 * sensitivity * specificity / np.where(total > 0.0, total, 1.0), dtype=np.float64
    )
