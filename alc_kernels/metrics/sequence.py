"""Which thresholds are tested, in which order, and how the allowed error is shared among them.

The accepted share grows along the sequence. Several places of it are starts, each with an equal
part of the allowed error; a test that succeeds hands its part on to the next place, where it adds
to a start's own. So a sequence that gets far ends with the whole error, and one that is stopped
(two wrong answers at the very top) is taken up again at the next start. That is the fallback
procedure: the chance that any of the true hypotheses is rejected stays below the allowed error,
whatever the dependence of the tests.

Places and starts depend on the number of queries and the wanted precision only: at each a given
number of independent queries' errors would still be allowed, so that no test is lost to whole
numbers.

Source: Wiens, "A fixed sequence Bonferroni procedure for testing multiple endpoints",
Pharmaceutical Statistics 2, 2003; Wiens and Dmitrienko, "The fallback procedure for evaluating a
single family of hypotheses", Journal of Biopharmaceutical Statistics 15, 2005.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from alc_kernels.metrics.bounds import queries_allowing
from alc_kernels.metrics.inputs import BoolArray, FloatArray, IntArray

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
