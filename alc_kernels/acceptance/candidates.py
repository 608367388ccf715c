"""The candidates of every query, from one search or from several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def merge_candidates(found: Sequence[np.ndarray], k: int | None = None) -> np.ndarray:
    """The union of several searches' best labels.

    The first of every search come first, then the second ones, and so on; within a place the
    earlier search. A label that two searches found stands once, at its better place.

    Args:
        found: arrays (n, k_i) of label numbers, best first; -1 for none.
        k: candidates to keep; None for all.

    Returns:
        (n, m) int64, -1 behind the last one of a query; m is the largest number of candidates of
        a query, at most ``k``.

    Raises:
        ValueError: no search, other shapes, or ``k`` below 1.
    """
    arrays = [np.asarray(one, np.int64) for one in found]
    if not arrays or any(a.ndim != 2 or len(a) != len(arrays[0]) for a in arrays):
        shapes = ", ".join(str(np.shape(one)) for one in found) or "none"
        raise ValueError(f"found: got shapes {shapes}, expected (queries, k) of the same queries")
    if k is not None and k < 1:
        raise ValueError(f"k={k}: expected a number >= 1")
    place = np.concatenate([np.arange(a.shape[1]) for a in arrays])
    every = np.concatenate(arrays, axis=1)[:, np.argsort(place, kind="stable")]  # (n, sum k_i)
    by_label = np.argsort(every, axis=1, kind="stable")
    ordered = np.take_along_axis(every, by_label, axis=1)
    again = np.zeros(every.shape, np.bool_)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeats = np.empty_like(again)
    np.put_along_axis(repeats, by_label, again, axis=1)
    none = repeats | (every < 0)
    order = np.argsort(none, axis=1, kind="stable")
    merged = np.where(none, -1, every)
    merged = np.take_along_axis(merged, order, axis=1)
    width = max(1, int((~none).sum(axis=1).max(initial=0)))
    return merged[:, : width if k is None else min(k, width)]


def aligned(
    candidates: np.ndarray, found: np.ndarray, values: np.ndarray, missing: float = np.nan
) -> np.ndarray:
    """A search's values at the merged candidates.

    Args:
        candidates: (n, m) label numbers, -1 for none.
        found: (n, k) label numbers of the search.
        values: (n, k) what it says of them.
        missing: for candidates that it did not find.

    Returns:
        (n, m) of ``values``' dtype.
    """
    made = np.full(candidates.shape, missing, np.result_type(values, np.float32))
    for column in range(found.shape[1]):
        same = (candidates == found[:, column, None]) & (candidates >= 0)
        made = np.where(same, values[:, column, None], made)
    return made


def best_first(probabilities: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """(n, m) places of the candidates by falling probability; ties keep the order given.

    Places without a candidate come last.
    """
    return np.argsort(np.where(candidates < 0, np.inf, -probabilities), axis=1, kind="stable")


def one_to_one(candidates: np.ndarray, values: np.ndarray) -> np.ndarray:
    """At most one title for a label: the choice with the largest sum of values.

    With probabilities that is the largest expected number of right matches. For two catalogues, in
    each of which a product stands once. A threshold that was certified on each title's best
    candidate says nothing certain of these matches.

    Args:
        candidates: (n, m) label numbers, -1 for none.
        values: (n, m); candidates of 0 or less, or NaN, are never chosen.

    Returns:
        (n,) int64 place of each title's candidate, -1 where it has to go without.

    Raises:
        ValueError: shapes that differ.

    Source: Jonker and Volgenant's algorithm on the sparse pairs, by
    :func:`scipy.sparse.csgraph.min_weight_full_bipartite_matching`.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    if candidates.shape != values.shape or candidates.ndim != 2:
        raise ValueError(
            f"values: found shape {values.shape}, expected {candidates.shape} as candidates"
        )
    count = len(candidates)
    value = np.where((candidates >= 0) & (values > 0), values, 0.0)  # NaN > 0 is False
    row, place = np.nonzero(value)
    made = np.full(count, -1, np.int64)
    if not len(row):
        return made
    labels, column = np.unique(candidates[row, place], return_inverse=True)
    # Every title may also take a column of its own, which is worth nothing.
    own = np.arange(count)
    worth = np.concatenate([value[row, place], np.zeros(count)])
    pairs = csr_matrix(
        (value.max() + 1.0 - worth, (np.append(row, own), np.append(column, len(labels) + own))),
        (count, len(labels) + count),
    )
    chosen = min_weight_full_bipartite_matching(pairs)[1]
    found = chosen < len(labels)
    same = candidates[found] == labels[chosen[found], None]
    made[found] = same.argmax(axis=1)
    return made
