"""Bootstrap intervals that resample clusters of queries.

Queries of one label rise and fall together, so resampling single queries would make intervals
too narrow: all queries of a drawn cluster enter a replicate together. A replicate is held as a
weight per query (how often its cluster was drawn), so that statistics which take ``weights``
never re-index, and sort once for many replicates.

Source: Davison and Hinkley, "Bootstrap methods and their application", 1997, ch. 2.4 and 3.8.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alc_kernels.metrics.inputs import (
    FloatArray,
    IntArray,
    Relation,
    as_count,
    as_groups,
    as_rate,
    as_relation,
    check_lengths,
    to_numpy,
)

if TYPE_CHECKING:
    from alc_kernels.metrics.inputs import ArrayLike

# Drawing clusters of queries with replacement, and the interval that the replicates make.
#
# The one place where the bootstrap draws: the intervals of single metrics and those of whole runs
# (validation and test drawn together) come from here.


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


if TYPE_CHECKING:
    Statistic = Callable[..., Any]
    Run = tuple[Any, ...]


class Interval(NamedTuple):
    """A statistic and its percentile bootstrap interval.

    Attributes:
        estimate: on the queries as given.
        low: lower end.
        high: upper end.
        num_undefined: replicates where the statistic was NaN; they are left out of low and high.
    """

    estimate: float
    low: float
    high: float
    num_undefined: int = 0


def bootstrap_interval(
    statistic: Statistic,
    *arrays: Any,
    groups: ArrayLike | None = None,
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic of per-query arrays.

    Args:
        statistic: called as ``statistic(*arrays)``. If it has a parameter named ``weights``,
            replicates are evaluated many at once as ``statistic(*arrays, weights=w)`` with w
            (S, n) float64 and must come back as (S,), as the metrics here do, for instance
            ``functools.partial(coverage_at_precision, precision=0.9)``. Otherwise it is called
            once per replicate on re-indexed arrays.
        arrays: per-query arrays or tensors of length n, or relations (see ``precision_at_k``).
        groups: (n,) cluster of each query, usually its label: integers or strings. A negative
            integer means "no label": that query is a cluster of its own. None: every query is.
        num_samples: replicates, each of as many clusters as there are, drawn with replacement.
        confidence: strictly between 0 and 1.
        seed: the same seed gives the same interval.

    Returns:
        ``Interval(estimate, low, high, num_undefined)``: low and high are order statistics of the
        replicates, without interpolation; NaN replicates are left out and counted.

    Raises:
        ValueError: no arrays, lengths that disagree, a confidence or number of samples out of
            range, or a weighted statistic that does not return one value per weight row.
    """
    return _interval(statistic, [[arrays]], groups, num_samples, confidence, seed)


def paired_bootstrap(
    statistic: Statistic,
    first: Run | list[Run],
    second: Run | list[Run],
    *,
    groups: ArrayLike | None = None,
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of the difference ``first - second`` of two systems on the same queries.

    Args:
        statistic, groups, num_samples, confidence, seed: as for :func:`bootstrap_interval`.
        first, second: one run, a tuple of per-query arrays such as ``(scores, correct)``, or a
            list of such tuples, one per training seed. A replicate draws the clusters once,
            evaluates the statistic for every run of both systems on them and averages over each
            system's runs; the numbers of runs may differ. Query i is the same query in all runs.

    Returns:
        ``Interval(estimate, low, high, num_undefined)`` of the difference. It speaks of the
        sampling of queries, given these runs; the spread between training seeds is only averaged.

    Raises:
        ValueError: as :func:`bootstrap_interval`; a system without runs.
        TypeError: a run that is not a tuple.
    """
    systems = [_runs(first, "first"), _runs(second, "second")]
    return _interval(statistic, systems, groups, num_samples, confidence, seed)


def _runs(system: Run | list[Run], name: str) -> list[Run]:
    runs = system if isinstance(system, list) else [system]
    if not runs:
        raise ValueError(f"{name} is empty: expected at least one run")
    for run in runs:
        if not isinstance(run, tuple):
            raise TypeError(
                f"{name} must be a tuple of per-query arrays or a list of such tuples, "
                f"got a {type(run).__name__}"
            )
    return runs


def _interval(
    statistic: Statistic,
    systems: Sequence[Sequence[Run]],
    groups: ArrayLike | None,
    num_samples: int,
    confidence: float,
    seed: int,
) -> Interval:
    num_samples = as_count(num_samples, "num_samples")
    confidence = as_rate(confidence, "confidence", open_ends=True)
    prepared = [[tuple(map(_prepare, run)) for run in system] for system in systems]
    num_queries = _num_queries([run for system in prepared for run in system])
    weighted = _takes_weights(statistic)

    def value(evaluate: Callable[[Run], Any]) -> Any:
        """Mean over a system's runs; of two systems, the difference."""
        means = [np.mean([evaluate(run) for run in runs], axis=0) for runs in prepared]
        return means[0] - means[1] if len(means) == 2 else means[0]

    estimate = float(value(lambda run: float(statistic(*run))))
    draws = ClusterDraws(groups, num_queries, num_samples, seed)
    replicates = [value(partial(_evaluate, statistic, weighted, weights)) for weights in draws]
    return Interval(estimate, *percentile_bounds(np.concatenate(replicates), confidence))


def _prepare(array: Any) -> Any:
    """Arrays as numpy, relations as Relation, scipy.sparse as CSR (which can be re-indexed)."""
    if hasattr(array, "tocsr"):
        return array.tocsr()
    tensor = hasattr(array, "detach")
    nested = isinstance(array, list) and any(np.ndim(row) for row in array)
    if isinstance(array, Relation | tuple) or nested or (hasattr(array, "to_dense") and not tensor):
        return as_relation(array, "arrays")
    return to_numpy(array)


def _num_rows(array: Any) -> int:
    if isinstance(array, Relation):
        return len(array)
    if not array.shape:
        raise ValueError("arrays must have one entry per query, got a single number")
    return int(array.shape[0])


def _num_queries(runs: Sequence[Run]) -> int:
    lengths = [_num_rows(array) for run in runs for array in run]
    if not lengths:
        raise ValueError("arrays is empty: expected at least one per-query array")
    for length in lengths:
        check_lengths("the first array", lengths[0], "another", length)
    if lengths[0] == 0:
        raise ValueError("arrays are empty: expected at least one query")
    return lengths[0]


def _takes_weights(statistic: Statistic) -> bool:
    try:
        return "weights" in inspect.signature(statistic).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return False


def _evaluate(statistic: Statistic, weighted: bool, weights: IntArray, run: Run) -> FloatArray:
    """The statistic under every row of ``weights``, (S,)."""
    if not weighted:
        every = np.arange(weights.shape[1])
        return np.array([_on_rows(statistic, run, np.repeat(every, row)) for row in weights])
    values = np.asarray(statistic(*run, weights=weights.astype(np.float64)), dtype=np.float64)
    if values.shape != (len(weights),):
        raise ValueError(
            f"statistic must return shape ({len(weights)},) for weights of shape {weights.shape}, "
            f"got {values.shape}; without a weights parameter it is called once per replicate"
        )
    return values


def _on_rows(statistic: Statistic, run: Run, rows: IntArray) -> float:
    taken = (array.take(rows) if isinstance(array, Relation) else array[rows] for array in run)
    return float(statistic(*taken))
