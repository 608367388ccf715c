"""Bootstrap intervals: the resampling itself, its clusters, pairing and speed."""

import math
import time
from functools import partial

import numpy as np
import pytest
import torch
from scipy import sparse

from alc_kernels.metrics import (
    aurc,
    bootstrap_interval,
    coverage_at_precision,
    opis,
    paired_bootstrap,
    precision_at_k,
    psp_at_k,
)
from alc_kernels.metrics import bootstrap as module

coverage = partial(coverage_at_precision, precision=0.8)


def weighted_mean(values, weights=None):
    if weights is None:
        return float(np.mean(values))
    return weights @ values / weights.sum(axis=-1)


def queries(n=300, seed=0):
    rng = np.random.default_rng(seed)
    correct = rng.random(n) < 0.7
    return np.round(rng.normal(size=n) + correct, 1), correct


def test_mean_has_the_textbook_interval():
    values = np.random.default_rng(0).normal(size=2000)
    interval = bootstrap_interval(np.mean, values, num_samples=2000)
    error = values.std() / math.sqrt(len(values))
    assert interval.estimate == values.mean()
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert interval.num_undefined == 0
    half = bootstrap_interval(np.mean, values, num_samples=2000, confidence=0.5)
    assert half.high - half.low == pytest.approx(2 * 0.6745 * error, rel=0.15)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    held = 0
    for trial in range(200):
        group = np.repeat(np.arange(40), 5)
        values = rng.normal(size=40)[group] + 0.3 * rng.normal(size=200)  # queries of a label agree
        interval = bootstrap_interval(
            weighted_mean, values, groups=group, num_samples=300, confidence=0.9, seed=trial
        )
        held += interval.low <= 0 <= interval.high
    assert 0.82 <= held / 200 <= 0.97


def test_same_seed_same_interval():
    data = queries()
    assert bootstrap_interval(coverage, *data) == bootstrap_interval(coverage, *data)
    assert bootstrap_interval(coverage, *data) != bootstrap_interval(coverage, *data, seed=1)


@pytest.mark.parametrize("statistic", [coverage, aurc])
def test_weights_equal_re_indexing(statistic):
    data, groups = queries(), np.arange(300) // 4
    fast = bootstrap_interval(statistic, *data, groups=groups, num_samples=200)
    slow = bootstrap_interval(
        lambda s, c: statistic(s, c), *data, groups=groups, num_samples=200
    )  # no weights parameter
    assert fast == pytest.approx(slow, abs=1e-12)


def test_chunks_do_not_show(monkeypatch):
    data = queries()
    expected = bootstrap_interval(coverage, *data, num_samples=100)
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 7 * 300)
    assert bootstrap_interval(coverage, *data, num_samples=100) == expected


def test_a_cluster_is_drawn_whole():
    values = queries(100)[0]
    single = bootstrap_interval(weighted_mean, values)
    # every query three times over says nothing new, so the interval must not shrink
    tripled, groups = np.repeat(values, 3), np.repeat(np.arange(100), 3)
    clustered = bootstrap_interval(weighted_mean, tripled, groups=groups)
    assert clustered == pytest.approx(single, abs=1e-12)
    naive = bootstrap_interval(weighted_mean, tripled)
    assert naive.high - naive.low < 0.75 * (single.high - single.low)


def test_group_names_and_negative_groups():
    values = queries(60)[0]
    groups = np.arange(60) // 3
    names = np.array([f"label {g:02d}" for g in groups])
    expected = bootstrap_interval(weighted_mean, values, groups=groups)
    assert bootstrap_interval(weighted_mean, values, groups=names) == expected
    assert bootstrap_interval(weighted_mean, values, groups=torch.from_numpy(groups)) == expected
    # "no label" makes each query its own cluster, not one big cluster
    none = bootstrap_interval(weighted_mean, values, groups=np.full(60, -1))
    assert none == bootstrap_interval(weighted_mean, values)
    draws = module.ClusterDraws(np.array([5, -1, 5, -1, -7]), 5)
    assert draws.num_clusters == 4
    assert draws.cluster.tolist() == [0, 1, 0, 2, 3]


def test_relations_are_resampled_with_their_queries():
    rng = np.random.default_rng(0)
    indices = rng.permuted(np.tile(np.arange(20), (80, 1)), axis=1)[:, :5]
    truth = rng.random((80, 20)) < 0.2
    inverse = rng.random(20) + 1
    groups = np.arange(80) // 2
    for metric in (
        partial(precision_at_k, k=5),
        partial(psp_at_k, k=5, inverse_propensity=inverse),
    ):
        csr = sparse.csr_matrix(truth)
        forms = (csr, (csr.indptr, csr.indices), [np.flatnonzero(row) for row in truth])
        expected = bootstrap_interval(metric, indices, truth, groups=groups, num_samples=60)
        for form in forms:
            fast = bootstrap_interval(metric, indices, form, groups=groups, num_samples=60)
            slow = bootstrap_interval(
                lambda i, p, metric=metric: metric(i, p),
                indices,
                form,
                groups=groups,
                num_samples=60,
            )
            assert fast == expected
            assert slow == pytest.approx(expected, abs=1e-12)


def test_undefined_replicates_are_left_out_and_counted():
    def ratio(hits, weights=None):
        weights = np.ones((1, len(hits))) if weights is None else weights
        accepted = weights @ hits
        values = np.where(accepted > 0, accepted / weights.sum(axis=1), np.nan)
        return values if len(values) > 1 else float(values[0])

    interval = bootstrap_interval(ratio, np.array([1.0, 0.0, 0.0]), num_samples=500)
    assert 90 < interval.num_undefined < 210  # (2/3)^3 of 500 = 148
    assert interval.low == pytest.approx(1 / 3)
    assert interval.high == pytest.approx(2 / 3) or interval.high == 1.0
    nothing = bootstrap_interval(opis, *queries(30), np.arange(30), num_samples=20)
    assert nothing.num_undefined == 20
    assert math.isnan(nothing.low)


def test_infinite_replicates_are_order_statistics():
    interval = bootstrap_interval(np.max, np.array([math.inf, 1.0]), num_samples=200)
    assert (interval.low, interval.high) == (1.0, math.inf)


def test_a_system_against_itself_differs_by_nothing():
    data = queries()
    assert paired_bootstrap(coverage, data, data) == (0.0, 0.0, 0.0, 0)


def test_exchanging_systems_mirrors_the_interval():
    first, second = queries(), queries(seed=1)
    groups = np.arange(300) // 3
    forward = paired_bootstrap(coverage, first, second, groups=groups)
    backward = paired_bootstrap(coverage, second, first, groups=groups)
    assert forward.estimate == -backward.estimate
    assert (forward.low, forward.high) == (-backward.high, -backward.low)
    assert forward.low < forward.estimate < forward.high


def test_pairing_is_narrower_than_two_intervals():
    scores, correct = queries(1000)
    flipped = correct.copy()
    flipped[:20] = ~flipped[:20]
    apart = bootstrap_interval(np.mean, correct)
    together = paired_bootstrap(lambda s, c: np.mean(c), (scores, correct), (scores, flipped))
    assert together.high - together.low < 0.5 * (apart.high - apart.low)


def test_runs_are_averaged_on_the_same_clusters():
    first = [queries(seed=seed) for seed in range(3)]
    second = [queries(seed=seed) for seed in range(3, 5)]
    groups = np.arange(300) // 3
    interval = paired_bootstrap(coverage, first, second, groups=groups, num_samples=150, seed=4)

    rng = np.random.default_rng(4)
    draws = rng.integers(100, size=(150, 100))
    members = np.arange(300).reshape(100, 3)
    replicates = []
    for draw in draws:
        rows = members[draw].ravel()
        means = [np.mean([coverage(s[rows], c[rows]) for s, c in runs]) for runs in (first, second)]
        replicates.append(means[0] - means[1])
    replicates.sort()
    assert interval.low == pytest.approx(replicates[round(0.025 * 149)], abs=1e-12)
    assert interval.high == pytest.approx(replicates[149 - round(0.025 * 149)], abs=1e-12)
    expected = np.mean([coverage(*run) for run in first]) - np.mean(
        [coverage(*run) for run in second]
    )
    assert interval.estimate == pytest.approx(expected)


def test_repeating_a_run_changes_nothing():
    first, second = queries(), queries(seed=1)
    expected = paired_bootstrap(coverage, first, second)
    assert paired_bootstrap(coverage, [first, first], [second]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bootstrap_interval(np.mean), ValueError, "arrays is empty"),
        (lambda: bootstrap_interval(np.mean, []), ValueError, "arrays are empty"),
        (lambda: bootstrap_interval(np.mean, 3.0), ValueError, "one entry per query"),
        (lambda: bootstrap_interval(aurc, [1.0], [1, 0]), ValueError, "length 1.*length 2"),
        (
            lambda: bootstrap_interval(np.mean, [1.0], groups=[1, 2]),
            ValueError,
            "groups has length 2",
        ),
        (lambda: bootstrap_interval(np.mean, [1.0], num_samples=0), ValueError, "num_samples=0"),
        (lambda: bootstrap_interval(np.mean, [1.0], confidence=1.0), ValueError, "confidence=1.0"),
        (lambda: paired_bootstrap(aurc, [], ([1.0], [1])), ValueError, "first is empty"),
        (
            lambda: paired_bootstrap(aurc, ([1.0], [1]), [[1.0]]),
            TypeError,
            "second must be a tuple",
        ),
        (
            lambda: paired_bootstrap(aurc, ([1.0], [1]), ([1.0, 2.0], [1, 0])),
            ValueError,
            "length 1.*length 2",
        ),
        (
            lambda: bootstrap_interval(lambda v, weights=None: 1.0, [1.0, 2.0]),
            ValueError,
            r"must return shape \(1000,\)",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_ten_thousand_queries_are_quick():
    rng = np.random.default_rng(0)
    correct = rng.random(10_000) < 0.8
    scores, groups = rng.normal(size=10_000) + correct, rng.integers(3000, size=10_000)
    start = time.process_time()
    bootstrap_interval(coverage, scores, correct, groups=groups, num_samples=1000)
    assert time.process_time() - start < 5.0
