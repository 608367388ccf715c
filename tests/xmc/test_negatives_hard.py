"""Mined negatives: against a full comparison, and never a label that may be right."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, vstack
from torch.nn import functional as F

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data.text.sparse import relation_from_rows
from alc_kernels.trainer.negatives import (
    ApproximateIndex,
    ExactIndex,
    MissingFaiss,
    build_index,
    draw_hard_negatives,
    mine_hard_negatives,
)

TOLERANCE = 1e-5


def mining(pool: int, margin: float, index: str = "exact") -> TrainConfig:
    return TrainConfig(hard_negative_pool=pool, false_negative_margin=margin, index=index)


PASSES = [
    f"alc_kernels.trainer.negatives.{name}.QUERIES_PER_PASS" for name in ("clusters", "index")
]


def relations(rng: np.random.Generator, n: int, width: int) -> tuple[csr_matrix, csr_matrix]:
    """Positives and excluded pairs without a pair in common; some rows have none of either."""
    kind = rng.choice(3, (n, width), p=(0.7, 0.15, 0.15))
    kind[rng.random(n) < 0.3] = 0
    made = [
        relation_from_rows([np.flatnonzero(row == which).tolist() for row in kind], width)
        for which in (1, 2)
    ]
    return made[0], made[1]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 12),
    width=st.integers(1, 25),
    pool=st.integers(1, 8),
    margin=st.sampled_from([-2.0, -0.3, 0.0, 0.2]),
    kind=st.sampled_from(["exact", "approximate"]),
    some=st.booleans(),
)
def test_against_a_full_comparison(
    seed: int, n: int, width: int, pool: int, margin: float, kind: str, some: bool
) -> None:
    rng = np.random.default_rng(seed)
    queries = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    labels = torch.randn(width, 4, generator=torch.Generator().manual_seed(seed + 1))
    relation, excluded = relations(rng, n, width)
    candidates = np.flatnonzero(rng.random(width) < 0.7) if some else None
    if candidates is not None and not len(candidates):
        candidates = np.array([0])
    with pytest.MonkeyPatch.context() as patch:
        for name, rows in zip(PASSES, (5, 3), strict=True):
            patch.setattr(name, rows)
        found = mine_hard_negatives(
            queries, labels, relation, excluded, mining(pool, margin, kind), candidates=candidates
        )
    assert found.shape == (n, pool) and found.dtype == np.int32

    scores = (F.normalize(queries) @ F.normalize(labels).T).numpy()
    admitted = np.zeros(width, bool)
    admitted[slice(None) if candidates is None else candidates] = True
    positive = relation.toarray() > 0
    for i in range(n):
        mine = found[i][found[i] >= 0]
        assert (found[i][: len(mine)] >= 0).all()  # none, then padding
        assert len(set(mine.tolist())) == len(mine)
        wrong = admitted & ~positive[i] & ~(excluded.toarray()[i] > 0)
        own = scores[i][positive[i] & admitted]
        ceiling = own.max() - margin if len(own) and margin > -2 else np.inf
        assert (wrong & (scores[i] <= ceiling + TOLERANCE))[mine].all()
        certain = np.flatnonzero(wrong & (scores[i] <= ceiling - TOLERANCE))
        if kind == "approximate" and margin > -2:
            continue  # may hold fewer
        assert len(mine) >= min(pool, len(certain))
        assert (np.diff(scores[i][mine]) <= TOLERANCE).all()
        rest = np.setdiff1d(certain, mine)
        if len(rest):
            assert scores[i][rest].max() <= scores[i][mine].min() + TOLERANCE


def test_the_guard_goes_by_the_best_positive() -> None:
    labels = F.normalize(torch.tensor([[1.0, 0], [0.9, 0.2], [0.8, 0.5], [0, 1], [1, 0.02]]))
    queries = torch.tensor([[2.0, 0.0]])
    relation = relation_from_rows([[1, 3]], 5)  # cosines .976 and 0
    found = mine_hard_negatives(queries, labels, relation, None, mining(5, 0.0))
    assert found.tolist() == [[2, -1, -1, -1, -1]]  # 0 and 4 are nearer than label 1
    assert mine_hard_negatives(queries, labels, relation, None, mining(5, 0.2)).tolist() == [
        [-1] * 5
    ]
    found = mine_hard_negatives(queries, labels, relation, None, mining(5, -2.0))
    assert found.tolist() == [[0, 4, 2, -1, -1]]


def grouped(n: int, dim: int, groups: int, seed: int) -> torch.Tensor:
    """Vectors around ``groups`` centres that are the same for every seed."""
    centres = torch.randn(groups, dim, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(groups, (n,), generator=generator)
    return centres[chosen] + 0.5 * torch.randn(n, dim, generator=generator)


def test_the_approximate_index_finds_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alc_kernels.trainer.negatives.index.SCANNED_LABELS", 1000)
    labels, queries = grouped(6000, 32, 300, 1), grouped(200, 32, 300, 2)
    index = ApproximateIndex(labels)
    assert index.index.nprobe < index.index.nlist  # it does leave labels out
    recall = index.recall(queries, 20)
    assert 0.9 < recall < 1
    exact, approximate = ExactIndex(labels).search(queries, 20), index.search(queries, 20)
    same = (
        np.mean([len(np.intersect1d(a, b)) for a, b in zip(exact[1], approximate[1], strict=True)])
        / 20
    )
    assert recall == pytest.approx(same)
    # What both found has the same score.
    where = exact[1] == approximate[1]
    np.testing.assert_allclose(exact[0][where], approximate[0][where], atol=1e-5)


def full_ranking(queries: torch.Tensor, labels: torch.Tensor, left_out: np.ndarray) -> np.ndarray:
    """(n, L) labels by exact score, ties to the smaller one; -1 instead of what is left out."""
    scores = (F.normalize(queries).double() @ F.normalize(labels).double().T).float().numpy()
    scores[left_out > 0] = -np.inf
    order = np.lexsort((np.broadcast_to(np.arange(len(labels)), scores.shape), -scores), axis=1)
    return np.where(np.isneginf(np.take_along_axis(scores, order, 1)), -1, order)


@pytest.mark.parametrize("kind", ["exact", "approximate"])
@pytest.mark.parametrize("distinct", [1, 7, 60])
@pytest.mark.parametrize("dim", [3, 64, 127])
def test_equal_scores_go_to_the_smaller_label(kind: str, distinct: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(distinct + dim)
    rng = np.random.default_rng(distinct)
    base = torch.randn(distinct, dim, generator=generator)
    labels = base[torch.randint(distinct, (900,), generator=generator)]
    queries = torch.randn(23, dim, generator=generator)
    relation, excluded = relations(rng, 23, 900)
    # Few queries of the call have positives, and those have many.
    relation = vstack([relation[:3], csr_matrix((20, 900), dtype=np.float32)], "csr")
    wrong = full_ranking(queries, labels, (relation + excluded).toarray())
    index = build_index(kind, labels)
    scores, found = index.search(queries, 40, relation, excluded)
    np.testing.assert_array_equal(found, wrong[:, :40])
    for row in range(len(queries)):
        alone = slice(row, row + 1)
        again, same = index.search(queries[alone], 40, relation[alone], excluded[alone])
        np.testing.assert_array_equal(same[0], found[row])
        np.testing.assert_allclose(again[0], scores[row], atol=0 if kind == "approximate" else 1e-6)


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_a_query_of_the_approximate_index_is_alone(
    monkeypatch: pytest.MonkeyPatch, margin: float
) -> None:
    """With inverted lists, many twins, and a guard: what the others have changes nothing."""
    monkeypatch.setattr("alc_kernels.trainer.negatives.index.SCANNED_LABELS", 1000)
    labels, queries = grouped(3000, 16, 300, 1)[np.arange(6000) % 3000], grouped(40, 16, 300, 2)
    relation = relation_from_rows([[i, *range(i * (i % 9))] for i in range(40)], 6000)
    index = ApproximateIndex(labels)
    scores, found = index.search(queries, 12, relation, None, margin)
    for row in range(len(queries)):
        again, same = index.search(queries[row : row + 1], 12, relation[row], None, margin)
        np.testing.assert_array_equal(same[0], found[row])
        np.testing.assert_array_equal(again[0], scores[row])
        mine = found[row][found[row] >= 0]
        twins = np.where(mine < 3000, mine + 3000, mine - 3000)
        missing = mine[~np.isin(twins, mine) & ~(relation[row].toarray()[0][twins] > 0)]
        assert (missing < 3000).all() and len(missing) <= 1  # the cut, in favour of the smaller
    # A twin of the only positive is never a negative, however it is rounded.
    assert not np.isin(found[0], [0, 3000]).any()


def test_more_labels_are_asked_for_than_there_are() -> None:
    for kind in ("exact", "approximate"):
        scores, found = build_index(kind, torch.eye(3)).search(torch.eye(3)[:2], 5)
        assert found[:, 0].tolist() == [0, 1] and (found[:, 3:] == -1).all()
        assert (scores[:, 3:] == -np.inf).all()


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="index = 'other'"):
        build_index("other", torch.eye(3))
    monkeypatch.setitem(sys.modules, "faiss", None)
    build_index("exact", torch.eye(3))  # does not need it
    with pytest.raises(MissingFaiss, match="approximate index needs the package faiss"):
        build_index("approximate", torch.eye(3))


def test_draws_are_even_and_distinct() -> None:
    pools = np.tile(np.array([[5, 7, 9, 11, -1, -1]], np.int32), (4000, 1))
    drawn = draw_hard_negatives(pools, 2, np.random.default_rng(0))
    assert drawn.shape == (4000, 2) and (drawn[:, 0] != drawn[:, 1]).all()
    labels, counts = np.unique(drawn, return_counts=True)
    assert labels.tolist() == [5, 7, 9, 11] and (abs(counts - 2000) < 150).all()
    few = draw_hard_negatives(pools, 9, np.random.default_rng(0))
    assert few.shape == (4000, 6)
    assert np.sort(few, axis=1)[0].tolist() == [-1, -1, 5, 7, 9, 11]
