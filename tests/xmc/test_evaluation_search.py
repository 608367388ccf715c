"""Exact search: against a full sort, over chunk sizes, with ties, and its refusals."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from alc_kernels.trainer.evaluation.search import SharedSearch, topk_labels

PASS = "alc_kernels.trainer.negatives.index.QUERIES_PER_PASS"
CHECK = "alc_kernels.trainer.evaluation.search.ROWS_PER_CHECK"
WORKSPACE = "alc_kernels.backends.torch.pairs.WORKSPACE_BYTES"


def full_sort(queries, labels, k, candidates):
    """Score everything, sort by (score descending, label ascending), cut."""
    return full_sort_of((queries @ labels.T).numpy(), k, candidates)


def full_sort_of(scores, k, candidates):
    rows = [sorted(candidates, key=lambda j, row=row: (-row[j], j))[:k] for row in scores]
    return np.array(rows), np.array([row[found] for row, found in zip(scores, rows, strict=True)])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 23),
    st.integers(1, 6),
    st.integers(1, 2000),
    st.integers(0, 10**6),
)
def test_agrees_with_a_full_sort_on_many_ties(rows, columns, k, workspace, seed):
    generator = torch.Generator().manual_seed(seed)
    # Small whole numbers: products are exact and ties, also with -0.0, are frequent.
    queries = torch.randint(-1, 2, (rows, 3), generator=generator).float()
    labels = -torch.randint(-1, 2, (columns, 3), generator=generator).float()
    candidates = np.flatnonzero(torch.rand(columns, generator=generator).numpy() < 0.8)
    if not len(candidates):
        candidates = np.array([columns - 1])
    with patch(WORKSPACE, workspace):  # from one row at a time to all at once
        indices, scores = topk_labels(queries, labels, k, candidates)
    expected, values = full_sort(queries, labels, k, candidates.tolist())
    have = expected.shape[1]
    np.testing.assert_array_equal(indices[:, :have], expected)
    np.testing.assert_array_equal(scores[:, :have], values)
    assert (indices[:, have:] == -1).all() and (scores[:, have:] == -np.inf).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 15),
    st.integers(1, 6),
    st.floats(0, 1),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_excluded_pairs_are_never_found(rows, columns, k, share, some, seed):
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(-1, 2, (rows, 3), generator=generator).float()
    labels = torch.randint(-1, 2, (columns, 3), generator=generator).float()
    candidates = np.arange(columns)[:: 2 if some else 1]
    mask = torch.rand(rows, len(candidates), generator=generator).numpy() < share
    with patch(PASS, 4):
        indices, scores = topk_labels(
            queries, labels, k, candidates if some else None, csr_matrix(mask.astype(np.float32))
        )
    assert indices.shape == scores.shape == (rows, k) and scores.dtype == np.float32
    for row in range(rows):
        left = candidates[~mask[row]].tolist()
        expected, values = full_sort(queries[row : row + 1], labels, k, left)
        have = min(k, len(left))
        assert indices[row].tolist() == expected[0].tolist() + [-1] * (k - have)
        assert scores[row].tolist() == values[0].tolist() + [-np.inf] * (k - have)


def test_parts_do_not_change_the_result():
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(37, 8, generator=generator)
    labels = torch.randn(90, 8, generator=generator)
    excluded = csr_matrix((torch.rand(37, 90, generator=generator).numpy() < 0.1).astype("f4"))
    whole = topk_labels(queries, labels, 5, None, excluded, device="cpu")
    with patch(PASS, 10), patch(CHECK, 7):
        parts = topk_labels(queries, labels, 5, None, excluded)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_allclose(whole[1], parts[1], atol=1e-6)


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards_agree_on_equal_scores(shards):
    """Twins among the labels, in and across the shards: the smaller number goes first."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randn(40, 37, generator=generator)[torch.arange(400) * 7 % 40]
    queries, candidates = torch.randn(30, 37, generator=generator), np.arange(3, 400)
    indices, scores = SharedSearch(None, label_shards=shards).topk(queries, labels, 25, candidates)
    exact = (queries.double() @ labels.double().T).float().numpy()
    expected, _ = full_sort_of(exact, 25, candidates.tolist())
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(exact, expected, 1), rtol=1e-5)


def test_names_the_row_that_is_not_finite_in_a_later_part():
    queries = torch.zeros(9, 2)
    queries[7, 1] = float("inf")
    with patch(CHECK, 3), pytest.raises(ValueError, match="queries: row 7 holds"):
        topk_labels(queries, torch.zeros(4, 2), 1)


def test_refuses_exclusions_of_another_shape():
    with pytest.raises(ValueError, match=r"excluded: found shape \(2, 4\), expected \(2, 2\)"):
        topk_labels(
            torch.zeros(2, 3),
            torch.zeros(4, 3),
            1,
            np.array([0, 2]),
            csr_matrix((2, 4), dtype="f4"),
        )


def test_real_valued_scores_come_back_in_order():
    generator = torch.Generator().manual_seed(0)
    queries = torch.nn.functional.normalize(torch.randn(50, 16, generator=generator))
    labels = torch.nn.functional.normalize(torch.randn(300, 16, generator=generator))
    with patch(WORKSPACE, 100_000):
        indices, scores = topk_labels(queries, labels, 10)
    assert (np.diff(scores, axis=1) <= 0).all()
    expected = (queries @ labels.T).topk(10).values.numpy()
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)
    taken = np.take_along_axis((queries @ labels.T).numpy(), indices, axis=1)
    np.testing.assert_allclose(scores, taken, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("queries", "labels", "k", "candidates", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(4, 5), 1, None, "3 columns"),
        (torch.zeros(2), torch.zeros(4, 5), 1, None, "queries: expected a matrix"),
        (torch.zeros(2, 3), torch.zeros(4, 3), 0, None, "k=0"),
        (torch.zeros(2, 3), torch.zeros(4, 3), 1, np.array([], int), "empty"),
        (torch.zeros(2, 3), torch.zeros(4, 3), 1, np.array([1, 1]), "ascending"),
        (torch.tensor([[0.0], [float("nan")]]), torch.zeros(4, 1), 1, None, "row 1"),
    ],
)
def test_refuses(queries, labels, k, candidates, message):
    with pytest.raises(ValueError, match=message):
        topk_labels(queries, labels, k, candidates)
