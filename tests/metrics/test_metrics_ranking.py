"""Precision, recall, nDCG and the filter step, by hand and against plain loops and libraries."""

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from alc_kernels.metrics import ndcg_at_k, precision_at_k, recall_at_k, topk_with_filter

NUM_LABELS = 8
LABEL_SETS = st.sets(st.integers(0, NUM_LABELS - 1), max_size=NUM_LABELS)
RANKING = st.permutations(range(NUM_LABELS))
ROWS = st.lists(st.tuples(RANKING, LABEL_SETS), min_size=1, max_size=6)


def split(rows):
    return np.array([ranking for ranking, _ in rows]), [sorted(labels) for _, labels in rows]


def random_case(num_queries=60, num_labels=30, seed=0, empty=False):
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(num_labels), (num_queries, 1)), axis=1)
    dense = rng.random((num_queries, num_labels)) < 0.15
    if not empty:
        dense[np.arange(num_queries), rng.integers(num_labels, size=num_queries)] = True
    return np.argsort(-scores, axis=1), scores.astype(np.float64), dense


def test_hand_computed():
    indices = [[3, 0, 2], [1, 4, 0], [2, 1, 0]]
    positives = [[0, 3, 4, 1], [0], []]
    assert precision_at_k(indices, positives, 1) == pytest.approx(1 / 2)
    assert precision_at_k(indices, positives, 3) == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert precision_at_k(indices, positives, 3, open_set=True) == pytest.approx(1 / 3)
    assert recall_at_k(indices, positives, 2) == pytest.approx((2 / 4 + 0) / 2)
    assert recall_at_k(indices, positives, 3) == pytest.approx((2 / 4 + 1) / 2)
    first = (1 + 1 / math.log2(3)) / (1 + 1 / math.log2(3) + 1 / 2)
    second = (1 / 2) / 1  # one positive: the ideal has one place
    assert ndcg_at_k(indices, positives, 3) == pytest.approx((first + second) / 2)


def test_missing_entries_are_misses():
    assert precision_at_k([[2, -1, -1]], [[2]], 3) == pytest.approx(1 / 3)
    # -1 of row 1 must not meet the last label of row 0
    assert precision_at_k([[0, 1], [-1, -1]], [[5], [3]], 2) == 0.0


def test_no_query_with_a_positive_is_undefined():
    for metric in (precision_at_k, recall_at_k, ndcg_at_k):
        assert math.isnan(metric([[0, 1]], [[]], 1))
    assert precision_at_k([[0, 1]], [[]], 1, open_set=True) == 0.0


@settings(deadline=None)
@given(ROWS, st.integers(1, NUM_LABELS))
def test_matches_plain_loops(rows, k):
    indices, positives = split(rows)
    precision, recall, ndcg = [], [], []
    for ranking, labels in zip(indices, positives, strict=True):
        hits = [label in labels for label in ranking[:k]]
        if labels:
            precision.append(sum(hits) / k)
            recall.append(sum(hits) / len(labels))
            ideal = sum(1 / math.log2(r + 1) for r in range(1, min(k, len(labels)) + 1))
            ndcg.append(sum(h / math.log2(r + 1) for r, h in enumerate(hits, 1)) / ideal)
    for metric, values in ((precision_at_k, precision), (recall_at_k, recall), (ndcg_at_k, ndcg)):
        expected = np.mean(values) if values else math.nan
        assert metric(indices, positives, k) == pytest.approx(expected, nan_ok=True)
    everyone = precision_at_k(indices, positives, k, open_set=True)
    assert everyone == pytest.approx(sum(precision) / len(rows))


@settings(deadline=None)
@given(ROWS, st.data())
def test_integer_weights_are_repeats(rows, data):
    indices, positives = split(rows)
    row = st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)).filter(any)
    weights = np.array(data.draw(st.lists(row, min_size=1, max_size=3)))
    for metric in (precision_at_k, recall_at_k, ndcg_at_k):
        at_once = metric(indices, positives, 3, weights=weights)
        for w, value in zip(weights, at_once, strict=True):
            repeated = [
                labels for labels, times in zip(positives, w, strict=True) for _ in range(times)
            ]
            expected = metric(np.repeat(indices, w, axis=0), repeated, 3)
            assert value == pytest.approx(expected, nan_ok=True)


class Dense:
    """Stands for any relation object whose to_dense() is a boolean tensor."""

    def __init__(self, mask):
        self.mask = mask

    def to_dense(self):
        return torch.from_numpy(self.mask)


def test_every_form_of_positives_agrees():
    indices, _, dense = random_case(empty=True)
    csr = sparse.csr_matrix(dense.astype(np.float32))
    unsorted = sparse.csr_matrix(dense.astype(np.float32))
    for i in range(len(dense)):
        unsorted.indices[unsorted.indptr[i] : unsorted.indptr[i + 1]] = csr[i].indices[::-1]
    unsorted.has_sorted_indices = False
    lists = [np.flatnonzero(row) for row in dense]
    forms = [
        csr,
        unsorted,
        sparse.csr_array(dense),
        sparse.coo_matrix(dense),
        (csr.indptr, csr.indices),
        (torch.from_numpy(csr.indptr), torch.from_numpy(csr.indices)),
        lists,
        [row.tolist() for row in lists],
        [np.concatenate([row, row]) for row in lists],  # a pair given twice counts once
        dense,
        torch.from_numpy(dense),
        Dense(dense),
    ]
    for metric in (precision_at_k, recall_at_k, ndcg_at_k):
        values = [metric(indices, form, 5) for form in forms]
        assert len(set(values)) == 1, values
    values = [precision_at_k(torch.from_numpy(indices).int(), form, 5) for form in forms]
    assert set(values) == {precision_at_k(indices, csr, 5)}


def test_the_projects_own_positives_are_accepted():
    positives = pytest.importorskip("alc_kernels.positives").Positives
    indices, _, dense = random_case()
    index = torch.from_numpy(dense.argmax(axis=1))
    expected = precision_at_k(indices, [[i] for i in index.tolist()], 5)
    assert precision_at_k(indices, positives.from_index(index, dense.shape[1]), 5) == expected


def test_explicit_zeros_are_no_pairs():
    csr = sparse.csr_matrix((np.array([1.0, 0.0]), [0, 1], [0, 2]), shape=(1, 3))
    assert precision_at_k([[1, 0]], csr, 1) == 0.0
    assert recall_at_k([[0, 1]], csr, 1) == 1.0


@pytest.mark.parametrize(
    ("indices", "positives", "k", "error", "message"),
    [
        (np.zeros((0, 3), int), [], 1, ValueError, "indices is empty"),
        ([[0, 1]], [[0], [1]], 1, ValueError, "indices has length 1, positives has length 2"),
        ([[0, 1]], [[0]], 3, ValueError, "indices has 2 columns, k=3"),
        ([[0, 1]], [[0]], 0, ValueError, "k=0"),
        ([[0, 1]], [[0]], 1.5, TypeError, "k=1.5"),
        ([[0, 1]], [[0]], True, TypeError, "k=True"),
        ([[0, -2]], [[0]], 2, ValueError, "holds -2"),
        ([[0, 1], [4, 4]], [[0], [1]], 2, ValueError, "row 1 ranks a label twice"),
        ([[0.0, 1.0]], [[0]], 1, TypeError, "indices must be integers"),
        ([0, 1], [[0]], 1, ValueError, r"shape \(n, k\), got \(2,\)"),
        ([[0, 5]], sparse.csr_matrix((1, 4)), 2, ValueError, "label 5, positives has 4 labels"),
        ([[0, 1]], [[-1]], 1, ValueError, "negative label -1 in row 0"),
        ([[0, 1]], [3], 1, TypeError, r"positives\[0\] is not an array"),
        ([[0, 1]], [[0.5]], 1, TypeError, "positives must be integers"),
        ([[0, 1]], "0", 1, TypeError, "positives is a str"),
        ([[0, 1]], np.zeros((1, 4), int), 1, TypeError, "positives has shape"),
        ([[0, 1]], ([0, 2], [1]), 1, ValueError, "indptr must rise from 0"),
        ([[0, 1]], ([0], [1], [2]), 1, TypeError, "tuple of 3"),
    ],
)
def test_bad_input(indices, positives, k, error, message):
    for metric in (precision_at_k, recall_at_k, ndcg_at_k):
        with pytest.raises(error, match=message):
            metric(indices, positives, k)


def test_a_repeat_beyond_k_is_not_looked_at():
    assert precision_at_k([[0, 1, 1]], [[0]], 2) == 0.5


@pytest.mark.parametrize("k", [1, 3, 5])
def test_against_napkinxc(k):
    napkin = pytest.importorskip("napkinxc.metrics")
    indices, _, dense = random_case()
    truth, ranking = sparse.csr_matrix(dense), indices.tolist()
    pairs = [np.flatnonzero(row).tolist() for row in dense]
    for ours, theirs in (
        (precision_at_k, napkin.precision_at_k),
        (recall_at_k, napkin.recall_at_k),
        (ndcg_at_k, napkin.ndcg_at_k),
    ):
        assert ours(indices, truth, k) == pytest.approx(theirs(pairs, ranking, k=k)[k - 1])
    # napkinXC averages over all rows, as we do with open_set
    _, _, dense = random_case(empty=True)
    dense[:10] = False
    pairs = [np.flatnonzero(row).tolist() for row in dense]
    expected = napkin.precision_at_k(pairs, ranking, k=k)[k - 1]
    assert precision_at_k(indices, dense, k, open_set=True) == pytest.approx(expected)
    assert precision_at_k(indices, dense, k) > expected


@pytest.mark.parametrize("k", [1, 3, 5, 30])
def test_against_sklearn_ndcg(k):
    metrics = pytest.importorskip("sklearn.metrics")
    indices, scores, dense = random_case()
    expected = metrics.ndcg_score(dense.astype(int), scores, k=k)
    assert ndcg_at_k(indices, dense, k) == pytest.approx(expected)


def test_filter_by_hand():
    indices = [[4, 2, 7, 1], [3, 2, 1, 0], [5, 6, -1, -1]]
    scores = np.array([[9, 8, 7, 6], [5, 5, 4, 3], [2, 1, 0, 0]], dtype=np.float32)
    kept, kept_scores = topk_with_filter(indices, scores, [[4, 7], [], [5]], 2)
    assert kept.tolist() == [[2, 1], [3, 2], [6, -1]]
    assert kept_scores.tolist() == [[8, 6], [5, 5], [1, -math.inf]]
    assert kept_scores.dtype == np.float32


@settings(deadline=None)
@given(ROWS, st.integers(1, NUM_LABELS))
def test_filter_equals_filtering_first(rows, k):
    indices, filters = split(rows)
    scores = np.tile(np.arange(NUM_LABELS, 0, -1.0), (len(rows), 1))
    catalogue = sparse.csr_matrix(
        (
            [1] * sum(map(len, filters)),
            [x for row in filters for x in row],
            np.cumsum([0, *map(len, filters)]),
        ),
        shape=(len(rows), NUM_LABELS),
    )
    kept, kept_scores = topk_with_filter(indices, scores, catalogue, k)
    for i, drop in enumerate(filters):
        left = [j for j, label in enumerate(indices[i]) if label not in drop][:k]
        assert kept[i].tolist() == [*indices[i][left], *[-1] * (k - len(left))]
        assert kept_scores[i].tolist() == [*scores[i][left], *[-math.inf] * (k - len(left))]


@pytest.mark.parametrize(
    ("indices", "scores", "filters", "k", "message"),
    [
        ([[0, 1]], [[1.0]], [[]], 1, r"\(1, 2\), scores has shape \(1, 1\)"),
        ([[0, 1]], [[1.0, math.nan]], [[]], 1, r"scores\[0, 1\] is NaN"),
        ([[0, 1]], [[1.0, 2.0]], [[]], 1, "row 0 is not in descending order"),
        ([[0, 1]], [[2.0, 1.0]], [[], []], 1, "indices has length 1, filters has length 2"),
        ([[0, 1]], [[2.0, 1.0]], [[]], 3, "2 columns, k=3"),
        # one label was dropped and the catalogue may go on: the second place is unknown
        ([[0, 1]], [[2.0, 1.0]], [[1]], 2, r"row 0 keeps 1 of its 2 labels.*\(2 \+ 1\)"),
    ],
)
def test_bad_filter_input(indices, scores, filters, k, message):
    with pytest.raises(ValueError, match=message):
        topk_with_filter(indices, scores, filters, k)


def test_filter_accepts_a_row_that_holds_the_whole_catalogue():
    filters = sparse.csr_matrix(np.array([[False, True]]))
    kept, _ = topk_with_filter([[0, 1]], [[2.0, 1.0]], filters, 2)
    assert kept.tolist() == [[0, -1]]
    # NaN behind a missing entry says nothing
    kept, _ = topk_with_filter([[0, -1]], [[2.0, math.nan]], [[]], 2)
    assert kept.tolist() == [[0, -1]]


def test_large_input_is_quick():
    rng = np.random.default_rng(0)
    num_queries, num_labels = 135_000, 131_000
    indices = rng.integers(num_labels - 5, size=(num_queries, 1)) + np.arange(5)
    positives = (
        np.arange(num_queries + 1) * 5,
        rng.integers(num_labels, size=num_queries * 5),
    )
    start = time.process_time()
    ndcg_at_k(indices, positives, 5)
    assert time.process_time() - start < 2.0
