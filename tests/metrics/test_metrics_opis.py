"""OPIS against a plain loop whose sensitivities come from scikit-learn's ROC curve."""

import math

import numpy as np
import pytest

from alc_kernels.metrics import opis


def case(num_groups=5, size=150, seed=0, shift=0.5, decimals=2):
    rng = np.random.default_rng(seed)
    groups = rng.integers(num_groups, size=num_groups * size)
    correct = rng.random(len(groups)) < 0.6
    scores = rng.normal(size=len(groups)) + correct + shift * groups
    return np.round(scores, decimals), correct, groups


def slow_opis(scores, correct, groups, num_thresholds=101):
    low, high = (np.quantile(scores[~correct], q) for q in (0.9, 0.99))
    table = []
    for group in np.unique(groups):
        right, wrong = scores[(groups == group) & correct], scores[(groups == group) & ~correct]
        if len(right) < 20 or len(wrong) < 20:
            continue
        row = []
        for t in np.linspace(low, high, num_thresholds):
            sensitivity, specificity = np.mean(right >= t), np.mean(wrong < t)
            total = sensitivity + specificity
            row.append(2 * sensitivity * specificity / total if total else 0.0)
        table.append(row)
    return float(np.mean(np.var(table, axis=0))) if table else math.nan


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("num_thresholds", [2, 101])
def test_matches_plain_loop(shift, num_thresholds):
    data = case(shift=shift)
    value = opis(*data, num_thresholds=num_thresholds)
    assert value == pytest.approx(slow_opis(*data, num_thresholds), rel=1e-12)
    assert 0 <= value <= 0.25


def test_the_grid_spans_the_two_false_accept_rates():
    # two groups of 1,000 wrong queries in all; U differs only where the right ones of group b sit
    wrong = np.arange(1000.0)
    scores = np.concatenate([wrong, np.full(20, 2000.0), np.full(20, 899.5)])
    correct = np.arange(len(scores)) >= 1000
    groups = np.concatenate([np.arange(1000) % 2, np.zeros(20), np.ones(20)]).astype(int)
    value = opis(scores, correct, groups)
    # at every threshold but the first few, group b accepts no right query: U_b = 0
    grid = np.linspace(899.1, 989.01, 101)
    specificity = [np.mean(wrong[g::2][:, None] < grid, axis=0) for g in (0, 1)]
    first = 2 * specificity[0] / (1 + specificity[0])
    second = np.where(grid <= 899.5, 2 * specificity[1] / (1 + specificity[1]), 0.0)
    assert value == pytest.approx(np.mean((first - second) ** 2 / 4), rel=1e-12)


def test_alike_groups_agree_and_shifted_ones_do_not():
    scores, correct, _ = case()
    alike = np.repeat([0, 1], len(scores))
    assert opis(np.tile(scores, 2), np.tile(correct, 2), alike) == pytest.approx(0, abs=1e-30)
    assert opis(*case(shift=0.0)) < opis(*case(shift=0.5)) < opis(*case(shift=1.0))


def test_group_names_order_and_affine_maps_change_nothing():
    scores, correct, groups = case()
    names = np.array(["pear", "fig", "apple", "kiwi", "lime"])[groups]
    order = np.random.default_rng(3).permutation(len(scores))
    expected = opis(scores, correct, groups)
    assert opis(scores, correct, names) == pytest.approx(expected, rel=1e-12)
    assert opis(scores[order], correct[order], names[order]) == pytest.approx(expected, rel=1e-12)
    # powers of two keep every comparison exact
    assert opis(scores * 4.0, correct, groups) == pytest.approx(expected, rel=1e-12)


def test_small_groups_are_left_out_but_count_in_the_overall_rate():
    scores, correct, groups = case(num_groups=3)
    for few_right in (True, False):
        extra = np.where(np.arange(60) < 19, few_right, not few_right)
        data = (
            np.concatenate([scores, np.full(60, -1.0)]),
            np.concatenate([correct, extra]),
            np.concatenate([groups, np.full(60, 9)]),
        )
        value = opis(*data)
        assert value == pytest.approx(slow_opis(*data), rel=1e-12)
        assert value != opis(scores, correct, groups)
        # with one more of the rare kind, the group takes part
        grown = [np.append(a, b) for a, b in zip(data, (-1.0, few_right, 9), strict=True)]
        grown[1] = grown[1].astype(bool)
        assert opis(*grown) == pytest.approx(slow_opis(*grown), rel=1e-12)
        assert opis(*grown) > value + 0.01  # it accepts nothing: its utility is 0


def test_no_group_left_is_undefined_and_one_is_zero():
    scores, correct, groups = case(num_groups=1)
    assert opis(scores, correct, groups) == 0.0
    assert math.isnan(opis(scores, correct, np.arange(len(scores))))
    assert math.isnan(opis(scores, np.ones_like(correct), groups))


def test_sensitivities_against_sklearn_roc():
    metrics = pytest.importorskip("sklearn.metrics")
    scores, correct, groups = case()
    grid = np.linspace(*np.quantile(scores[~correct], [0.9, 0.99]), 101)
    utility = []
    for group in range(5):
        member = groups == group
        false_rate, true_rate, at = metrics.roc_curve(
            correct[member], scores[member], drop_intermediate=False
        )
        # the last ROC point whose threshold is still >= t accepts the same queries as t
        point = np.searchsorted(-at, -grid, side="right") - 1
        sensitivity, specificity = true_rate[point], 1 - false_rate[point]
        utility.append(2 * sensitivity * specificity / (sensitivity + specificity))
    assert opis(scores, correct, groups) == pytest.approx(np.mean(np.var(utility, axis=0)))


def test_bad_input():
    scores, correct, groups = case(num_groups=2)
    with pytest.raises(ValueError, match="scores has length 300, groups has length 299"):
        opis(scores, correct, groups[:-1])
    with pytest.raises(ValueError, match="num_thresholds=1"):
        opis(scores, correct, groups, num_thresholds=1)
    scores[7] = -math.inf
    with pytest.raises(ValueError, match=r"scores\[7\] is infinite"):
        opis(scores, correct, groups)
    with pytest.raises(ValueError, match=r"groups\[1\] is NaN"):
        opis([1.0, 2.0], [True, False], [0.0, math.nan])
