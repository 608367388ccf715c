"""Hard negatives: each query's nearest wrong labels of the whole label set."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from alc_kernels.trainer.negatives.index import QUERIES_PER_PASS, build_index

NO_MARGIN = -2.0  # no two cosines differ by more


def mine_hard_negatives(
    queries: Tensor,
    labels: Tensor,
    relation: csr_matrix,
    excluded: csr_matrix | None,
    pool: int,
    margin: float,
    index: str = "exact",
    *,
    candidates: np.ndarray | None = None,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """The ``pool`` labels of largest cosine per query, without those that may be right.

    Left out are the query's positives, its excluded pairs and, where ``margin`` is above -2,
    every label that scores above its best positive less ``margin``: it may be a right answer
    that nobody marked. (The guard of the losses, ``exclude_above``, goes by the first positive;
    here no positive has been sampled yet, and by the best one the guard does not grow when one of
    several positives is badly placed.) A query without positives is not guarded.

    Args:
        queries: (N, d).
        labels: (L, d).
        relation: (N, L) known pairs.
        excluded: (N, L) pairs that are neither right nor wrong, or None.
        pool: labels per query, at least 1.
        margin: a difference of cosines, at least -2.
        index: "exact" or "approximate".
        candidates: (C,) ascending label numbers that may be mined; None for all.
        device: where to search.

    Returns:
        (N, pool) int32 label numbers, most similar first, -1 where there are fewer.

    Raises:
        MissingFaiss: an approximate index without the package faiss.
    """
    if candidates is not None:
        labels = labels[torch.from_numpy(candidates).to(labels.device)]
        relation = relation[:, candidates]
        excluded = None if excluded is None else excluded[:, candidates]
    guard = margin if margin > NO_MARGIN else None
    searched = build_index(index, labels, device)
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
