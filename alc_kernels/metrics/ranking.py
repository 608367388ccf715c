"""Ranking metrics at k, and the filter step before them.

Rankings are ``indices`` (n, >= k): label indices best first, -1 where a row has no more labels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from alc_kernels.metrics.inputs import (
    BoolArray,
    FloatArray,
    IntArray,
    Relation,
    Weights,
    as_count,
    as_relation,
    as_weights,
    check_lengths,
    check_no_nan,
    to_numpy,
)

if TYPE_CHECKING:
    from alc_kernels.metrics.inputs import ArrayLike, RelationLike


def as_ranking(indices: ArrayLike, k: int) -> IntArray:
    """The first ``k`` columns of a ranking, checked: integers >= -1, no label twice in a row."""
    array = to_numpy(indices)
    if array.ndim != 2:
        raise ValueError(f"indices must have shape (n, k), got {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"indices must be integers, got dtype {array.dtype}")
    if array.shape[0] == 0:
        raise ValueError("indices is empty: expected at least one query")
    if array.shape[1] < k:
        raise ValueError(
            f"indices has {array.shape[1]} columns, k={k} needs {k} (-1 where labels run out)"
        )
    top = array[:, :k].astype(np.int64)
    if top.min() < -1:
        raise ValueError(f"indices holds {top.min()}: expected label indices, or -1 for none")
    ordered = np.sort(top, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if repeated.any():
        raise ValueError(f"indices row {np.argwhere(repeated)[0, 0]} ranks a label twice")
    return top


def ranked_hits(
    indices: ArrayLike, positives: RelationLike, k: int
) -> tuple[IntArray, BoolArray, Relation]:
    """The top ``k`` (n, k), which of them are positives (n, k), and the relation."""
    top = as_ranking(indices, as_count(k, "k"))
    relation = as_relation(positives, "positives")
    check_lengths("indices", len(top), "positives", len(relation))
    if relation.num_labels is not None and top.max() >= relation.num_labels:
        raise ValueError(
            f"indices holds label {top.max()}, positives has {relation.num_labels} labels"
        )
    return top, relation.contains(top), relation


def _mean(values: FloatArray, counted: BoolArray, weights: Weights) -> float | FloatArray:
    """Weighted mean over the counted queries; NaN if none of them has weight."""
    mass = weights.matrix @ counted.astype(np.float64)  # (S,)
    with np.errstate(invalid="ignore"):
        return weights.result((weights.matrix @ np.where(counted, values, 0.0)) / mass)


@overload
def precision_at_k(
    indices: ArrayLike,
    positives: RelationLike,
    k: int,
    open_set: bool = False,
    weights: None = None,
) -> float: ...
@overload
def precision_at_k(
    indices: ArrayLike, positives: RelationLike, k: int, open_set: bool, weights: ArrayLike
) -> float | FloatArray: ...
@overload
def precision_at_k(
    indices: ArrayLike,
    positives: RelationLike,
    k: int,
    open_set: bool = False,
    *,
    weights: ArrayLike,
) -> float | FloatArray: ...
def precision_at_k(
    indices: ArrayLike,
    positives: RelationLike,
    k: int,
    open_set: bool = False,
    weights: ArrayLike | None = None,
) -> float | FloatArray:
    """Precision at k: mean over queries of ``|top-k & Y_i| / k``.

    Args:
        indices: (n, >= k) integers, labels best first; -1 where a row has no more labels (a miss).
        positives: the n queries' positives: a scipy.sparse matrix, ``(indptr, indices)``, a list
            of index arrays, a boolean (n, labels) array, or an object whose ``to_dense()`` is one.
        k: at least 1.
        open_set: average over all queries; by default over those with a positive.
        weights: (n,) query weights, or (S, n) for S results at once.

    Returns:
        A float in [0, 1] ((S,) float64 for (S, n) weights); NaN if no query counts.

    Raises:
        ValueError: empty input, fewer than k columns, a label twice in a row, unequal lengths.
        TypeError: wrong kind of argument.
    """
    _, hits, relation = ranked_hits(indices, positives, k)
    counted = (relation.counts > 0) | open_set
    return _mean(hits.sum(axis=1) / k, counted, as_weights(weights, len(hits)))


@overload
def recall_at_k(
    indices: ArrayLike, positives: RelationLike, k: int, weights: None = None
) -> float: ...
@overload
def recall_at_k(
    indices: ArrayLike, positives: RelationLike, k: int, weights: ArrayLike
) -> float | FloatArray: ...
def recall_at_k(
    indices: ArrayLike, positives: RelationLike, k: int, weights: ArrayLike | None = None
) -> float | FloatArray:
    """Recall at k: mean of ``|top-k & Y_i| / |Y_i|`` over the queries with a positive.

    Arguments, result and errors as for :func:`precision_at_k`.
    """
    _, hits, relation = ranked_hits(indices, positives, k)
    counts = relation.counts
    recall = hits.sum(axis=1) / np.maximum(counts, 1)
    return _mean(recall, counts > 0, as_weights(weights, len(hits)))


@overload
def ndcg_at_k(
    indices: ArrayLike, positives: RelationLike, k: int, weights: None = None
) -> float: ...
@overload
def ndcg_at_k(
    indices: ArrayLike, positives: RelationLike, k: int, weights: ArrayLike
) -> float | FloatArray: ...
def ndcg_at_k(
    indices: ArrayLike, positives: RelationLike, k: int, weights: ArrayLike | None = None
) -> float | FloatArray:
    """Normalised discounted cumulative gain at k, binary relevance.

    Mean over the queries with a positive of
    ``sum_{r <= k} hit_r / log2(r + 1)  /  sum_{r <= min(k, |Y_i|)} 1 / log2(r + 1)``.
    Arguments, result and errors as for :func:`precision_at_k`.

    Source: Jaervelin and Kekaelaeinen, TOIS 2002, with the cut-off norm of the extreme
    classification repository.
    """
    _, hits, relation = ranked_hits(indices, positives, k)
    discount = 1.0 / np.log2(np.arange(2, k + 2))  # (k,)
    ideal = np.cumsum(discount)[np.clip(relation.counts, 1, k) - 1]  # (n,)
    ndcg = (hits * discount).sum(axis=1) / ideal
    return _mean(ndcg, relation.counts > 0, as_weights(weights, len(hits)))


def topk_with_filter(
    indices: ArrayLike, scores: ArrayLike, filters: RelationLike, k: int
) -> tuple[IntArray, npt.NDArray[Any]]:
    """Drop each query's filter pairs from its ranking and keep the first k of the rest.

    Filter pairs (reciprocal pairs of a data set, for instance) must not take places in the top k,
    so retrieve k + the largest filter count per query first.

    Args:
        indices: (n, K) integers, labels best first, -1 where a row has no more labels.
        scores: (n, K) the scores of ``indices``, descending along each row.
        filters: the n queries' filter pairs, in any form that ``positives`` takes.
        k: at least 1, at most K.

    Returns:
        ``(indices, scores)``, both (n, k), int64 and the scores' dtype; -1 and -inf where a row
        has fewer than k labels left.

    Raises:
        ValueError: shapes that disagree, NaN or rising scores, a label twice in a row, or a row
            that was not retrieved deep enough to fill its k places.
    """
    k = as_count(k, "k")
    shape = to_numpy(indices).shape
    ranking = as_ranking(indices, max(k, shape[1] if len(shape) == 2 else k))  # (n, K)
    values = to_numpy(scores)
    if values.shape != ranking.shape:
        raise ValueError(f"indices has shape {ranking.shape}, scores has shape {values.shape}")
    if values.dtype.kind != "f":
        raise TypeError(f"scores must be floating point, got dtype {values.dtype}")
    present = ranking >= 0
    values = np.where(present, values, values.dtype.type(-np.inf))
    check_no_nan(values, "scores")
    rising = (values[:, 1:] > values[:, :-1]).any(axis=1)
    if rising.any():
        raise ValueError(f"scores row {np.argmax(rising)} is not in descending order")
    relation = as_relation(filters, "filters")
    check_lengths("indices", len(ranking), "filters", len(relation))

    keep = present & ~relation.contains(ranking)
    place = np.cumsum(keep, axis=1) - 1  # (n, K): a kept label's place after filtering
    _check_depth(keep, present, relation, k)
    row, column = np.nonzero(keep & (place < k))
    top_indices = np.full((len(ranking), k), -1, dtype=np.int64)
    top_scores = np.full((len(ranking), k), -np.inf, dtype=values.dtype)
    top_indices[row, place[row, column]] = ranking[row, column]
    top_scores[row, place[row, column]] = values[row, column]
    return top_indices, top_scores


def _check_depth(keep: BoolArray, present: BoolArray, relation: Relation, k: int) -> None:
    """A short row is right only where the catalogue ended, else its tail was never retrieved."""
    ended = ~present.all(axis=1)
    if relation.num_labels is not None:
        ended |= present.shape[1] >= relation.num_labels
    short = (keep.sum(axis=1) < k) & ~ended
    if short.any():
        row = int(np.argmax(short))
        raise ValueError(
            f"indices row {row} keeps {keep[row].sum()} of its {present.shape[1]} labels, k={k}: "
            f"retrieve k + the row's filter count ({k} + {relation.counts[row]}), "
            "or end the row with -1 where the catalogue ends"
        )


# Propensity-scored precision: hits on rare labels count for more.
#
# Source: Jain, Prabhu and Varma, "Extreme multi-label loss functions for recommendation, tagging,
# ranking & other missing label applications", KDD 2016.


def inverse_propensity(
    train_positives: RelationLike,
    a: float = 0.55,
    b: float = 1.5,
    num_labels: int | None = None,
) -> FloatArray:
    """Inverse propensity of every label, from the training relation.

    ``1 / p_l = 1 + C (N_l + b)^-a`` with ``C = (ln N - 1)(b + 1)^a``; N is the number of training
    queries (rows without positives included) and N_l the number of them that hold label l.
    Usual (a, b): (0.6, 2.6) for Amazon, (0.5, 0.4) for Wikipedia, (0.55, 1.5) otherwise.

    Args:
        train_positives: N training queries' positives, in any form that ``positives`` takes.
        a, b: finite, b > 0.
        num_labels: number of labels M; needed where the relation does not tell it, that is for
            ``(indptr, indices)`` and lists (default there: the largest label seen + 1).

    Returns:
        (M,) float64, all > 1.

    Raises:
        ValueError: fewer than 3 training queries (C would be negative), b <= 0, or a label
            outside ``num_labels``.
    """
    if not (math.isfinite(a) and math.isfinite(b) and b > 0.0):
        raise ValueError(f"a={a!r}, b={b!r}: expected finite numbers, b > 0")
    relation = as_relation(train_positives, "train_positives")
    if len(relation) < 3:
        raise ValueError(f"train_positives has {len(relation)} queries: expected at least 3")
    seen = int(relation.indices.max(initial=-1)) + 1
    if num_labels is not None:
        size = as_count(num_labels, "num_labels")
        if size < seen:
            raise ValueError(f"num_labels={size}: train_positives holds label {seen - 1}")
    else:
        size = seen if relation.num_labels is None else relation.num_labels
    label_counts = np.bincount(relation.indices, minlength=size)  # (M,)
    scale = (math.log(len(relation)) - 1.0) * (b + 1.0) ** a
    return np.asarray(1.0 + scale * (label_counts + b) ** -a, dtype=np.float64)


@overload
def psp_at_k(
    indices: ArrayLike,
    positives: RelationLike,
    k: int,
    inverse_propensity: ArrayLike,
    weights: None = None,
) -> float: ...
@overload
def psp_at_k(
    indices: ArrayLike,
    positives: RelationLike,
    k: int,
    inverse_propensity: ArrayLike,
    weights: ArrayLike,
) -> float | FloatArray: ...
def psp_at_k(
    indices: ArrayLike,
    positives: RelationLike,
    k: int,
    inverse_propensity: ArrayLike,
    weights: ArrayLike | None = None,
) -> float | FloatArray:
    """Propensity-scored precision at k, normalised by the best attainable value.

    ``mean_i (1/k) sum_{l in top-k & Y_i} 1/p_l`` divided by the same mean for the ranking of the
    true labels by 1/p: a ratio of means, not a mean of ratios. Queries without positives add 0 to
    both.

    Args:
        indices, positives, k, weights: as for :func:`precision_at_k`.
        inverse_propensity: (M,) positive finite numbers, see :func:`inverse_propensity`.

    Returns:
        A float in [0, 1] ((S,) float64 for (S, n) weights); NaN if no query has a positive.

    Raises:
        ValueError: as :func:`precision_at_k`; ``inverse_propensity`` too short, or not positive.
    """
    top, hits, relation = ranked_hits(indices, positives, k)
    inverse = to_numpy(inverse_propensity).astype(np.float64)
    if inverse.ndim != 1:
        raise ValueError(f"inverse_propensity must have shape (labels,), got {inverse.shape}")
    if not (np.isfinite(inverse) & (inverse > 0.0)).all():
        raise ValueError("inverse_propensity must be positive and finite")
    largest = max(int(top.max()), int(relation.indices.max(initial=-1)))
    if largest >= len(inverse):
        raise ValueError(
            f"inverse_propensity has length {len(inverse)}, the largest label is {largest}"
        )
    gained = np.where(hits, inverse[top], 0.0).sum(axis=1)  # (n,); the factor 1/k cancels
    best = ideal_gains(relation, inverse, k)[:, -1]  # (n,)
    query_weights = as_weights(weights, len(top))
    with np.errstate(invalid="ignore"):
        ratio = (query_weights.matrix @ gained) / (query_weights.matrix @ best)
    return query_weights.result(ratio)


def ideal_gains(positives: RelationLike, inverse_propensity: ArrayLike, k: int) -> FloatArray:
    """What the best ranking gains: sums of the largest inverse propensities of a query's labels.

    Args:
        positives: n queries' positives, in any form that :func:`precision_at_k` takes.
        inverse_propensity: (M,) one number per label.
        k: at least 1.

    Returns:
        (n, k) float64: column r is the sum of the r + 1 largest (fewer where the query has fewer
        positives), the denominator of PSP@(r + 1).
    """
    relation = as_relation(positives, "positives")
    inverse = to_numpy(inverse_propensity)
    rows = relation.rows
    gains = inverse[relation.indices]
    order = np.lexsort((-gains, rows))
    rank = np.arange(len(rows)) - relation.indptr[rows]  # rows ascend, so ranks follow the order
    kept = rank < k
    best = np.zeros((len(relation), as_count(k, "k")))
    best[rows[kept], rank[kept]] = gains[order][kept]
    return np.cumsum(best, axis=1)
