"""Ranking metrics at k, and the filter step before them.

Rankings are ``indices`` (n, >= k): label indices best first, -1 where a row has no more labels.
"""

from __future__ import annotations

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
