"""Clopper-Pearson on effective counts, the design effect and the order of tests."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from alc_kernels.metrics.bounds import (
    design_effect,
    error_p_value,
    fallback,
    group_sums,
    incomplete_beta,
    plan,
    precision_lower_bound,
    queries_allowing,
)


@pytest.mark.parametrize("x", [0.001, 0.05, 0.5, 0.9, 0.999])
def test_incomplete_beta_is_scipys(x):
    rng = np.random.default_rng(0)
    a, b = 10 ** rng.uniform(-1, 5.5, (2, 500))
    expected = special.betainc(a, b, x)
    held = expected > 1e-280
    assert held.sum() > 200
    np.testing.assert_allclose(incomplete_beta(a, b, x)[held], expected[held], rtol=1e-8)


def test_p_value_is_the_binomials():
    errors, queries = np.array([0, 0, 1, 3, 40]), np.array([10, 59, 93, 200, 1000])
    expected = stats.binom.cdf(errors, queries, 0.05)
    np.testing.assert_allclose(error_p_value(errors, queries, 0.05), expected, rtol=1e-8)
    # at or above the rate, and where nothing is right or accepted
    assert error_p_value([5, 7, 0], [100, 7, 0], 0.05).tolist() == [1, 1, 1]


def test_fewest_queries_that_allow_so_many_errors():
    errors = np.array([0, 1, 5, 50])
    found = queries_allowing(errors, 0.05, 0.05)
    assert found[0] == 59  # 0.95^59 = 0.0485, 0.95^58 = 0.0510
    assert (stats.binom.cdf(errors, found, 0.05) <= 0.05).all()
    assert (stats.binom.cdf(errors, found - 1, 0.05) > 0.05).all()


@pytest.mark.parametrize(("errors", "queries"), [(0, 59), (3, 200), (2.5, 40.25), (0.3, 3)])
def test_lower_bound_of_the_precision(errors, queries):
    expected = stats.beta.ppf(0.05, queries - errors, errors + 1)
    assert precision_lower_bound(errors, queries, 0.05) == pytest.approx(expected, abs=1e-9)
    assert precision_lower_bound(queries, queries, 0.05) == 0.0


def brute_sums(group, wrong, end):
    m = np.bincount(group[:end])
    e = np.bincount(group[:end], weights=wrong[:end])
    return [m.sum(), e.sum(), (m * m).sum(), (m * e).sum(), (e * e).sum(), (m > 0).sum()]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40), st.data())
def test_sums_over_groups(queries, data):
    group, wrong = (np.array(column) for column in zip(*queries, strict=True))
    count = len(group)
    ends = data.draw(st.lists(st.integers(1, count), min_size=1, max_size=5, unique=True))
    ends = np.array(sorted(ends))
    found = np.array(group_sums(group, wrong, ends)).T
    assert found.tolist() == [brute_sums(group, wrong, end) for end in ends]


def sums_of(group, wrong):
    return group_sums(np.asarray(group), np.asarray(wrong, np.bool_), np.array([len(group)]))


def test_design_effect_of_lone_queries_is_1():
    rng = np.random.default_rng(0)
    assert design_effect(sums_of(np.arange(200), rng.random(200) < 0.1), 0).tolist() == [1.0]


def test_design_effect_without_an_error_takes_groups_as_one():
    group = np.repeat([0, 1, 2], [1, 2, 5])
    assert design_effect(sums_of(group, np.zeros(8)), 0)[0] == (1 + 4 + 25) / 8


def test_design_effect_of_groups_wrong_as_a_whole():
    group = np.repeat(np.arange(400), 8)
    wrong = np.isin(group, np.arange(0, 400, 10))  # 40 groups
    found = design_effect(sums_of(group, wrong), 0)[0]
    # the variance of the group sums over the binomial one is 8 (times 400 / 399)
    assert found == pytest.approx(1 + (8 * 400 / 399 - 1) * (1 + 3 / 40), rel=1e-12)


def test_design_effect_of_independent_errors_in_groups_is_about_1():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(2000), 5)
    assert 1 <= design_effect(sums_of(group, rng.random(10_000) < 0.1), 0)[0] < 1.1


def test_few_errors_borrow_the_design_effect_at_half_coverage():
    group = np.repeat(np.arange(100), 6)
    wrong = np.zeros(600, np.bool_)
    wrong[2] = True  # one error among the first 300
    wrong[300:360] = True  # ten groups wrong as a whole below
    ends = np.array([300, 600])
    sums = group_sums(group, wrong, ends)
    alone = design_effect(group_sums(group, wrong, ends[:1]), 0)[0]
    borrowed = design_effect(sums, 1)
    assert alone < 1.1
    assert borrowed[0] == borrowed[1] > 5


@pytest.mark.parametrize("precision", [0.6, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("queries", [150, 1000, 20_000])
def test_plan(queries, precision):
    places, shares = plan(queries, precision, 0.05)
    if not len(places):
        assert queries < queries_allowing(np.zeros(1, np.int64), 1 - precision, 0.05)[0]
        return
    assert (np.diff(places) > 0).all() and places[0] >= 1 and places[-1] == queries
    assert shares.sum() == pytest.approx(1.0) and (shares >= 0).all()
    assert len(set(shares[shares > 0])) == 1
    starts = places[shares > 0]
    assert len(starts) == 1 or starts[-1] <= queries / 2
    # a start can pass with an error, at its own level, if there are queries enough
    if len(starts) > 1:
        assert error_p_value([1], places[:1], 1 - precision)[0] <= 0.05 / len(starts)


def test_fallback_hands_levels_on_and_takes_up_again():
    levels = np.array([0.02, 0.0, 0.03, 0.0])
    rejected, tested = fallback(np.array([0.02, 0.01, 0.05, 0.05]), levels)
    assert rejected.tolist() == [True, True, True, True]
    assert tested.tolist() == pytest.approx([0.02, 0.02, 0.05, 0.05])
    rejected, tested = fallback(np.array([0.5, 0.0, 0.03, 0.031]), levels)
    # stopped at once; 0 at level 0 is still a certainty
    assert rejected.tolist() == [False, True, True, False]
    assert tested.tolist() == pytest.approx([0.02, 0.0, 0.03, 0.03])


@pytest.mark.parametrize("common", [0.0, 0.9, 1.0])
def test_fallback_rejects_a_true_hypothesis_at_most_at_its_level(common):
    rng = np.random.default_rng(0)
    levels = np.array([0.04, 0.0, 0.03, 0.0, 0.03])
    shared, own = rng.standard_normal((20_000, 1)), rng.standard_normal((20_000, 5))
    z = np.sqrt(common) * shared + np.sqrt(1 - common) * own
    z[:, :2] -= 4.0  # the first two are false and nearly always rejected
    wrongly = [fallback(p, levels)[0][2:].any() for p in special.ndtr(z)]
    assert np.mean(wrongly) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 20_000)
    assert np.mean(wrongly) > 0.06  # and hardly any of it is wasted
