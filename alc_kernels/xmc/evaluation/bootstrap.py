"""Bootstrap over labels: all queries of a label, in both splits, come or stay away together.

Labels are drawn once per replicate and used for every run and every figure, which is what makes a
difference between two runs a paired one. Validation is drawn again too: the threshold that a
figure transfers is itself uncertain, and its interval says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from alc_kernels.metrics.bootstrap import ClusterDraws, percentile_bounds
from alc_kernels.xmc.evaluation.judged import Judged
from alc_kernels.xmc.evaluation.measures import PRECISIONS
from alc_kernels.xmc.evaluation.predictions import Predictions

REPLICATES = 1000
CONFIDENCE = 0.95


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
        self._draws = ClusterDraws(groups, len(groups), replicates, seed)
        self._num_validation = len(validation_group)

    @property
    def units(self) -> int:
        """How many labels, and queries without one, are drawn from."""
        return self._draws.num_clusters

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of weights (S, N) and (S, M); the S add up to ``replicates``."""
        for weights in self._draws:
            yield weights[:, : self._num_validation], weights[:, self._num_validation :]


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
    low, high, _ = percentile_bounds(values, confidence)
    return low, high
