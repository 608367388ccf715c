"""Figures and intervals that were published once must not move: one small case, written down."""

import numpy as np
import pytest

from alc_kernels.trainer.evaluation import Predictions
from alc_kernels.trainer.evaluation.judged import estimate, replicate

# Measure -> value and 95 % interval, as the version of the published PriceRunner table gave them.
PUBLISHED = {
    "p1": (0.8318181818181818, 0.7830188679245284, 0.8755020080321285),
    "p1_answerable": (0.8591549295774648, 0.8165938864628821, 0.8990825688073395),
    "p5": (0.2704225352112677, 0.2532818532818533, 0.28725490196078424),
    "coverage_90": (0.8727272727272727, 0.7962085308056872, 0.9695652173913043),
    "transferred_90_threshold": (0.800000011920929, 0.6859999895095825, 0.9990000128746033),
    "transferred_90_coverage": (0.9, 0.017467248908296942, 0.9829059829059829),
    "transferred_90_precision": (0.8888888888888888, 0.8277511961722488, 1.0),
    "coverage_95": (0.7772727272727272, 0.024630541871921183, 0.865546218487395),
    "transferred_95_threshold": (0.9990000128746033, 0.8019999861717224, 0.9990000128746033),
    "transferred_95_coverage": (0.01818181818181818, 0.004347826086956522, 0.9053497942386831),
    "transferred_95_precision": (1.0, 0.8571428571428571, 1.0),
    "aurc": (0.05711894516536586, 0.024934844905524917, 0.10560476033973012),
}


def predictions(size, seed):
    """Drawn predictions with tied scores, and some queries without any label."""
    generator = np.random.default_rng(seed)
    group = generator.integers(60, size=size)
    group[generator.random(size) < 0.05] = -1
    positives = np.where(group < 0, 0, 1 + (generator.random(size) < 0.3)).astype(np.int64)
    scores = -np.sort(-np.round(generator.random((size, 10)), 3), axis=1).astype(np.float32)
    hits = (generator.random((size, 10)) < 0.12) & (positives > 0)[:, None]
    chance = np.clip(6.0 * (scores[:, 0] - 0.72), 0.1, 0.99)
    hits[:, 0] = (generator.random(size) < chance) & (positives > 0)
    return Predictions(
        indices=np.zeros((size, 10), np.int64),
        scores=scores,
        hits=hits,
        gains=hits.astype(np.float64),
        ideal=np.ones((size, 10)),
        num_positives=positives,
        group=group,
    )


def test_published_figures_stay():
    point, drawn = replicate({"validation": predictions(150, 1), "test": predictions(220, 2)})
    for key, expected in PUBLISHED.items():
        got = estimate(point[key], drawn[key])
        assert (got.value, got.low, got.high) == pytest.approx(expected, rel=1e-12), key
