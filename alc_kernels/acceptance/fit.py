"""Fit on validation by cross-fitting over products, so that no query judges itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alc_kernels.acceptance.model import AcceptanceModel
from alc_kernels.acceptance.models import (
    LEAST_BOOSTING,
    LEAST_LOGISTIC,
    Boosting,
    Classifier,
    Logistic,
    sigmoid,
)
from alc_kernels.acceptance.table import Features

KINDS = ("auto", "boosting", "logistic", "none")


@dataclass(frozen=True)
class Fitted:
    """What :func:`fit_acceptance` found.

    Attributes:
        model: fitted on all queries: the one to use on new ones.
        probabilities: (n, m) out of fold: what models that did not see a query's product say of
            its candidates, 0 where there is none. Thresholds are certified on these. With the kind
            ``"none"`` the scores themselves, -inf where there is none.
        top: (n,) place of each query's best candidate.
        reason: which model, and why.
    """

    model: AcceptanceModel
    probabilities: np.ndarray
    top: np.ndarray
    reason: str

    @property
    def top_probability(self) -> np.ndarray:
        """(n,) of the best candidate: what a threshold is put on."""
        return np.take_along_axis(self.probabilities, self.top[:, None], axis=1)[:, 0]


def fit_acceptance(
    features: Features,
    right: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    kind: str = "auto",
    folds: int = 5,
    seed: int = 0,
) -> Fitted:
    """Learn which candidates are right.

    Args:
        features: of the candidates of n queries that no part of the search was trained on.
        right: (n, m) bool, whether each candidate is right; all False for a query whose product
            is missing.
        groups: (n,) the product of each query, as for
            :func:`~alc_kernels.metrics.certified_threshold`; None or a negative number: each query
            by itself.
        kind: ``"logistic"``, ``"boosting"``, ``"none"`` (the score decides), or ``"auto"``: by the
            number of queries with a right candidate, none below 60, logistic below 700.
        folds: parts for cross-fitting.
        seed: of the parts and of the trees.

    Returns:
        The model and its out-of-fold probabilities; the same bits for the same arguments.

    Raises:
        ValueError: shapes or names that do not fit; a kind that is unknown, or that has too little
            to be fitted on; kind "none" without a feature ``score``.
    """
    right = np.asarray(right)
    if right.shape != features.candidates.shape or right.dtype != np.bool_:
        raise ValueError(
            f"right: found shape {right.shape} and dtype {right.dtype}, expected "
            f"{features.candidates.shape} bool"
        )
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")
    if folds < 2:
        raise ValueError(f"folds={folds}: expected at least 2")
    there = features.candidates >= 0
    fold = _folds(groups, len(features), folds, seed)
    answered = int((right & there).any(axis=1).sum())
    kind, reason = _choose(kind, answered, bool((there & ~right).any()))
    if kind == "none":
        model = AcceptanceModel(features.names, None, answered)
        return _judged(model, model.probabilities(features), features, reason)
    probabilities = np.zeros(features.candidates.shape)
    for part in range(folds):
        own = (fold == part)[:, None] & there
        others = (fold != part)[:, None] & there
        told = right[others]
        if not own.any():
            continue
        if told.all() or not told.any():
            raise ValueError(
                f"right: outside fold {part + 1} of {folds} all candidates are "
                f"{'right' if told.any() else 'wrong'}: too few products to fit {kind!r}"
            )
        fitted = _fit(kind, features.values[others], told, seed)
        probabilities[own] = sigmoid(fitted.logits(features.values[own]))
    classifier = _fit(kind, features.values[there], right[there], seed)
    model = AcceptanceModel(features.names, classifier, answered)
    return _judged(model, probabilities, features, reason)


def _judged(
    model: AcceptanceModel, probabilities: np.ndarray, features: Features, reason: str
) -> Fitted:
    ranked = np.where(features.candidates < 0, -np.inf, probabilities)
    return Fitted(model, probabilities, ranked.argmax(axis=1), reason)


def _choose(kind: str, answered: int, both: bool) -> tuple[str, str]:
    told = f"{answered:,} validation queries with a right candidate"
    if kind != "auto":
        return kind, f"{kind}, as asked for; {told}"
    if answered < LEAST_LOGISTIC or not both:
        least = f"at least {LEAST_LOGISTIC} are needed" if both else "and no wrong candidate"
        return "none", f"no acceptance model, the score decides: {told}, {least}"
    if answered < LEAST_BOOSTING:
        return "logistic", f"logistic regression: {told}, fewer than {LEAST_BOOSTING}"
    return "boosting", f"boosting: {told}"


def _fit(kind: str, values: np.ndarray, right: np.ndarray, seed: int) -> Classifier:
    return Logistic.fit(values, right) if kind == "logistic" else Boosting.fit(values, right, seed)


def _folds(groups: np.ndarray | None, count: int, folds: int, seed: int) -> np.ndarray:
    """(n,) the part of each query; those of one product are in the same one."""
    if groups is None:
        number = np.arange(count)
    else:
        groups = np.asarray(groups)
        if groups.shape != (count,):
            raise ValueError(f"groups: found shape {groups.shape}, expected ({count},)")
        number = np.unique(groups, return_inverse=True)[1].astype(np.int64)
        if groups.dtype.kind in "if":
            alone = groups < 0
            number[alone] = count + np.arange(int(alone.sum()))
            number = np.unique(number, return_inverse=True)[1]
    spread = np.arange(number.max(initial=0) + 1) % folds
    return np.random.default_rng(seed).permutation(spread)[number]
