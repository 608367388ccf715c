"""The precision-coverage curve with the band that its bootstrap gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from alc_kernels.metrics import precision_coverage_curve
from alc_kernels.xmc.evaluation.bootstrap import REPLICATES, LabelDraws, interval
from alc_kernels.xmc.evaluation.predictions import Predictions

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
    for _, weights in LabelDraws(splits["validation"].group, test.group, replicates):
        for row in weights[:, order]:
            accepted, right = np.cumsum(row)[ends], np.cumsum(row * correct)[ends]
            if accepted[-1] == 0:  # no test query in this replicate
                continue
            some = accepted > 0
            share = accepted[some] / accepted[-1]
            drawn.append(np.interp(grid, share, right[some] / accepted[some]))
    bounds = np.array([interval(column) for column in np.array(drawn).T])
    return CurveBand(grid, precision, bounds[:, 0], bounds[:, 1])
