"""Propensity-scored precision: hits on rare labels count for more.

Source: Jain, Prabhu and Varma, "Extreme multi-label loss functions for recommendation, tagging,
ranking & other missing label applications", KDD 2016.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, overload

import numpy as np

from alc_kernels.metrics.inputs import FloatArray, as_count, as_relation, as_weights, to_numpy
from alc_kernels.metrics.ranking import ranked_hits

if TYPE_CHECKING:
    from alc_kernels.metrics.inputs import ArrayLike, RelationLike


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
