"""Batches hold every training query once, every known pair, and whole clusters."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from scipy.sparse import csr_matrix
from torch import Tensor

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data.text.sparse import relation_from_rows
from alc_kernels.trainer.errors import CheckpointError
from alc_kernels.trainer.methods.base import Snapshot
from alc_kernels.trainer.negatives import MissingFaiss
from alc_kernels.trainer.training.sampler import Batch, Sampler, make_batch

ROWS = st.integers(1, 8).flatmap(
    lambda labels: st.tuples(
        st.just(labels),
        st.lists(st.lists(st.integers(0, labels - 1), max_size=4), min_size=1, max_size=20),
    )
)


def sampler(rows: list[list[int]], num_labels: int, **changes: Any) -> Sampler:
    """A sampler over all ``rows``."""
    relation = relation_from_rows(rows, num_labels)
    return Sampler(relation, np.arange(len(rows)), TrainConfig(**changes))


def snapshot_of(made: Sampler, seed: int = 0, dim: int = 6) -> Snapshot:
    """Random vectors for the sampler's queries and labels."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(len(made.queries), dim, generator=generator)
    labels = torch.randn(made.relation.shape[1], dim, generator=generator)
    return Snapshot(queries, labels, made.relation[made.queries])


def dense(crow: np.ndarray, col: np.ndarray, width: int) -> np.ndarray:
    """The 0/1 matrix of a batch's relation; checks that no pair is named twice."""
    matrix = np.zeros((len(crow) - 1, width))
    np.add.at(matrix, (np.repeat(np.arange(len(crow) - 1), np.diff(crow)), col), 1)
    assert matrix.max(initial=0) <= 1
    return matrix


def same(ours: Batch, theirs: Batch) -> bool:
    pairs = zip(vars(ours).values(), vars(theirs).values(), strict=True)
    return all(a is b is None or np.array_equal(a, b) for a, b in pairs)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(2, 9), st.integers(0, 5), st.integers(0, 2))
def test_every_query_once_with_all_known_pairs(
    made: tuple[int, list[list[int]]], batch_size: int, seed: int, hard: int
) -> None:
    num_labels, rows = made
    relation = relation_from_rows(rows, num_labels)
    excluded = relation_from_rows([[i % num_labels] for i in range(len(rows))], num_labels)
    excluded = (excluded - excluded.multiply(relation)).tocsr()
    excluded.eliminate_zeros()
    config = TrainConfig(batch_size=batch_size, seed=seed, hard_negatives=hard)
    made_of = Sampler(relation, np.arange(len(rows)), config, excluded)
    if hard:
        made_of.refresh(0, snapshot_of(made_of))
    batches = list(made_of.batches(0))
    assert len(batches) == made_of.steps_per_epoch == -(-len(rows) // batch_size)
    assert sorted(row for b in batches for row in b.queries.tolist()) == list(range(len(rows)))
    for batch in batches:
        assert 0 < len(batch.queries) <= batch_size
        assert (np.diff(batch.labels) > 0).all()
        here = relation[batch.queries][:, batch.labels].toarray()
        np.testing.assert_array_equal(dense(batch.crow, batch.col, len(batch.labels)), here)
        assert batch.excluded_crow is not None and batch.excluded_col is not None
        left_out = excluded[batch.queries][:, batch.labels].toarray()
        found = dense(batch.excluded_crow, batch.excluded_col, len(batch.labels))
        np.testing.assert_array_equal(found, left_out)
        own = [batch.col[a:b] for a, b in zip(batch.crow[:-1], batch.crow[1:], strict=True)]
        assert [len(o) > 0 for o in own] == [len(rows[q]) > 0 for q in batch.queries]
        firsts = {int(batch.labels[o[0]]) for o in own if len(o)}
        if not hard:  # labels are exactly those sampled, and they come first in their rows
            assert firsts == set(batch.labels.tolist())
            continue
        mined = made_of.pools[batch.queries]
        # Every query brings as many of its pool as there are, up to ``hard``.
        for pool in mined:
            present = np.isin(pool[pool >= 0], batch.labels).sum()
            assert present >= min(hard, (pool >= 0).sum())
        assert set(batch.labels.tolist()) <= firsts | set(mined[mined >= 0].tolist())
        for query, pool in zip(batch.queries, mined, strict=True):
            assert not relation[query].toarray()[0, pool[pool >= 0]].any()
            assert not excluded[query].toarray()[0, pool[pool >= 0]].any()


def test_shuffled_batches_are_those_of_the_published_figures() -> None:
    rows = [[(7 * i) % 40, (3 * i + 1) % 40] if i % 5 else [] for i in range(203)]
    queries = np.flatnonzero(np.arange(203) % 9 != 4)
    config = TrainConfig(seed=11, batch_size=25)
    shuffled = Sampler(relation_from_rows(rows, 40), queries, config)
    digest = hashlib.sha256()
    for epoch in range(3):
        assert not shuffled.needs_snapshot(epoch)
        for batch in shuffled.batches(epoch):
            assert batch.excluded_crow is batch.excluded_col is None
            for array in (batch.queries, batch.labels, batch.crow, batch.col):
                assert array.dtype == np.int64
                digest.update(np.int64(len(array)).tobytes() + array.tobytes())
    # Of the code that the figures of the first release were made with.
    assert digest.hexdigest() == "90437db5bc4b632bef78d4f57f8420ec2844d519f6f69436cc73d8bbf2830f20"


def test_batches_are_even() -> None:
    made = sampler([[0]] * 103, 1, batch_size=25)
    assert [len(batch.queries) for batch in made.batches(0)] == [21, 21, 21, 20, 20]


def test_positives_are_drawn_afresh_and_evenly() -> None:
    counts = np.zeros(4, int)
    for batch in sampler([[0, 2, 3]] * 3000, 4, batch_size=50, seed=1).batches(0):
        np.add.at(counts, batch.labels[batch.col[batch.crow[:-1]]], 1)
    assert counts[1] == 0 and (abs(counts[[0, 2, 3]] - 1000) < 120).all()


def test_seed_and_epoch_decide() -> None:
    rows = [[i % 7, (i + 3) % 7] for i in range(60)]

    def draw(seed: int, epoch: int) -> list[list[int]]:
        batches = sampler(rows, 7, batch_size=20, seed=seed).batches(epoch)
        return [[*b.queries, *b.labels, *b.col] for b in batches]

    assert draw(1, 0) == draw(1, 0) != draw(2, 0)
    assert draw(1, 0) != draw(1, 1)


def test_a_shared_label_is_positive_for_both() -> None:
    relation: csr_matrix = relation_from_rows([[0, 1], [1], []], 3)
    batch = make_batch(relation, np.array([0, 1, 2]), np.array([0, 1, -1]))
    assert batch.labels.tolist() == [0, 1]
    assert batch.crow.tolist() == [0, 2, 3, 3]
    assert batch.col.tolist() == [0, 1, 1]  # label 1 is a positive of query 0, not a negative
    other = make_batch(relation, np.array([0, 1, 2]), np.array([1, 1, -1]))
    assert other.labels.tolist() == [1] and other.col.tolist() == [0, 0]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 120),
    st.integers(2, 30),
    st.integers(2, 9),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_clusters_grow_and_stay_whole(
    n: int, batch_size: int, size: int, every: int, seed: int
) -> None:
    made = sampler(
        [[i % 5] for i in range(n)],
        5,
        batch_size=batch_size,
        cluster_size=size,
        refresh_every=every,
        seed=seed,
    )
    for epoch in range(4 * every + 1):
        refreshes = epoch // every
        assert made.needs_snapshot(epoch) == (epoch % every == 0 and epoch > 0)
        if made.needs_snapshot(epoch):
            made.refresh(epoch, snapshot_of(made, epoch))
            assert not made.needs_snapshot(epoch)
        batches = list(made.batches(epoch))
        assert len(batches) == made.steps_per_epoch
        sizes = [len(batch.queries) for batch in batches]
        assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
        order = [row for batch in batches for row in batch.queries.tolist()]
        assert sorted(order) == list(range(n))
        if not refreshes:
            assert made.clusters is None  # shuffled
            continue
        assert made.clusters is not None
        assert np.bincount(made.clusters).max() <= min(2**refreshes, size, max(sizes))
        # The clusters of a batch are its own, and each lies in one piece.
        pieces = [made.clusters[batch.queries] for batch in batches]
        assert sum(len(np.unique(piece)) for piece in pieces) == made.clusters.max() + 1
        for piece in pieces:
            assert (np.diff(piece) != 0).sum() + 1 == len(np.unique(piece))


def test_clusters_make_hard_batches() -> None:
    made = sampler([[i] for i in range(512)], 512, batch_size=64, cluster_size=64)
    centres = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    group = torch.arange(512) % 8
    noise = torch.randn(512, 16, generator=torch.Generator().manual_seed(1))
    vectors = centres[group] + 0.1 * noise
    made.refresh(8, Snapshot(vectors, vectors, made.relation))
    for batch in made.batches(8):
        assert len(np.unique(group[batch.queries])) == 1
    first, second = (next(made.batches(epoch)).queries.tolist() for epoch in (8, 8))
    assert first == second


class Run:
    """Epochs as the training loop goes through them, interrupted at will."""

    def __init__(self, **changes: Any) -> None:
        rng = np.random.default_rng(0)
        rows = [rng.choice(30, rng.integers(1, 4), replace=False).tolist() for _ in range(90)]
        self.rows, self.changes = rows, changes

    def batches(
        self, stop: int, epoch: int = 0, step: int = 0, state: dict[str, Tensor] | None = None
    ) -> tuple[list[Batch], tuple[int, int, dict[str, Tensor]]]:
        """Up to ``stop`` batches from a place on, and the place reached with its state."""
        made = sampler(self.rows, 30, batch_size=32, seed=5, **self.changes)
        if state is not None:
            made.load_state_dict(state)
        seen: list[Batch] = []
        while len(seen) < stop:
            if made.needs_snapshot(epoch):
                made.refresh(epoch, snapshot_of(made, epoch))
            for batch in made.batches(epoch, step):
                seen.append(batch)
                step += 1
                if len(seen) == stop:
                    break
            if step == made.steps_per_epoch:
                epoch, step = epoch + 1, 0
        return seen, (epoch, step, load(save(made.state_dict())))


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster_size": 8, "refresh_every": 2},
        {"hard_negatives": 3, "hard_negative_pool": 6, "refresh_every": 2},
        {"hard_negatives": 2, "cluster_size": 4, "false_negative_margin": 0.1},
        {},
    ],
)
def test_a_run_goes_on_where_it_was_stopped(changes: dict[str, Any]) -> None:
    run = Run(**changes)
    whole, _ = run.batches(21)
    for stop in range(1, 21):
        before, place = run.batches(stop)
        after, _ = run.batches(21 - stop, *place)
        assert all(same(a, b) for a, b in zip(whole, before + after, strict=True))


def test_a_refresh_cannot_be_forgotten() -> None:
    made = sampler([[0]] * 20, 1, batch_size=10, cluster_size=4, refresh_every=2)
    next(made.batches(1))
    with pytest.raises(RuntimeError, match=r"epoch 3: .* -1, expected a refresh at epoch 2"):
        next(made.batches(3))
    made.refresh(2, snapshot_of(made))
    next(made.batches(3))
    with pytest.raises(RuntimeError, match="expected a refresh at epoch 4"):
        next(made.batches(4))


def test_mines_candidates_only() -> None:
    relation = relation_from_rows([[i % 4] for i in range(30)], 20)
    config = TrainConfig(batch_size=30, hard_negatives=5)
    candidates = np.arange(0, 20, 2)
    made = Sampler(relation, np.arange(30), config, candidates=candidates)
    made.refresh(0, snapshot_of(made))
    (batch,) = made.batches(0)
    assert set(batch.labels.tolist()) <= {*candidates.tolist(), 1, 3}
    assert len(batch.labels) > 4


def test_faiss_is_asked_for_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    sampler([[0]], 1, hard_negatives=1)
    sampler([[0]], 1, index="approximate")
    with pytest.raises(MissingFaiss, match="cluster_size above 1 needs the package faiss"):
        sampler([[0]], 1, cluster_size=2)
    with pytest.raises(MissingFaiss, match="index = 'approximate' needs the package faiss"):
        sampler([[0]], 1, hard_negatives=1, index="approximate")


def test_refuses_the_state_of_another_run() -> None:
    made = sampler([[0]] * 20, 1, batch_size=10, cluster_size=4)
    made.refresh(1, snapshot_of(made))
    state = made.state_dict()
    other = sampler([[0]] * 21, 1, batch_size=10, cluster_size=4)
    with pytest.raises(CheckpointError, match=r"'clusters': found shape \(20,\), expected \(21,\)"):
        other.load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"'other': found shape .* expected no such entry"):
        made.load_state_dict({**state, "other": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="has no 'refreshed'"):
        made.load_state_dict({"clusters": state["clusters"]})
