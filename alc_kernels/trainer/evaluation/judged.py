"""From predictions to figures, on the queries as they are and under any weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from alc_kernels.metrics import Sweep, opis, precision_coverage_curve, sweep
from alc_kernels.metrics.bootstrap import ClusterDraws, percentile_bounds
from alc_kernels.trainer.evaluation.certificates import certify
from alc_kernels.trainer.evaluation.predictions import Predictions, Splits

# The figures of a run: what each is called and what it means.


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
            f"validation_coverage_{name}",
            f"validation C@{short}",
            "the same on validation: what a choice between runs may look at",
        ),
        Measure(
            f"certified_{name}_threshold",
            f"certified threshold {short}",
            f"lowest score from which {wanted} is certified on validation: the one to ship",
            None,
        ),
        Measure(
            f"certified_{name}_validation",
            f"validation certified {short}",
            "share of validation queries accepted at it: what the choice to ship looks at",
        ),
        Measure(
            f"certified_{name}_coverage", f"certified {short}",
            "share of test queries accepted at it",
        ),
        Measure(
            f"certified_{name}_precision", f"precision of certified {short}",
            "precision among them", None,
        ),
        Measure(
            f"transferred_{name}_threshold",
            f"plug-in threshold {short}",
            f"lowest score that attains {wanted} on validation: promises nothing",
            None,
        ),
        Measure(
            f"transferred_{name}_coverage",
            f"plug-in accepted {short}",
            "share of test queries accepted at it",
        ),
        Measure(
            f"transferred_{name}_precision",
            f"precision of plug-in {short}",
            "precision among them: about as often below the one wanted as above",
            None,
        ),
    ]  # fmt: skip


MEASURES: tuple[Measure, ...] = (
    Measure("p1", "P@1", "share of all queries whose best label is right"),
    Measure("p1_answerable", "P@1 answerable", "the same over queries that have a right label"),
    Measure("p3", "P@3", "right labels among the first three, over three, answerable queries"),
    Measure("p5", "P@5", "right labels among the first five, over five, answerable queries"),
    Measure("ndcg3", "nDCG@3", "discounted gain of the first three over the best attainable"),
    Measure("ndcg5", "nDCG@5", "discounted gain of the first five over the best attainable"),
    Measure("psp1", "PSP@1", "P@1 with rare labels counting for more, over the best attainable"),
    Measure("psp3", "PSP@3", "P@3 with rare labels counting for more, over the best attainable"),
    Measure("psp5", "PSP@5", "P@5 with rare labels counting for more, over the best attainable"),
    Measure("recall5", "R@5", "share of a query's right labels among the first five"),
    Measure("recall10", "R@10", "share of a query's right labels among the first ten"),
    *(measure for precision in PRECISIONS for measure in coverage_measures(precision)),
    Measure("aurc", "AURC", "area under the risk-coverage curve", False),
    Measure("opis", "OPIS", "how much one threshold's utility differs between labels", False),
)
BY_KEY = {measure.key: measure for measure in MEASURES}


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
        self.certified = {p: certify(validation, p) for p in precisions}
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
        for precision, found in self.certified.items():
            point[f"certified_{percent(precision)}_validation"] = found.coverage
        point["opis"] = float(opis(self._scores, self._correct, self._groups))
        return point

    def replicates(
        self, validation_weights: np.ndarray, test_weights: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Every measure but OPIS and what is certified of validation, under S weightings.

        Certified thresholds stay as they are: an interval says what they give, not how they would
        fall on other validation queries.

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
        made = {
            f"coverage_{name}": on_test.coverage_at(precision),
            f"validation_coverage_{name}": on_validation.coverage_at(precision),
        }
        plug_in = on_validation.threshold_at(precision)
        certified = np.full(len(plug_in), self.certified[precision].threshold)
        for kind, threshold in (("certified", certified), ("transferred", plug_in)):
            accepted = test_w * (self._scores >= threshold[:, None])  # (S, M)
            made[f"{kind}_{name}_threshold"] = threshold
            made[f"{kind}_{name}_coverage"] = accepted.sum(axis=1) / test_w.sum(axis=1)
            made[f"{kind}_{name}_precision"] = _mean(self._correct, accepted)
        return made


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


# Bootstrap over labels: all queries of a label, in both splits, come or stay away together.
#
# Labels are drawn once per replicate and used for every run and every figure, which is what makes a
# difference between two runs a paired one. Validation is drawn again too: the threshold that a
# figure transfers is itself uncertain, and its interval says so.


REPLICATES = 1000
CONFIDENCE = 0.95


def label_draws(
    splits: Mapping[str, Predictions], replicates: int = REPLICATES, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Weights (S, N) of the validation and (S, M) of the test queries, some replicates at a time.

    Equal on every pass. A query's unit is its first true label; one without (-1) is its own.
    """
    validation, test = splits["validation"].group, splits["test"].group
    groups = np.concatenate([validation, test]).astype(np.int64)
    for weights in ClusterDraws(groups, len(groups), replicates, seed):
        yield weights[:, : len(validation)], weights[:, len(validation) :]


def replicate(
    splits: Mapping[str, Predictions],
    precisions: tuple[float, ...] = PRECISIONS,
    replicates: int = REPLICATES,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """One catalogue's figures, and their (replicates,) values under the bootstrap."""
    judged = Judged(splits["validation"], splits["test"], precisions)
    point = judged.values()
    parts = [judged.replicates(*weights) for weights in label_draws(splits, replicates)]
    return point, {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The central ``confidence`` of the (R,) values, NaN left out; NaN if nothing remains."""
    low, high, _ = percentile_bounds(values, confidence)
    return low, high


# Figures with their intervals.


@dataclass(frozen=True)
class Estimate:
    """A figure and the bounds of its 95 % bootstrap interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


Figures = Mapping[str, Mapping[str, Estimate]]  # catalogue -> measure -> estimate


def estimate(value: float, replicates: np.ndarray | None) -> Estimate:
    """A point value with the interval of its replicates (R,)."""
    low, high = (math.nan, math.nan) if replicates is None else interval(replicates)
    return Estimate(value, low, high)


def figures(
    predictions: Splits,
    precisions: tuple[float, ...] = PRECISIONS,
    replicates: int = REPLICATES,
) -> dict[str, dict[str, Estimate]]:
    """Every measure of a run, on test, with its interval."""
    made = {}
    for catalogue, splits in predictions.items():
        point, drawn = replicate(splits, precisions, replicates)
        made[catalogue] = {key: estimate(v, drawn.get(key)) for key, v in point.items()}
    return made


# The precision-coverage curve with the band that its bootstrap gives.


GRID = np.linspace(0.01, 1.0, 100)  # the first percent of the queries is too few to tell


class CurveBand(NamedTuple):
    """Precision at the coverages (T,), and the bounds of its 95 % interval there, all (T,)."""

    coverage: np.ndarray
    precision: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curve_band(
    splits: Mapping[str, Predictions], replicates: int = REPLICATES, grid: np.ndarray = GRID
) -> CurveBand:
    """One catalogue's curve on test, at the coverages ``grid``, each point with its interval.

    The interval is pointwise: at every coverage by itself, 95 % of the replicates lie within.
    Queries of one score are accepted together, so precision between two reachable coverages is
    interpolated.
    """
    test = splits["test"]
    curve = precision_coverage_curve(test.top_score, test.correct)
    precision = np.interp(grid, curve.coverage, curve.precision)

    order = np.argsort(-test.top_score, kind="stable")
    scores, correct = test.top_score[order], test.correct[order]
    ends = np.append(scores[1:] != scores[:-1], True)  # last query of each tied run
    drawn = []
    for _, weights in label_draws(splits, replicates):
        for row in weights[:, order]:
            accepted, right = np.cumsum(row)[ends], np.cumsum(row * correct)[ends]
            if accepted[-1] == 0:  # no test query in this replicate
                continue
            some = accepted > 0
            share = accepted[some] / accepted[-1]
            drawn.append(np.interp(grid, share, right[some] / accepted[some]))
    bounds = np.array([interval(column) for column in np.array(drawn).T])
    return CurveBand(grid, precision, bounds[:, 0], bounds[:, 1])
