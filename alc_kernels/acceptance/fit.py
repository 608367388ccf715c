"""Fit on validation by cross-fitting over products, so that no query judges itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from alc_kernels.acceptance.model import AcceptanceModel
from alc_kernels.acceptance.models import (
    LEAST_BOOSTING,
    LEAST_LOGISTIC,
    Boosting,
    Classifier,
    Logistic,
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
        fold: (n,) the part of each query; those of one product are in the same one.
        fold_models: part -> what was fitted on the other parts.
    """

    model: AcceptanceModel
    probabilities: np.ndarray
    top: np.ndarray
    reason: str
    fold: np.ndarray = field(repr=False)
    fold_models: dict[int, AcceptanceModel] = field(repr=False)

    @property
    def top_probability(self) -> np.ndarray:
        """(n,) of the best candidate: what a threshold is put on."""
        return np.take_along_axis(self.probabilities, self.top[:, None], axis=1)[:, 0]

    def out_of_fold(self, features: Features) -> np.ndarray:
        """What models that did not see a query's product say of other candidates of it.

        Args:
            features: of the same n queries, such as against another catalogue.

        Returns:
            (n, m) like :attr:`probabilities`.

        Raises:
            ValueError: another number of queries, or a feature is missing.
        """
        if len(features) != len(self.fold):
            raise ValueError(f"features: found {len(features)} queries, expected {len(self.fold)}")
        return (
            _out_of_fold(features, self.fold, self.fold_models)
            if self.fold_models
            else (self.model.probabilities(features))
        )


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
    lacking = _lacking(right, there, fold)
    kind, reason = _choose(kind, answered, lacking)
    models: dict[int, AcceptanceModel] = {}
    if kind == "none":
        model = AcceptanceModel(features.names, None, answered)
        probabilities = model.probabilities(features)
    else:

        def fitted(rows: np.ndarray) -> AcceptanceModel:
            some = rows[:, None] & there
            classifier = _fit(kind, features.values[some], right[some], seed)
            return AcceptanceModel(features.names, classifier, answered)

        models = {part: fitted(fold != part) for part in np.unique(fold).tolist()}
        model = fitted(np.ones(len(features), np.bool_))
        probabilities = _out_of_fold(features, fold, models)
    ranked = np.where(there, probabilities, -np.inf)
    return Fitted(model, probabilities, ranked.argmax(axis=1), reason, fold, models)


def _out_of_fold(
    features: Features, fold: np.ndarray, models: dict[int, AcceptanceModel]
) -> np.ndarray:
    made = np.zeros(features.candidates.shape)
    for part, model in models.items():
        rows = np.flatnonzero(fold == part)
        made[rows] = model.probabilities(features.take(rows))
    return made


def _lacking(right: np.ndarray, there: np.ndarray, fold: np.ndarray) -> str:
    """Why no model can be fitted without one of the parts; "" where all can."""
    for part in np.unique(fold).tolist():
        told = right[(fold != part)[:, None] & there]
        if told.all() or not told.any():
            return (
                f"outside one of the parts for cross-fitting all candidates are "
                f"{'right' if told.any() else 'wrong'}: too few products"
            )
    return ""


def _choose(kind: str, answered: int, lacking: str) -> tuple[str, str]:
    """(kind, why); ``lacking`` says why no model can be fitted."""
    told = f"{answered:,} validation queries with a right candidate"
    if kind == "none" or (kind == "auto" and answered < LEAST_LOGISTIC):
        least = f", at least {LEAST_LOGISTIC} are needed" if kind == "auto" else ", as asked for"
        return "none", f"no acceptance model, the score decides: {told}{least}"
    if kind != "auto":
        if lacking:
            raise ValueError(f"right: {lacking} to fit {kind!r}")
        return kind, f"{kind}, as asked for; {told}"
    if lacking:
        return "none", f"no acceptance model, the score decides: {lacking}"
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
