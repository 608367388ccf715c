"""The figures of a run: what each is called, and how it follows from the predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alc_kernels.metrics import aurc, coverage_at_precision, opis, threshold_at_precision
from alc_kernels.xmc.evaluation.predictions import Predictions

PRECISIONS = (0.9, 0.95)


def percent(precision: float) -> str:
    """``0.9`` -> ``"90"``, ``0.975`` -> ``"97.5"``: precision as it stands in names."""
    return f"{precision * 100:.10g}"


@dataclass(frozen=True)
class Measure:
    """One figure.

    Attributes:
        key: its name in ``metrics.json``.
        title: its heading in a table.
        meaning: one line for the reader.
        higher_is_better: True, False, or None for a figure that is neither.
    """

    key: str
    title: str
    meaning: str
    higher_is_better: bool | None = True


def coverage_measures(precision: float) -> list[Measure]:
    """Coverage at ``precision``, and what its validation threshold gives on test."""
    name, short = percent(precision), f"{precision:g}".removeprefix("0")
    wanted = f"precision {precision:g}"
    return [
        Measure(
            f"coverage_{name}",
            f"C@{short}",
            f"largest share of queries that can be accepted at {wanted}, threshold read on test",
        ),
        Measure(
            f"transferred_{name}_threshold",
            f"threshold {short}",
            f"lowest score that attains {wanted} on validation: the one to ship",
            None,
        ),
        Measure(
            f"transferred_{name}_coverage",
            f"transferred coverage {short}",
            "share of test queries accepted at the validation threshold",
        ),
        Measure(
            f"transferred_{name}_precision",
            f"its precision {short}",
            "precision among them",
            None,
        ),
    ]


MEASURES: tuple[Measure, ...] = (
    Measure("p1", "P@1", "share of all queries whose best label is right"),
    Measure("p1_answerable", "P@1 answerable", "the same over queries that have a right label"),
    Measure("p5", "P@5", "right labels among the first five, over five, answerable queries"),
    *(measure for precision in PRECISIONS for measure in coverage_measures(precision)),
    Measure("aurc", "AURC", "area under the risk-coverage curve", False),
    Measure("opis", "OPIS", "how much one threshold's utility differs between labels", False),
)
BY_KEY = {measure.key: measure for measure in MEASURES}


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
        self._hits5 = test.hits[self.test_order, :5].sum(axis=1) / 5.0
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
        made = {
            "p1": _mean(self._correct, test_w),
            "p1_answerable": _mean(self._correct, test_w * self._answerable),
            "p5": _mean(self._hits5, test_w * self._answerable),
        }
        for precision in self.precisions:
            made |= self._coverage(precision, val_w, test_w)
        made["aurc"] = np.asarray(aurc(self._scores, self._correct, weights=test_w))
        return {
            key: np.where(test_empty | val_empty, np.nan, values) for key, values in made.items()
        }

    def _coverage(
        self, precision: float, val_w: np.ndarray, test_w: np.ndarray
    ) -> dict[str, np.ndarray]:
        name = percent(precision)
        threshold = np.asarray(
            threshold_at_precision(self._val_scores, self._val_correct, precision, weights=val_w)
        )
        accepted = test_w * (self._scores >= threshold[:, None])  # (S, M)
        coverage = coverage_at_precision(self._scores, self._correct, precision, weights=test_w)
        return {
            f"coverage_{name}": np.asarray(coverage),
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
    """The weighted means (S,) of values (N,) under weights (S, N); NaN where nothing has weight."""
    total = weights.sum(axis=1)
    return np.where(total > 0, weights @ values / np.where(total > 0, total, 1.0), np.nan)
