"""Coverage at a precision, its threshold and AURC, against a brute force over all thresholds."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alc_kernels.metrics import (
    aurc,
    coverage_at_precision,
    precision_coverage_curve,
    threshold_at_precision,
    transferred_coverage,
)

# few distinct scores, so that ties are the rule
QUERIES = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=25)
PRECISIONS = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 2 / 3, 0.75, 0.9, 0.95, 1.0])


def split(queries):
    scores, correct = zip(*queries, strict=True)
    return np.array(scores, dtype=np.float64), np.array(correct)


def brute_coverage(scores, correct, precision):
    """(C(p), its lowest threshold) by trying every score as the threshold."""
    best, threshold = 0.0, math.inf
    for t in set(scores.tolist()):
        accept = scores >= t
        if correct[accept].sum() / accept.sum() >= precision and accept.mean() > best:
            best, threshold = accept.mean(), t
    return best, threshold


def brute_aurc(scores, correct):
    return np.mean([1 - correct[scores >= c].mean() for c in scores])


def test_hand_computed_curve():
    # sorted: 5 right | 4 wrong, 4 right (tied) | 2 right | 1 wrong
    scores, correct = [4.0, 5.0, 1.0, 4.0, 2.0], [False, True, False, True, True]
    curve = precision_coverage_curve(scores, correct)
    assert curve.thresholds.tolist() == [5, 4, 2, 1]
    assert curve.coverage.tolist() == [1 / 5, 3 / 5, 4 / 5, 1]
    assert curve.precision.tolist() == [1, 2 / 3, 3 / 4, 3 / 5]
    # precision is not monotone: .75 is met at 5 and again at 2, and the larger coverage counts
    assert coverage_at_precision(scores, correct, 0.75) == 0.8
    assert threshold_at_precision(scores, correct, 0.75) == 2.0
    assert coverage_at_precision(scores, correct, 0.76) == 0.2
    assert threshold_at_precision(scores, correct, 0.76) == 5.0
    assert coverage_at_precision(scores, correct, 0.6) == 1.0
    assert aurc(scores, correct) == pytest.approx((0 + 1 / 3 + 1 / 3 + 1 / 4 + 2 / 5) / 5)


def test_a_threshold_cannot_split_tied_scores():
    # taking the right half of the tie alone would give precision 1 at coverage .5
    assert coverage_at_precision([1.0, 1.0], [True, False], 0.9) == 0.0
    assert coverage_at_precision([1.0, 1.0], [False, True], 0.5) == 1.0
    assert aurc([1.0, 1.0], [True, False]) == 0.5


def test_no_threshold_attains_the_precision():
    assert coverage_at_precision([2.0, 1.0], [False, True], 0.9) == 0.0
    assert threshold_at_precision([2.0, 1.0], [False, True], 0.9) == math.inf
    moved = transferred_coverage([2.0, 1.0], [False, True], [math.inf, 3.0], [True, True], 0.9)
    assert moved[:2] == (math.inf, 0.0)
    assert math.isnan(moved.precision)


def test_open_set_queries_count_and_are_wrong():
    closed = coverage_at_precision([4.0, 3.0, 2.0], [True, True, True], 1.0)
    scores, correct = [4.0, 3.5, 3.0, 2.0], [True, False, True, True]  # the second is open-set
    assert closed == 1.0
    assert coverage_at_precision(scores, correct, 1.0) == 0.25
    assert coverage_at_precision(scores, correct, 0.75) == 1.0


def test_transferred_coverage_by_hand():
    moved = transferred_coverage(
        [5.0, 4.0, 3.0, 2.0],
        [True, True, False, False],
        [9.0, 4.0, 4.5, 3.9, 1.0],
        [1, 0, 1, 1, 1],
        0.9,
    )
    assert moved.threshold == 4.0
    assert moved.coverage == 3 / 5
    assert moved.precision == 2 / 3
    nothing = transferred_coverage([5.0], [True], [4.0], [True], 0.9)
    assert nothing[:2] == (5.0, 0.0)
    assert math.isnan(nothing.precision)


@settings(deadline=None)
@given(QUERIES, PRECISIONS)
def test_matches_brute_force(queries, precision):
    scores, correct = split(queries)
    coverage, threshold = brute_coverage(scores, correct, precision)
    assert coverage_at_precision(scores, correct, precision) == coverage
    assert threshold_at_precision(scores, correct, precision) == threshold
    assert aurc(scores, correct) == pytest.approx(brute_aurc(scores, correct), abs=1e-12)


@settings(deadline=None)
@given(QUERIES)
def test_coverage_falls_with_the_precision_asked(queries):
    scores, correct = split(queries)
    coverage = [coverage_at_precision(scores, correct, p) for p in np.linspace(0, 1, 21)]
    assert coverage[0] == 1.0
    assert all(np.diff(coverage) <= 0)


@settings(deadline=None)
@given(QUERIES, PRECISIONS, st.randoms(use_true_random=False))
def test_increasing_maps_and_order_change_nothing(queries, precision, random):
    scores, correct = split(queries)
    order = list(range(len(scores)))
    random.shuffle(order)
    mapped = (scores**3 + 2 * scores - 7)[order]  # exact on small integers, so ties stay ties
    shuffled = correct[order]
    assert coverage_at_precision(mapped, shuffled, precision) == coverage_at_precision(
        scores, correct, precision
    )
    assert aurc(mapped, shuffled) == aurc(scores, correct)


@settings(deadline=None)
@given(QUERIES, QUERIES, PRECISIONS)
def test_transfer_applies_the_validation_threshold(validation, test, precision):
    val, (scores, correct) = split(validation), split(test)
    moved = transferred_coverage(*val, scores, correct, precision)
    accept = scores >= brute_coverage(*val, precision)[1]
    assert moved.coverage == accept.mean()
    if accept.any():
        assert moved.precision == correct[accept].mean()
    # on the queries it was chosen on, it is C(p)
    same = transferred_coverage(scores, correct, scores, correct, precision)
    assert same.coverage == coverage_at_precision(scores, correct, precision)


@settings(deadline=None)
@given(QUERIES, PRECISIONS, st.data())
def test_integer_weights_are_repeats(queries, precision, data):
    scores, correct = split(queries)
    size = len(scores)
    row = st.lists(st.integers(0, 3), min_size=size, max_size=size).filter(any)
    weights = np.array(data.draw(st.lists(row, min_size=1, max_size=3)))
    for statistic, exact in (
        (lambda s, c, **w: coverage_at_precision(s, c, precision, **w), True),
        (lambda s, c, **w: threshold_at_precision(s, c, precision, **w), True),
        (aurc, False),
    ):
        repeated = [statistic(np.repeat(scores, w), np.repeat(correct, w)) for w in weights]
        at_once = statistic(scores, correct, weights=weights)
        assert at_once.shape == (len(weights),)
        if exact:
            assert at_once.tolist() == repeated
        else:
            assert at_once == pytest.approx(repeated, abs=1e-12)
        single = statistic(scores, correct, weights=weights[0])
        assert isinstance(single, float)
        assert single == at_once[0]


def test_weights_are_not_written_to():
    weights = np.ones((2, 3))
    coverage_at_precision([3.0, 2.0, 1.0], [True, False, True], 0.5, weights=weights)
    assert (weights == 1).all()


def test_weighted_curve():
    curve = precision_coverage_curve([3.0, 2.0, 1.0], [True, False, True], weights=[0.0, 1.0, 3.0])
    assert curve.coverage.tolist() == [0, 0.25, 1]
    assert math.isnan(curve.precision[0])
    assert curve.precision[1:].tolist() == [0, 0.75]
    with pytest.raises(ValueError, match="one curve per call"):
        precision_coverage_curve([1.0], [True], weights=[[1.0]])


@pytest.mark.parametrize("denominator", range(1, 201))
def test_a_precision_that_is_met_exactly_is_met(denominator):
    # 19 of 20 must attain .95 whatever the rounding
    for percent in range(5, 101, 5):
        if percent * denominator % 100 == 0:
            right = percent * denominator // 100
            correct = np.arange(denominator) < right
            assert coverage_at_precision(np.ones(denominator), correct, percent / 100) == 1.0


def test_infinite_scores_are_legal():
    scores, correct = [math.inf, 1.0, -math.inf, -math.inf], [True, True, False, True]
    assert coverage_at_precision(scores, correct, 0.75) == 1.0
    assert coverage_at_precision(scores, correct, 1.0) == 0.5
    assert threshold_at_precision(scores, correct, 0.75) == -math.inf
    assert transferred_coverage([math.inf], [1], [math.inf, 1.0], [1, 1], 0.9).coverage == 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_takes_tensors(dtype):
    scores = torch.tensor([3.0, 2.0, 1.0], dtype=dtype, requires_grad=True)
    correct = torch.tensor([True, False, True])
    result = coverage_at_precision(scores, correct, 0.6)
    assert isinstance(result, float)
    assert result == 1.0
    assert isinstance(aurc(scores, correct), float)
    assert all(
        isinstance(x, float) for x in transferred_coverage(scores, correct, scores, correct, 0.6)
    )


@pytest.mark.parametrize(
    ("scores", "correct", "message"),
    [
        ([], [], "scores is empty"),
        ([1.0], [], "correct is empty"),
        ([1.0, 2.0, 3.0], [True, False], "scores has length 3, correct has length 2"),
        ([1.0, math.nan, math.nan], [1, 0, 1], r"scores\[1\] is NaN \(2 NaN of 3"),
        ([1.0, 2.0], [0, 2], r"correct\[1\] is 2"),
        ([1.0, 2.0], [0.0, math.nan], r"correct\[1\] is nan"),
        ([[1.0, 2.0]], [0, 1], r"scores must have shape \(n,\), got \(1, 2\)"),
    ],
)
def test_bad_queries(scores, correct, message):
    for statistic in (
        aurc,
        precision_coverage_curve,
        lambda s, c: coverage_at_precision(s, c, 0.9),
        lambda s, c: threshold_at_precision(s, c, 0.9),
    ):
        with pytest.raises(ValueError, match=message):
            statistic(scores, correct)
    with pytest.raises(ValueError, match="test_"):
        transferred_coverage([1.0], [True], scores, correct, 0.9)
    with pytest.raises(ValueError, match="val_"):
        transferred_coverage(scores, correct, [1.0], [True], 0.9)


@pytest.mark.parametrize("precision", [-0.1, 1.5, math.nan])
def test_bad_precision(precision):
    with pytest.raises(ValueError, match="precision="):
        coverage_at_precision([1.0], [True], precision)
    with pytest.raises(ValueError, match="precision="):
        transferred_coverage([1.0], [True], [1.0], [True], precision)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"weights must have shape \(2,\)"),
        ([1.0, -1.0], "not negative"),
        ([1.0, math.nan], "finite"),
        ([1.0, math.inf], "finite"),
        ([0.0, 0.0], "sum to 0"),
        ([[1.0, 1.0], [0.0, 0.0]], "sum to 0"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        coverage_at_precision([1.0, 2.0], [True, False], 0.5, weights=weights)


def test_text_is_not_a_score():
    with pytest.raises(TypeError, match="scores must be real numbers"):
        aurc(["a", "b"], [True, False])
    with pytest.raises(TypeError, match="correct must be booleans"):
        aurc([1.0, 2.0], ["yes", "no"])


def test_against_sklearn_precision_recall_curve():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    correct = rng.random(500) < 0.6
    scores = np.round(rng.normal(size=500) + correct, 1)  # many ties
    precision, recall, thresholds = metrics.precision_recall_curve(correct, scores)
    curve = precision_coverage_curve(scores, correct)
    assert (curve.thresholds[::-1] == thresholds).all()
    assert curve.precision[::-1] == pytest.approx(precision[:-1], abs=1e-12)
    # recall * positives = accepted * precision
    accepted = recall[:-1] * correct.sum() / precision[:-1]
    assert curve.coverage[::-1] == pytest.approx(accepted / 500, abs=1e-12)
