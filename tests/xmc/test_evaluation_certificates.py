"""Certificates in words and numbers, the band of new products, least cost, one to one."""

import itertools
import math

import numpy as np
import pytest

from alc_kernels.acceptance import one_to_one
from alc_kernels.metrics import certified_threshold
from alc_kernels.trainer.data import Split
from alc_kernels.trainer.data.text.sparse import relation_from_rows
from alc_kernels.trainer.evaluation.certificates import (
    certify,
    certify_categories,
    certify_new,
    least_cost,
)
from alc_kernels.trainer.evaluation.predictions import Predictions


def found_of(scores, correct, answerable=None, group=None):
    """Predictions with one label per title."""
    count = len(scores)
    column = (count, 1)
    return Predictions(
        np.zeros(column, np.int64),
        np.asarray(scores, np.float32).reshape(column),
        np.asarray(correct, bool).reshape(column),
        np.zeros(column),
        np.zeros(column),
        np.ones(count, np.int64) if answerable is None else np.asarray(answerable, np.int64),
        np.arange(count) if group is None else np.asarray(group),
    )


def draws(count=2000, products=500, seed=0, missing=0.2):
    """Right answers score higher; titles of missing products lower."""
    rng = np.random.default_rng(seed)
    group = rng.integers(products, size=count)
    absent = rng.random(products)[group] < missing
    quality = rng.normal(size=count) - 4.0 * absent
    correct = (quality + 0.4 * rng.normal(size=count) > -0.9) & ~absent
    return found_of(quality, correct, ~absent, group)


def test_a_certificate_says_what_the_arrays_say():
    found = draws()
    made = certify(found, 0.95)
    own = certified_threshold(found.top_score, found.correct, 0.95, groups=found.group)
    assert made.found == own and made.certified
    accept = found.top_score >= made.threshold
    assert made.coverage == accept.mean()
    assert made.products == len(np.unique(found.group))
    products = len(np.unique(found.group[accept]))
    assert made.text() == (
        f"at 95 %: accept from {made.threshold:.3f}, {100 * accept.mean():.0f} % of titles, "
        f"certified with 95 % confidence on {products:,} products"
    )


def test_titles_of_unknown_product_are_counted_and_told():
    found = draws()
    group = found.group.copy()
    group[:7] = -1
    made = certify(found_of(found.scores, found.correct, found.answerable, group), 0.9)
    assert made.unknown == 7 and made.products == len(np.unique(group[7:])) + 7
    assert made.text().endswith("(7 titles of unknown product counted as one product each)")


def test_titles_of_the_same_words_are_one_unknown_product():
    titles = ["Nova 7, black", "black nova 7", "luma 3", "!", "?", "nova 7 black", "own", "own"]
    relation = relation_from_rows([[], [], [], [], [], [], [1], []], 2)
    assert Split(titles, relation).group_numbers().tolist() == [2, 2, -1, -1, -1, 2, 1, -1]
    named = Split(titles, relation, groups=["x", "", "", "", "", "x", "", ""])
    assert named.group_numbers().tolist() == [2, -1, -1, -1, -1, 2, 1, -1]


def test_what_is_missing_is_told_in_products():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=100)
    correct = rng.random(100) < 0.99
    group = np.arange(100) // 2
    made = certify(found_of(scores, correct, group=group), 0.95)
    assert not made.certified and made.threshold == math.inf
    products, coverage = made.outlook()
    queries = made.found.needed(coverage)
    assert products == math.ceil(queries * 50 / 100) and queries == min(
        made.found.needed(c / 20) for c in range(1, 21)
    )
    assert made.text() == (
        f"at 95 %: not certifiable: {products:,.0f} more reviewed products would be needed for "
        f"{100 * coverage:.0f} %"
    )
    hopeless = certify(found_of(scores, np.arange(100) % 2 == 0), 0.95)
    assert math.isnan(hopeless.outlook()[0])
    assert "more would not help" in hopeless.text()


def test_one_lucky_title_is_no_certificate():
    scores, correct = np.linspace(1, 0, 100), np.zeros(100, bool)
    correct[0] = True
    assert certify(found_of(scores, correct), 0.9).threshold == math.inf
    few = certify(found_of([0.9, 0.8], [True, True]), 0.9)
    assert few.threshold == math.inf and "more reviewed products" in few.text()


def test_the_band_of_new_products():
    found = draws()
    made = certify_new(found, 0.9)
    assert made.certified
    new = -found.top_score >= made.threshold
    assert (~found.answerable)[new].mean() >= 0.9
    assert made.coverage == new.mean() > 0.1
    # Lower scores are in it, and it is what certified_threshold says on 1 - score.
    assert found.top_score[new].max() < found.top_score[~new].min()
    own = certified_threshold(1 - found.top_score, ~found.answerable, 0.9, groups=found.group)
    np.testing.assert_allclose(1 - own.threshold, -made.threshold, rtol=1e-6)
    told = certify_new(draws(missing=0.0), 0.9)
    assert isinstance(told, str) and "no band of new products" in told


@pytest.mark.slow
def test_the_band_of_new_products_keeps_its_promise():
    """In at most about 5 % of draws more of it is in the catalogue than promised."""
    broken = 0
    for seed in range(200):
        made = certify_new(draws(1500, seed=seed), 0.9)
        fresh = draws(40_000, 10_000, seed=10_000 + seed)
        new = -fresh.top_score >= made.threshold
        broken += bool(new.any()) and (~fresh.answerable)[new].mean() < 0.9
    assert broken <= 17  # 200 x 5 % and two standard deviations


def test_categories_have_their_own_certificates():
    easy, hard = draws(seed=1, missing=0.02), draws(seed=2, missing=0.4)
    few = draws(20, 20, seed=3)
    parts = (easy, hard, few)
    arrays = [np.concatenate([getattr(p, n) for p in parts]) for n in ("scores", "hits")]
    group = np.concatenate([p.group + 10_000 * n for n, p in enumerate(parts)])
    names = ["easy"] * len(easy) + ["hard"] * len(hard) + ["few"] * len(few)
    found = found_of(*arrays, group=group)
    made = certify_categories(found, names, 0.95)
    assert list(made) == ["easy", "hard", "few"]
    assert made["easy"].coverage > made["hard"].coverage > 0
    assert not made["few"].certified and made["few"].threshold == certify(found, 0.95).threshold
    assert "the threshold of all: too few titles" in made["few"].text()
    assert made["easy"].titles == len(easy)


@pytest.mark.parametrize(("wrong", "review"), [(10.0, 1.0), (1.0, 1.0), (3.0, 0.5), (1.0, 9.0)])
def test_least_cost_against_every_threshold(wrong, review):
    found = draws(300, 80, seed=4)
    ties = found_of(np.round(found.top_score, 1), found.correct, group=found.group)
    made = least_cost(ties, wrong, review, replicates=200)
    tried = {}
    for threshold in [np.inf, *np.unique(ties.top_score)]:
        accept = ties.top_score >= threshold
        cost = wrong * (accept & ~ties.correct).mean() + review * (~accept).mean()
        tried[threshold] = cost
    assert made.cost == pytest.approx(min(tried.values()), abs=1e-12)
    assert tried[made.threshold] == pytest.approx(made.cost, abs=1e-12)
    assert made.of(ties) == pytest.approx(made.cost, abs=1e-12)
    assert made.coverage == (ties.top_score >= made.threshold).mean()
    assert made.low <= made.cost <= made.high
    assert made.thresholds[0] <= made.threshold <= made.thresholds[1]
    if (wrong, review) == (1.0, 9.0):  # a look costs more than any error
        assert made.coverage == 1.0
    with pytest.raises(ValueError, match="cost of review = 0"):
        least_cost(ties, 1.0, 0.0)


def test_titles_without_a_candidate_are_never_accepted():
    scores, correct = np.array([0.9, 0.5, -np.inf]), np.array([True, False, False])
    made = least_cost(found_of(scores, correct), 1.0, 100.0, replicates=10)
    assert made.threshold == 0.5 and made.cost == pytest.approx(101 / 3)


def test_one_to_one_against_all_choices():
    rng = np.random.default_rng(0)
    for _ in range(30):
        count, labels, width = (int(n) for n in rng.integers([1, 2, 1], [6, 6, 4]))
        width = min(width, labels)
        candidates = np.array([rng.permutation(labels)[:width] for _ in range(count)])
        candidates[rng.random(candidates.shape) < 0.2] = -1
        values = rng.uniform(-0.2, 1, size=candidates.shape)
        values[rng.random(candidates.shape) < 0.1] = np.nan
        places = one_to_one(candidates, values)
        taken = [candidates[n, p] for n, p in enumerate(places) if p >= 0]
        assert len(set(taken)) == len(taken) and -1 not in taken
        gained = sum(values[n, p] for n, p in enumerate(places) if p >= 0)
        best = 0.0
        for choice in itertools.product(range(-1, width), repeat=count):
            used = [candidates[n, p] for n, p in enumerate(choice) if p >= 0]
            if -1 in used or len(set(used)) < len(used):
                continue
            best = max(best, np.sum([values[n, p] for n, p in enumerate(choice) if p >= 0]))
        assert gained == pytest.approx(best, abs=1e-12)
    assert one_to_one(np.full((2, 1), -1), np.zeros((2, 1))).tolist() == [-1, -1]
    with pytest.raises(ValueError, match=r"values: found shape \(1, 2\)"):
        one_to_one(np.zeros((1, 3), np.int64), np.zeros((1, 2)))
