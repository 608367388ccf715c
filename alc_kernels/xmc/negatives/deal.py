"""Whole clusters dealt to batches."""

from __future__ import annotations

import numpy as np


def deal_clusters(clusters: np.ndarray, parts: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Every member once, in batches of whole clusters drawn at random.

    Clusters stay together within a batch, in random order, as do the members within a cluster:
    neighbours in a batch are similar, which the attention groups of ALC's batch part then see.

    Args:
        clusters: (N,) int64 cluster numbers 0 .. C - 1; counts of members differ by at most one.
        parts: number of batches; divides C.
        rng: the only source of randomness.

    Returns:
        ``parts`` arrays of members 0 .. N - 1, whose lengths differ by at most one.
    """
    counts = np.bincount(clusters)
    per_part = len(counts) // parts
    # The clusters with a member more are spread evenly, so that the batches become even too.
    is_larger = counts > counts.min()
    larger = np.array_split(rng.permutation(np.flatnonzero(is_larger)), parts)
    smaller = rng.permutation(np.flatnonzero(~is_larger))
    dealt, taken = [], 0
    for some in larger:
        fill = per_part - len(some)
        dealt.append(rng.permutation(np.concatenate([some, smaller[taken : taken + fill]])))
        taken += fill
    place = np.empty(len(counts), np.int64)
    place[np.concatenate(dealt)] = np.arange(len(counts))
    members = rng.permutation(len(clusters))
    order = members[np.argsort(place[clusters[members]], kind="stable")]
    ends = np.cumsum([counts[chosen].sum() for chosen in dealt])
    return np.split(order, ends[:-1])
