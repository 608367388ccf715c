"""Batches hold every training query once and every known pair among queries and labels."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from alc_kernels.xmc.data.dataset import relation_from_rows
from alc_kernels.xmc.training.batches import epoch_batches, make_batch, num_batches

RELATIONS = st.integers(1, 8).flatmap(
    lambda labels: st.tuples(
        st.just(labels),
        st.lists(st.lists(st.integers(0, labels - 1), max_size=4), min_size=1, max_size=20),
    )
)


@settings(max_examples=100, deadline=None)
@given(RELATIONS, st.integers(1, 9), st.integers(0, 5))
def test_every_query_once_with_all_known_pairs(
    made: tuple[int, list[list[int]]], batch_size: int, seed: int
) -> None:
    num_labels, rows = made
    relation = relation_from_rows(rows, num_labels)
    queries = np.arange(len(rows))
    seen = []
    batches = list(epoch_batches(relation, queries, batch_size, np.random.default_rng(seed)))
    assert len(batches) == num_batches(len(rows), batch_size)
    for batch in batches:
        seen += batch.queries.tolist()
        assert 0 < len(batch.queries) <= batch_size
        assert (np.diff(batch.labels) > 0).all()
        dense = np.zeros((len(batch.queries), len(batch.labels)))
        firsts = set()
        for i in range(len(batch.queries)):
            own = batch.col[batch.crow[i] : batch.crow[i + 1]]
            dense[i, own] = 1
            assert len(own) == len(set(own))
            assert (len(own) > 0) == (len(rows[batch.queries[i]]) > 0)
            firsts |= {int(batch.labels[own[0]])} if len(own) else set()
        np.testing.assert_array_equal(dense, relation[batch.queries][:, batch.labels].toarray())
        # Labels are exactly those sampled, and a row's sampled label comes first.
        assert firsts == set(batch.labels.tolist())
    assert sorted(seen) == queries.tolist()


def test_batches_are_even() -> None:
    relation = relation_from_rows([[0]] * 103, 1)
    rng = np.random.default_rng(0)
    sizes = [len(b.queries) for b in epoch_batches(relation, np.arange(103), 25, rng)]
    assert sizes == [21, 21, 21, 20, 20]


def test_positives_are_drawn_afresh_and_evenly() -> None:
    relation = relation_from_rows([[0, 2, 3]] * 3000, 4)
    counts = np.zeros(4, int)
    for batch in epoch_batches(relation, np.arange(3000), 50, np.random.default_rng(1)):
        np.add.at(counts, batch.labels[batch.col[batch.crow[:-1]]], 1)
    assert counts[1] == 0 and (abs(counts[[0, 2, 3]] - 1000) < 120).all()


def test_seed_decides() -> None:
    relation = relation_from_rows([[i % 7, (i + 3) % 7] for i in range(60)], 7)

    def draw(seed: int) -> list[list[int]]:
        batches = epoch_batches(relation, np.arange(60), 20, np.random.default_rng(seed))
        return [[*b.queries, *b.labels, *b.col] for b in batches]

    assert draw(1) == draw(1) != draw(2)


def test_a_shared_label_is_positive_for_both() -> None:
    relation: csr_matrix = relation_from_rows([[0, 1], [1], []], 3)
    batch = make_batch(relation, np.array([0, 1, 2]), np.array([0, 1, -1]))
    assert batch.labels.tolist() == [0, 1]
    assert batch.crow.tolist() == [0, 2, 3, 3]
    assert batch.col.tolist() == [0, 1, 1]  # label 1 is a positive of query 0, not a negative
    other = make_batch(relation, np.array([0, 1, 2]), np.array([1, 1, -1]))
    assert other.labels.tolist() == [1] and other.col.tolist() == [0, 0]
