"""Bootstrap over labels: all queries of a label, in both splits, come or stay away together.

Labels are drawn once per replicate and used for every run and every figure, which is what makes a
difference between two runs a paired one. Validation is drawn again too: the threshold that a
figure transfers is itself uncertain, and its interval says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from alc_kernels.xmc.evaluation.measures import PRECISIONS, Judged
from alc_kernels.xmc.evaluation.predictions import Predictions

REPLICATES = 1000
CONFIDENCE = 0.95
_CHUNK = 1 << 20  # weights held at once


class LabelDraws:
    """Weights of the validation and test queries, some replicates at a time; equal on every pass.

    Args:
        validation_group, test_group: (N,) first true label of each query; a query without one
            (-1) is its own unit.
        replicates: how many times to draw.
        seed: of the draws.
    """

    def __init__(
        self,
        validation_group: np.ndarray,
        test_group: np.ndarray,
        replicates: int = REPLICATES,
        seed: int = 0,
    ) -> None:
        groups = np.concatenate([validation_group, test_group]).astype(np.int64)
        alone = groups < 0
        groups[alone] = groups.max(initial=0) + 1 + np.arange(int(alone.sum()))
        unique, unit = np.unique(groups, return_inverse=True)
        self.units = len(unique)
        self.replicates = replicates
        self._validation_unit = unit[: len(validation_group)]
        self._test_unit = unit[len(validation_group) :]
        self._seed = seed

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of weights (S, N) and (S, M); the S add up to ``replicates``."""
        generator = np.random.default_rng(self._seed)
        rows = max(1, _CHUNK // max(1, self.units))
        for start in range(0, self.replicates, rows):
            count = min(rows, self.replicates - start)
            drawn = generator.integers(self.units, size=(count, self.units))
            drawn += np.arange(count)[:, None] * self.units  # every replicate has its own bins
            times = np.bincount(drawn.ravel(), minlength=count * self.units)
            times = times.reshape(count, self.units)
            yield times[:, self._validation_unit], times[:, self._test_unit]


def replicate(
    splits: Mapping[str, Predictions],
    precisions: tuple[float, ...] = PRECISIONS,
    replicates: int = REPLICATES,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """One catalogue's figures, and their (replicates,) values under the bootstrap."""
    validation, test = splits["validation"], splits["test"]
    judged = Judged(validation, test, precisions)
    point = judged.values()
    draws = LabelDraws(validation.group, test.group, replicates)
    parts = [judged.replicates(*weights) for weights in draws]
    return point, {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The central ``confidence`` of the (R,) values, NaN left out; NaN if nothing remains."""
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    # Order statistics: an infinite threshold (nothing attains the precision) must stay infinite.
    place = round(tail * (len(values) - 1))
    values = np.sort(values)
    return float(values[place]), float(values[-1 - place])


def mean_replicates(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over runs of their (R,) replicates."""
    return np.mean(np.stack(parts), axis=0)
