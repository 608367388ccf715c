"""From predictions to figures, on the queries as they are and under any weights."""

from __future__ import annotations

import numpy as np

from alc_kernels.metrics import Sweep, opis, sweep
from alc_kernels.xmc.evaluation.measures import PRECISIONS, percent
from alc_kernels.xmc.evaluation.predictions import Predictions

CUTOFFS = (1, 3, 5)  # of PSP
# Means over the answerable queries.
RANKED = ("p1_answerable", "p3", "p5", "ndcg3", "ndcg5", "recall5", "recall10")


class Judged:
    """One catalogue's predictions, sorted once so that re-weighting them is cheap.

    Args:
        validation, test: the two splits' predictions.
        precisions: the precisions whose coverage is asked for.
    """

    def __init__(
        self,
        validation: Predictions,
        test: Predictions,
        precisions: tuple[float, ...] = PRECISIONS,
    ) -> None:
        self.precisions = precisions
        self.validation_order = np.argsort(-validation.top_score, kind="stable")
        self.test_order = np.argsort(-test.top_score, kind="stable")
        self._val_scores = validation.top_score[self.validation_order]
        self._val_correct = validation.correct[self.validation_order]
        self._scores = test.top_score[self.test_order]
        self._correct = test.correct[self.test_order]
        self._answerable = test.answerable[self.test_order]
        self._ranked = ranking_values(test)[self.test_order]
        self._gains, self._ideal = (
            _at_cutoffs(array)[self.test_order] for array in (test.gains.cumsum(axis=1), test.ideal)
        )
        self._groups = test.group[self.test_order]

    def values(self) -> dict[str, float]:
        """Every measure on the queries as they are."""
        made = self.replicates(
            np.ones((1, len(self.validation_order))), np.ones((1, len(self.test_order)))
        )
        point = {key: float(values[0]) for key, values in made.items()}
        point["opis"] = float(opis(self._scores, self._correct, self._groups))
        return point

    def replicates(
        self, validation_weights: np.ndarray, test_weights: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Every measure but OPIS (which knows no weights) under S weightings of the queries.

        Args:
            validation_weights: (S, N) numbers >= 0, in the order of the validation predictions.
            test_weights: (S, M), likewise.

        Returns:
            (S,) values per measure; NaN where a weighting leaves nothing to measure.
        """
        val_w, val_empty = _sorted_weights(validation_weights, self.validation_order)
        test_w, test_empty = _sorted_weights(test_weights, self.test_order)
        made = {"p1": _mean(self._correct, test_w)}
        ranked = _mean(self._ranked, test_w * self._answerable)  # (S, len(RANKED))
        made |= dict(zip(RANKED, ranked.T, strict=True))
        with np.errstate(invalid="ignore"):  # a ratio of means; NaN without any right label
            psp = (test_w @ self._gains) / (test_w @ self._ideal)  # (S, len(CUTOFFS))
        made |= {f"psp{k}": column for k, column in zip(CUTOFFS, psp.T, strict=True)}
        on_test = sweep(self._scores, self._correct, test_w)
        on_validation = sweep(self._val_scores, self._val_correct, val_w)
        for precision in self.precisions:
            made |= self._coverage(precision, on_validation, on_test, test_w)
        made["aurc"] = on_test.aurc()
        return {
            key: np.where(test_empty | val_empty, np.nan, values) for key, values in made.items()
        }

    def _coverage(
        self, precision: float, on_validation: Sweep, on_test: Sweep, test_w: np.ndarray
    ) -> dict[str, np.ndarray]:
        name = percent(precision)
        threshold = on_validation.threshold_at(precision)
        accepted = test_w * (self._scores >= threshold[:, None])  # (S, M)
        return {
            f"coverage_{name}": on_test.coverage_at(precision),
            f"validation_coverage_{name}": on_validation.coverage_at(precision),
            f"transferred_{name}_threshold": threshold,
            f"transferred_{name}_coverage": accepted.sum(axis=1) / test_w.sum(axis=1),
            f"transferred_{name}_precision": _mean(self._correct, accepted),
        }


def _sorted_weights(weights: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (S, N) in sorted order, and (S,) which rows were all zero (they get ones instead)."""
    taken = weights[:, order].astype(np.float64)
    empty = np.asarray(~taken.any(axis=1))
    taken[empty] = 1.0
    return taken, empty


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted means (S,) of values (N,), or (S, m) of (N, m), under weights (S, N).

    NaN where nothing has weight.
    """
    total = weights.sum(axis=1).reshape(-1, *[1] * (values.ndim - 1))
    return np.where(total > 0, weights @ values / np.where(total > 0, total, 1.0), np.nan)


def _at_cutoffs(cumulated: np.ndarray) -> np.ndarray:
    """The columns (N, len(CUTOFFS)) of cumulated sums (N, k) that the cut-offs ask for."""
    return cumulated[:, [min(k, cumulated.shape[1]) - 1 for k in CUTOFFS]]


def ranking_values(found: Predictions) -> np.ndarray:
    """(N, len(RANKED)) what each query adds to the measures :data:`RANKED`.

    The definitions are those of :mod:`alc_kernels.metrics.ranking`, on hits that are known.
    """
    hits, positives = found.hits, found.num_positives
    discount = 1.0 / np.log2(np.arange(2, hits.shape[1] + 2))  # (k,)
    gained, best = np.cumsum(hits * discount, axis=1), np.cumsum(discount)
    made = {}
    for k in (1, 3, 5, 10):
        right = hits[:, :k].sum(axis=1)
        last = min(k, hits.shape[1])
        made[f"p{k}"] = right / k
        made[f"recall{k}"] = right / np.maximum(positives, 1)
        made[f"ndcg{k}"] = gained[:, last - 1] / best[np.clip(positives, 1, last) - 1]
    made["p1_answerable"] = made["p1"]
    return np.stack([made[key] for key in RANKED], axis=1)
