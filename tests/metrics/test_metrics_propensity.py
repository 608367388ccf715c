"""Inverse propensities and propensity-scored precision."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from alc_kernels.metrics import inverse_propensity, precision_at_k, psp_at_k

NUM_LABELS = 6
LABEL_SETS = st.sets(st.integers(0, NUM_LABELS - 1), max_size=NUM_LABELS)
ROWS = st.lists(st.tuples(st.permutations(range(NUM_LABELS)), LABEL_SETS), min_size=1, max_size=6)
INVERSE = np.array([1.5, 9.0, 2.0, 2.0, 30.0, 4.0])


def test_propensity_formula():
    train = [[0, 1], [0], [0], []]
    scale = (math.log(4) - 1) * 2.5**0.55
    expected = [1 + scale * (count + 1.5) ** -0.55 for count in (3, 1, 0)]
    assert inverse_propensity(train, num_labels=3) == pytest.approx(expected)
    assert len(inverse_propensity(train)) == 2
    assert len(inverse_propensity(sparse.csr_matrix(np.eye(4, 7)))) == 7
    amazon = inverse_propensity(train, a=0.6, b=2.6)
    assert amazon[0] == pytest.approx(1 + (math.log(4) - 1) * 3.6**0.6 * 5.6**-0.6)


def test_a_pair_given_twice_counts_once():
    train = [[0, 0], [0], [1]]
    assert inverse_propensity(train) == pytest.approx(inverse_propensity([[0], [0], [1]]))


def test_psp_by_hand_is_a_ratio_of_means():
    indices, positives = [[0, 1], [4, 0], [3, 2]], [[0, 4], [4], []]
    gained = (1.5 + 0) + (30 + 0)
    best = (30 + 1.5) + 30
    assert psp_at_k(indices, positives, 2, INVERSE) == pytest.approx(gained / best)
    mean_of_ratios = (1.5 / 31.5 + 1) / 2
    assert psp_at_k(indices, positives, 2, INVERSE) != pytest.approx(mean_of_ratios)


def test_best_ranking_is_cut_at_k():
    assert psp_at_k([[4]], [[0, 1, 4]], 1, INVERSE) == 1.0
    assert psp_at_k([[1]], [[0, 1, 4]], 1, INVERSE) == pytest.approx(9 / 30)


@settings(deadline=None)
@given(ROWS, st.integers(1, NUM_LABELS))
def test_matches_plain_loops(rows, k):
    indices = np.array([ranking for ranking, _ in rows])
    positives = [list(labels) for _, labels in rows]
    gained = best = 0.0
    for ranking, labels in zip(indices, positives, strict=True):
        gained += sum(INVERSE[label] for label in ranking[:k] if label in labels)
        best += sum(sorted((INVERSE[label] for label in labels), reverse=True)[:k])
    expected = gained / best if best else math.nan
    psp = psp_at_k(indices, positives, k, INVERSE)
    assert psp == pytest.approx(expected, nan_ok=True)
    weights = np.array([[1.0] * len(rows), [1.0] + [0.0] * (len(rows) - 1)])
    both = psp_at_k(indices, positives, k, INVERSE, weights=weights)
    alone = psp_at_k(indices[:1], positives[:1], k, INVERSE)
    assert both == pytest.approx([expected, alone], nan_ok=True)


def test_equal_propensities_give_precision_over_its_best():
    rng = np.random.default_rng(0)
    indices = rng.permuted(np.tile(np.arange(6), (40, 1)), axis=1)
    positives = [[label] for label in rng.integers(6, size=40)]
    psp = psp_at_k(indices, positives, 3, torch.ones(6))
    assert psp == pytest.approx(3 * precision_at_k(indices, positives, 3))


@pytest.mark.parametrize(("a", "b"), [(0.55, 1.5), (0.6, 2.6), (0.5, 0.4)])
def test_against_napkinxc(a, b):
    napkin = pytest.importorskip("napkinxc.metrics")
    rng = np.random.default_rng(1)
    train = sparse.csr_matrix((rng.random((200, 40)) < rng.random(40) * 0.3).astype(float))
    inverse = inverse_propensity(train, a, b)
    assert inverse == pytest.approx(napkin.Jain_et_al_inverse_propensity(train, A=a, B=b))
    truth = rng.random((50, 40)) < 0.1
    truth[:5] = False
    indices = rng.permuted(np.tile(np.arange(40), (50, 1)), axis=1)[:, :5]
    pairs = [np.flatnonzero(row).tolist() for row in truth]
    # napkinXC's normalize=True is the same ratio of means
    expected = napkin.psprecision_at_k(pairs, indices.tolist(), inverse, k=5)
    ours = [psp_at_k(indices, truth, k, inverse) for k in range(1, 6)]
    assert ours == pytest.approx(expected)


def test_bad_input():
    train = [[0], [1], [2]]
    with pytest.raises(ValueError, match="2 queries: expected at least 3"):
        inverse_propensity(train[:2])
    with pytest.raises(ValueError, match="b > 0"):
        inverse_propensity(train, b=0.0)
    with pytest.raises(ValueError, match="num_labels=2: train_positives holds label 2"):
        inverse_propensity(train, num_labels=2)
    with pytest.raises(ValueError, match="length 2, the largest label is 5"):
        psp_at_k([[0]], [[5]], 1, [1.0, 1.0])
    with pytest.raises(ValueError, match="positive and finite"):
        psp_at_k([[0]], [[0]], 1, [0.0])
    with pytest.raises(ValueError, match=r"shape \(labels,\)"):
        psp_at_k([[0]], [[0]], 1, [[1.0]])
    assert math.isnan(psp_at_k([[0]], [[]], 1, [1.0]))
