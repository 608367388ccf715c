"""Bounds of an error rate where queries of one group are not independent.

Clopper-Pearson on an effective number of queries, n / deff. The design effect deff is the variance
of the group sums over that of as many independent queries, never below 1 (Korn and Graubard).
numpy alone: the core has no scipy, so the incomplete beta function is here.

Sources: Korn and Graubard, "Confidence intervals for proportions with small expected number of
positive counts estimated from survey data", Survey Methodology 24, 1998; the continued fraction:
DLMF 8.17.22, https://dlmf.nist.gov/8.17.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from alc_kernels.metrics.inputs import BoolArray, FloatArray, IntArray

# The variance of group sums is an estimate: its excess over 1 is raised by 3 / (effective number of
# groups with errors), about what Korn and Graubard's ratio of t to normal quantiles does.
_UNCERTAINTY = 3.0
# With fewer effective groups with errors than this, deff at half coverage counts as well.
_FEW = 2.0


def incomplete_beta(a: ArrayLike, b: ArrayLike, x: ArrayLike) -> FloatArray:
    """Regularised incomplete beta function I_x(a, b), the distribution function of Beta(a, b).

    Positive a and b and x in (0, 1), broadcast to one shape (at least (1,)); relative error below
    1e-8 for a + b up to 1e6.
    """
    a, b, x = np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, np.float64)) for v in (a, b, x)))
    swap = x > (a + 1.0) / (a + b + 2.0)  # the fraction converges fast below the mean only
    p, q = np.where(swap, b, a), np.where(swap, a, b)
    y = np.where(swap, 1.0 - x, x)
    constant = np.array(
        [math.lgamma(i + j) - math.lgamma(i) - math.lgamma(j) for i, j in zip(p, q, strict=True)]
    )
    front = np.exp(constant + p * np.log(y) + q * np.log1p(-y)) / p
    value = front / _continued_fraction(p, q, y)
    return np.where(swap, 1.0 - value, value)


def _continued_fraction(p: FloatArray, q: FloatArray, y: FloatArray) -> FloatArray:
    """1 + d_1 y / (1 + d_2 y / (1 + ...)), by Lentz's method."""
    tiny = 1e-300
    fraction, c, d = np.ones_like(p), np.ones_like(p), np.zeros_like(p)
    for k in range(1, 100_000):
        half = k // 2
        if k % 2:
            term = -(p + half) * (p + q + half) * y / ((p + 2 * half) * (p + 2 * half + 1))
        else:
            term = half * (q - half) * y / ((p + 2 * half - 1) * (p + 2 * half))
        d = 1.0 / _away_from_zero(1.0 + term * d, tiny)
        c = _away_from_zero(1.0 + term / c, tiny)
        fraction *= c * d
        if np.abs(c * d - 1.0).max() < 1e-15:
            break
    return fraction


def _away_from_zero(value: FloatArray, tiny: float) -> FloatArray:
    return np.where(np.abs(value) < tiny, tiny, value)


def error_p_value(errors: ArrayLike, queries: ArrayLike, rate: float) -> FloatArray:
    """p-value of "the error rate is at least ``rate``" (Clopper-Pearson); counts may be fractions.

    1 where every query is wrong or there is none.
    """
    errors, queries = np.broadcast_arrays(
        np.atleast_1d(np.asarray(errors, np.float64)), np.asarray(queries, np.float64)
    )
    right = queries - errors
    value = np.ones(errors.shape)
    # at or above the rate no p-value is small: not worth the many terms
    some = (right > 0.0) & (errors < rate * queries)
    if some.any():
        value[some] = incomplete_beta(right[some], errors[some] + 1.0, 1.0 - rate)
    return value


def precision_lower_bound(errors: float, queries: float, level: float) -> float:
    """Clopper-Pearson lower bound of the precision at confidence 1 - ``level``; 0 if none is right.

    From below: the bound returned is at most 1e-9 under the exact one.
    """
    right = queries - errors
    if right <= 0.0:
        return 0.0
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        inner = np.linspace(low, high, 34)[1:-1]
        below = int((incomplete_beta(right, errors + 1.0, inner) <= level).sum())  # it rises
        ends = [low, *inner.tolist(), high]
        low, high = ends[below], ends[below + 1]
    return low


def queries_allowing(errors: IntArray, rate: float, level: float) -> IntArray:
    """The fewest independent queries that refute an error rate with so many errors among them.

    Args:
        errors: (k,) numbers of errors.
        rate: the error rate to refute, in (0, 1).
        level: p-value to reach.

    Returns:
        (k,) the smallest n with ``error_p_value(errors, n, rate) <= level``.
    """
    errors = np.asarray(errors, np.int64)
    low = errors.copy()  # too few: all wrong
    high = errors + 1
    while True:
        short = error_p_value(errors, high, rate) > level
        if not short.any():
            break
        low, high = np.where(short, high, low), np.where(short, 2 * high, high)
    while (high - low > 1).any():
        middle = (low + high) // 2
        enough = error_p_value(errors, middle, rate) <= level
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


class GroupSums(NamedTuple):
    """Sums over groups at T thresholds; m counts a group's accepted queries, e the wrong ones.

    Attributes:
        accepted, wrong: (T,) sums of m and e.
        squares: (T,) sum of m^2.
        mixed: (T,) sum of m e.
        wrong_squares: (T,) sum of e^2.
        groups: (T,) groups with an accepted query.
    """

    accepted: FloatArray
    wrong: FloatArray
    squares: FloatArray
    mixed: FloatArray
    wrong_squares: FloatArray
    groups: FloatArray


def group_sums(group: IntArray, wrong: BoolArray, ends: IntArray) -> GroupSums:
    """The sums after the first ``ends[t]`` queries, best score first.

    Args:
        group: (n,) number of each query's group, from 0.
        wrong: (n,) whether its answer is wrong.
        ends: (T,) rising numbers of accepted queries.
    """
    place = np.argsort(group, kind="stable")  # group after group, best score first
    first = np.append(True, np.diff(group[place]) != 0)
    begin = np.maximum.accumulate(np.where(first, np.arange(len(group)), 0))
    errors = np.append(0.0, np.cumsum(wrong[place]))
    before, before_wrong = np.empty(len(group)), np.empty(len(group))  # m and e it comes upon
    before[place] = np.arange(len(group)) - begin
    before_wrong[place] = errors[:-1] - errors[begin]
    added = (
        np.ones(len(group)),
        wrong,
        2.0 * before + 1.0,
        before_wrong + wrong * (before + 1.0),
        wrong * (2.0 * before_wrong + 1.0),
        before == 0.0,
    )
    return GroupSums(*(np.cumsum(each, dtype=np.float64)[ends - 1] for each in added))


def design_effect(sums: GroupSums, half: int) -> FloatArray:
    """deff at every threshold, (T,), at least 1.

    Variance of the group sums (linearised ratio) over the binomial one. Where no error is seen,
    sum m^2 / sum m: groups that are right or wrong as a whole. Where fewer than two effective
    groups have errors, the larger of this and the value at threshold number ``half``.
    """
    n, wrong = sums.accepted, sums.wrong
    if (sums.squares == n).all():  # groups of one query are independent
        return np.ones_like(n)
    rate = wrong / n
    seen = (wrong > 0.0) & (wrong < n)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = sums.wrong_squares - 2.0 * rate * sums.mixed + rate**2 * sums.squares
        spread *= sums.groups / (sums.groups - 1.0)
        deff = np.maximum(spread / (n * rate * (1.0 - rate)), 1.0)
        erring = wrong**2 / sums.wrong_squares  # effective number of groups with errors
    whole = sums.squares / n
    known = seen & (sums.groups > 1.0)
    erring = np.where(known, erring, 0.0)
    raised = 1.0 + (deff - 1.0) * (1.0 + _UNCERTAINTY / np.maximum(erring, 1.0))
    deff = np.where(known, raised, whole)
    deff = np.where(erring < _FEW, np.maximum(deff, deff[half]), deff)
    return np.where(sums.squares == n, 1.0, deff)


# Which thresholds are tested, in which order, and how the allowed error is shared among them.
#
# The accepted share grows along the sequence. Several places of it are starts, each with an equal
# part of the allowed error; a test that succeeds hands its part on to the next place, where it adds
# to a start's own. So a sequence that gets far ends with the whole error, and one that is stopped
# (two wrong answers at the very top) is taken up again at the next start. That is the fallback
# procedure: the chance that any of the true hypotheses is rejected stays below the allowed error,
# whatever the dependence of the tests.
#
# Places and starts depend on the number of queries and the wanted precision only: at each a given
# number of independent queries' errors would still be allowed, so that no test is lost to whole
# numbers.
#
# Source: Wiens, "A fixed sequence Bonferroni procedure for testing multiple endpoints",
# Pharmaceutical Statistics 2, 2003; Wiens and Dmitrienko, "The fallback procedure for evaluating a
# single family of hypotheses", Journal of Biopharmaceutical Statistics 15, 2005.


_START_ERRORS = (3, 9, 27)  # errors that a start would allow
_LAST_START = 0.5  # starts lie in the best half of the queries
_GROWTH = 0.02  # neighbouring places are one allowed error apart, later 2 % of them


class Plan(NamedTuple):
    """Attributes:
    places: (T,) int64, numbers of accepted queries, rising.
    shares: (T,) float64, the part of the allowed error that begins at each place; sum 1.
    """

    places: IntArray
    shares: FloatArray


@lru_cache(maxsize=64)
def plan(num_queries: int, precision: float, level: float) -> Plan:
    """Places for so many queries, a precision and an allowed error; none if they are too few."""
    rate = 1.0 - precision
    half = _LAST_START * num_queries

    def size(errors: int, part: float) -> int:
        return int(queries_allowing(np.array([errors]), rate, part)[0])

    fitting = [
        count
        for count in range(1, len(_START_ERRORS) + 1)
        if size(_START_ERRORS[count - 1], level / count) <= half
    ]
    if fitting:
        errors = list(_START_ERRORS[: max(fitting)])
    elif size(1, level) <= half:  # so few queries have one start, as early as they allow
        errors = [1]
    elif size(0, level) <= num_queries:
        errors = [0]
    else:
        return Plan(np.zeros(0, np.int64), np.zeros(0))
    count = len(errors)
    starts = [size(e, level / count) for e in errors]
    places = dict.fromkeys(starts, 1.0 / count)
    for k, end in enumerate([*starts[1:], num_queries + 1]):
        steps = _steps(errors[k], int(rate * num_queries) + 2)
        for place in queries_allowing(steps, rate, level * (k + 1) / count).tolist():
            if starts[k] < place < end:
                places.setdefault(place, 0.0)
    places.setdefault(num_queries, 0.0)
    order = sorted(places)
    return Plan(np.array(order, np.int64), np.array([places[place] for place in order]))


def _steps(first: int, last: int) -> IntArray:
    steps = [first]
    while steps[-1] < last:
        steps.append(steps[-1] + max(1, int(_GROWTH * steps[-1])))
    return np.array(steps, np.int64)


def fallback(p_values: FloatArray, levels: FloatArray) -> tuple[BoolArray, FloatArray]:
    """Test in order; a rejected hypothesis hands its level on to the next.

    Args:
        p_values: (T,).
        levels: (T,) what begins at each; their sum bounds the chance of any false rejection.

    Returns:
        (T,) whether each is rejected, and (T,) the level it was tested at.
    """
    rejected, tested = np.zeros(len(levels), np.bool_), levels.copy()
    for place in range(len(levels)):
        rejected[place] = p_values[place] <= tested[place]
        if rejected[place] and place + 1 < len(levels):
            tested[place + 1] += tested[place]
    return rejected, tested
