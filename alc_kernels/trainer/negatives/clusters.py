"""Clusters of equal size, by repeated halving.

Source: the balanced clustering of NGAME (Dahiya et al., arXiv 2207.04452): 2-means on the unit
sphere gives two centroids, and the points are cut at the median of the difference of their
similarities to the two, again and again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn import functional as F

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.negatives.index import (
    QUERIES_PER_PASS,
    build_index,
    load_faiss,
    single_thread,
)

ITERATIONS = 20
# Two centroids are well known from this many points each; FAISS draws them from its seed.
POINTS_PER_CENTROID = 50_000


def balanced_clusters(vectors: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Clusters of at most ``size`` similar vectors, as few as possible.

    Args:
        vectors: as for :func:`divide`; n = 0 is legal.
        size: largest number of members, at least 1.
        generator: as for :func:`divide`.

    Returns:
        (n,) int64 on the CPU: cluster numbers 0 .. ceil(n / size) - 1, whose counts of members
        differ by at most one.

    Raises:
        ValueError: a wrong shape, a size below 1, or a number that is not finite.
        MissingFaiss: the package faiss is not installed.
    """
    if size < 1:
        raise ValueError(f"size = {size}: expected at least 1")
    if not len(vectors):
        return torch.zeros(0, dtype=torch.int64)
    return divide(vectors, -(-len(vectors) // size), generator)


def divide(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` clusters of similar vectors, as even as possible.

    Similarity is the cosine. Neighbouring numbers are neighbours in the tree of halves, so their
    clusters are more alike than others. Equal input and generator state give equal clusters,
    however many threads there are.

    Args:
        vectors: (n, d) floating point, finite, on any device; zero rows are legal.
        count: number of clusters, from 1 to n.
        generator: on the CPU, the only source of randomness.

    Returns:
        (n,) int64 on the CPU: cluster numbers 0 .. count - 1, whose counts of members differ by
        at most one.

    Raises:
        ValueError: a wrong shape or count, or a number that is not finite.
        MissingFaiss: the package faiss is not installed.
    """
    if vectors.dim() != 2:
        raise ValueError(f"vectors: expected (n, d), got shape {tuple(vectors.shape)}")
    n = len(vectors)
    if not 1 <= count <= n:
        raise ValueError(f"count = {count}: expected 1 to {n} clusters of {n} vectors")
    if count == n:
        return torch.arange(n)
    points = F.normalize(vectors.detach().float().cpu(), dim=1).contiguous().numpy()
    if not np.isfinite(points).all():
        raise ValueError("vectors: expected finite numbers")

    faiss = load_faiss("clustering")
    members, larger = divmod(n, count)  # `larger` of the clusters have one member more
    order = np.arange(n)
    numbers = np.empty(n, np.int64)
    todo = [(0, n, count, larger)]  # part of `order`, its clusters, those of them with one more
    done = 0
    with single_thread(faiss):
        while todo:
            start, stop, clusters, extra = todo.pop()
            part = slice(start, stop)
            if clusters == 1:
                numbers[order[part]] = done
                done += 1
                continue
            halves = clusters // 2, clusters - clusters // 2
            extras = extra * halves[0] // clusters, extra - extra * halves[0] // clusters
            seed = int(torch.randint(2**31 - 1, (), generator=generator))
            sides = np.argsort(-_difference(faiss, points[part], seed), kind="stable")
            order[part] = order[part][sides]
            points[part] = points[part][sides]
            middle = start + halves[0] * members + extras[0]
            todo += [(middle, stop, halves[1], extras[1]), (start, middle, halves[0], extras[0])]
    return torch.from_numpy(numbers)


def _difference(faiss: Any, points: np.ndarray, seed: int) -> np.ndarray:
    """(m,) float32: how much nearer each of the unit vectors (m, d) is to the first centroid."""
    means = faiss.Kmeans(
        points.shape[1],
        2,
        niter=ITERATIONS,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=POINTS_PER_CENTROID,
    )
    means.train(points)
    # Not a matrix product: how a BLAS library sums depends on its threads.
    return np.einsum("ij,j->i", points, means.centroids[0] - means.centroids[1])


# Whole clusters dealt to batches.


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


# Hard negatives: each query's nearest wrong labels of the whole label set.


NO_MARGIN = -2.0  # no two cosines differ by more


def mine_hard_negatives(
    queries: Tensor,
    labels: Tensor,
    relation: csr_matrix,
    excluded: csr_matrix | None,
    config: TrainConfig,
    *,
    candidates: np.ndarray | None = None,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """The labels of largest cosine per query, without those that may be right.

    Left out are the query's positives, its excluded pairs and, where ``false_negative_margin``
    is above -2, every label that scores above its best positive less that: it may be a right answer
    that nobody marked. (The guard of the losses, ``exclude_above``, goes by the first positive;
    here no positive has been sampled yet, and by the best one the guard does not grow when one of
    several positives is badly placed.) A query without positives is not guarded.

    Args:
        queries: (N, d).
        labels: (L, d).
        relation: (N, L) known pairs.
        excluded: (N, L) pairs that are neither right nor wrong, or None.
        config: ``hard_negative_pool``, ``false_negative_margin`` and ``index``.
        candidates: (C,) ascending label numbers that may be mined; None for all.
        device: where to search.

    Returns:
        (N, hard_negative_pool) int32 label numbers, most similar first, -1 where there are fewer.

    Raises:
        MissingFaiss: an approximate index without the package faiss.
    """
    if candidates is not None:
        labels = labels[torch.from_numpy(candidates).to(labels.device)]
        relation = relation[:, candidates]
        excluded = None if excluded is None else excluded[:, candidates]
    pool, margin = config.hard_negative_pool, config.false_negative_margin
    guard = margin if margin > NO_MARGIN else None
    searched = build_index(config.index, labels, device)
    mined = np.empty((len(queries), pool), np.int32)
    for start in range(0, len(queries), QUERIES_PER_PASS):
        part = slice(start, start + QUERIES_PER_PASS)
        left_out = None if excluded is None else excluded[part]
        _, found = searched.search(queries[part], pool, relation[part], left_out, guard)
        mined[part] = found if candidates is None else np.where(found < 0, -1, candidates[found])
    return mined


def draw_hard_negatives(pools: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Up to ``count`` different labels of each row at random.

    Args:
        pools: (n, pool) labels, -1 for none.
        count: how many per row.
        rng: the only source of randomness.

    Returns:
        (n, min(count, pool)), -1 where a row has fewer.
    """
    lot = np.where(pools < 0, np.inf, rng.random(pools.shape))
    return np.take_along_axis(pools, np.argsort(lot, axis=1)[:, :count], axis=1)
