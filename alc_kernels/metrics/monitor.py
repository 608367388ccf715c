"""Watching a promised precision while reviewed matches come back.

A bet against the promise: the wealth is multiplied, once per group, by 1 + lambda D, where D is
the group's wrong matches minus the (1 - p) of its accepted ones that the promise allows. As long
as the promise is kept D has a mean of at most 0, so the wealth is a supermartingale, and the chance
that it ever reaches 1 / a is at most a (Ville): one may look as often as one likes. Several lambda
bet side by side, each with an equal part of the wealth.

Sources: Ville, "Etude critique de la notion de collectif", 1939; Waudby-Smith and Ramdas,
"Estimating means of bounded random variables by betting", JRSS B 86, 2024; mixtures: Robbins,
"Statistical methods related to the law of the iterated logarithm", Ann. Math. Stat. 41, 1970.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from alc_kernels.metrics.bootstrap import ClusterDraws
from alc_kernels.metrics.inputs import as_correct, as_count, as_groups, as_rate, check_lengths

if TYPE_CHECKING:
    from alc_kernels.metrics.inputs import ArrayLike

    State = Literal["valid", "weakened", "void"]

_BETS = 0.9 * 0.5 ** np.arange(10)  # of the largest lambda that no group can bankrupt


class PrecisionMonitor:
    """The evidence that fewer than ``precision`` of the accepted matches are right.

    A group is counted once, with the decisions of the call that shows it first: what comes later
    is not independent of them, and is set aside. A group of more than ``largest_group`` decisions
    counts as that many, in proportion.

    Args:
        precision: the promised p, strictly between 0 and 1.
        confidence: of the promise, strictly between 0 and 1.
        largest_group: decisions that one group may weigh; the bets are bounded by it.

    Attributes:
        state: ``"void"`` once the evidence has reached 1 / (1 - confidence), for good; a kept
            promise ever gets there with a chance of at most 1 - confidence. ``"weakened"`` while it
            is at least the square root of that: reason to review more. Else ``"valid"``.
        evidence: the wealth of the bet now, 1 at the start.
        reviewed, wrong: decisions counted so far, and the wrong ones among them.
        num_groups: groups they belong to.
        set_aside: decisions of groups that an earlier call had shown.
    """

    def __init__(self, precision: float, confidence: float = 0.95, largest_group: int = 1) -> None:
        self.precision = as_rate(precision, "precision", open_ends=True)
        self.confidence = as_rate(confidence, "confidence", open_ends=True)
        self.largest_group = as_count(largest_group, "largest_group")
        self.reviewed = self.wrong = self.num_groups = self.set_aside = 0
        self._bets = _BETS / ((1.0 - self.precision) * self.largest_group)
        self._log_wealth = np.zeros(len(self._bets))
        self._void = False
        self._seen: set[object] = set()

    @property
    def evidence(self) -> float:
        top = float(self._log_wealth.max())
        log = top + math.log(float(np.exp(self._log_wealth - top).mean()))
        return math.exp(min(log, 700.0))  # beyond, no float holds it

    @property
    def state(self) -> State:
        if self._void:
            return "void"
        return "weakened" if self.evidence >= (1.0 - self.confidence) ** -0.5 else "valid"

    def update(self, correct: ArrayLike, groups: ArrayLike | None = None) -> State:
        """Count reviewed matches; the state after them.

        They must be all accepted matches of a time, or a random part of them: decisions picked for
        what they teach speak of another precision.

        Args:
            correct: (n,) whether each accepted match is right, booleans or 0/1.
            groups: (n,) product of each, integers or strings; a negative integer, or None for all,
                means a group of its own.

        Raises:
            ValueError: empty input, ``correct`` not 0/1, or lengths that disagree.
        """
        right = as_correct(correct)
        named = None if groups is None else as_groups(groups)
        if named is not None:
            check_lengths("correct", len(right), "groups", len(named))
        clusters = ClusterDraws(named, len(right))
        group, count = clusters.cluster, clusters.num_clusters
        size = np.bincount(group, minlength=count)
        wrong = np.bincount(group, weights=~right, minlength=count)
        new = np.ones(count, np.bool_)
        if named is not None:
            first = np.unique(group, return_index=True)[1]  # a query of each group
            for place, name in enumerate(named[first].tolist()):
                if isinstance(name, int) and name < 0:
                    continue
                new[place] = name not in self._seen
                self._seen.add(name)
        self.reviewed += int(size[new].sum())
        self.wrong += int(wrong[new].sum())
        self.num_groups += int(new.sum())
        self.set_aside += int(size[~new].sum())
        beyond = wrong[new] - (1.0 - self.precision) * size[new]  # (G,) more wrong than allowed
        beyond *= np.minimum(1.0, self.largest_group / size[new])
        self._bet(beyond)
        return self.state

    def _bet(self, beyond: np.ndarray) -> None:
        """Group after group, so that the wealth is looked at after each."""
        gains = np.cumsum(np.log1p(beyond[:, None] * self._bets), axis=0) + self._log_wealth
        if not len(gains):
            return
        top = gains.max(axis=1, keepdims=True)  # (G, 1)
        log_wealth = top[:, 0] + np.log(np.exp(gains - top).mean(axis=1))
        self._void |= bool(log_wealth.max() >= -math.log(1.0 - self.confidence))
        self._log_wealth = gains[-1]
