"""Clusters of equal size, by repeated halving.

Source: the balanced clustering of NGAME (Dahiya et al., arXiv 2207.04452): 2-means on the unit
sphere gives two centroids, and the points are cut at the median of the difference of their
similarities to the two, again and again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from alc_kernels.trainer.negatives.index import load_faiss, single_thread

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
