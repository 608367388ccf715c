"""Drawing clusters of queries with replacement, and the interval that the replicates make.

The one place where the bootstrap draws: the intervals of single metrics and those of whole runs
(validation and test drawn together) come from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from alc_kernels.metrics.inputs import FloatArray, IntArray, as_groups, check_lengths

if TYPE_CHECKING:
    from alc_kernels.metrics.inputs import ArrayLike

_CHUNK_ELEMENTS = 1 << 21  # weights held at once, 16 MB: larger chunks fall out of the cache


class ClusterDraws:
    """Replicates as weights: how often each query's cluster was drawn. Equal on every pass.

    Args:
        groups: (n,) cluster of each query: integers or strings. A negative integer means "no
            cluster": that query is one of its own. None: every query is.
        num_queries: n.
        num_samples: replicates, each of as many clusters as there are.
        seed: of the draws.

    Attributes:
        cluster: (n,) number of each query's cluster: the given ones in their order, then the
            queries that are alone.
        num_clusters: how many there are.
    """

    def __init__(
        self, groups: ArrayLike | None, num_queries: int, num_samples: int = 1000, seed: int = 0
    ) -> None:
        self.num_samples, self.seed = num_samples, seed
        self.cluster, self.num_clusters = _number(groups, num_queries)

    def __iter__(self) -> Iterator[IntArray]:
        """Weights (S, n) int64, some replicates at a time; the S add up to ``num_samples``."""
        generator = np.random.default_rng(self.seed)
        count = self.num_clusters
        size = max(1, _CHUNK_ELEMENTS // max(1, len(self.cluster)))
        for start in range(0, self.num_samples, size):
            rows = min(size, self.num_samples - start)
            drawn = generator.integers(count, size=(rows, count))
            drawn += np.arange(rows)[:, None] * count  # each replicate counts in its own bins
            times = np.bincount(drawn.ravel(), minlength=rows * count)
            yield times.reshape(rows, count).take(self.cluster, axis=1)


def percentile_bounds(replicates: FloatArray, confidence: float) -> tuple[float, float, int]:
    """(low, high, number of NaN) of the central ``confidence`` of the (R,) replicates.

    Order statistics, counted alike from both ends: exchanging two systems mirrors the interval,
    and infinite replicates (a threshold that no score attains) need no arithmetic. NaN replicates
    are left out; low and high are NaN if nothing remains.
    """
    defined = np.sort(replicates[~np.isnan(replicates)])
    undefined = len(replicates) - len(defined)
    if not len(defined):
        return float("nan"), float("nan"), undefined
    tail = round((1.0 - confidence) / 2.0 * (len(defined) - 1))
    return float(defined[tail]), float(defined[-1 - tail]), undefined


def _number(groups: ArrayLike | None, num_queries: int) -> tuple[IntArray, int]:
    if groups is None:
        return np.arange(num_queries), num_queries
    labels = as_groups(groups)
    check_lengths("the arrays", num_queries, "groups", len(labels))
    alone = labels < 0 if labels.dtype.kind == "i" else np.zeros(num_queries, np.bool_)
    cluster = np.empty(num_queries, np.int64)
    names, cluster[~alone] = np.unique(labels[~alone], return_inverse=True)
    count = len(names) + int(alone.sum())
    cluster[alone] = np.arange(len(names), count)
    return cluster, count
