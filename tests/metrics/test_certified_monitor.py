"""Watching a promise: an evidence that may be looked at after every decision."""

import math

import numpy as np
import pytest

from alc_kernels.metrics import PrecisionMonitor


def decisions(rng, groups, size, wrong, alike=1.0):
    """(correct, group): groups whose share of wrong ones varies, ``wrong`` in the mean."""
    share = rng.beta(wrong / alike, (1 - wrong) / alike, groups)
    return rng.random((groups, size)) >= share[:, None], np.repeat(np.arange(groups), size)


def test_evidence_by_hand():
    monitor = PrecisionMonitor(0.9, largest_group=2)
    assert (monitor.evidence, monitor.state) == (pytest.approx(1.0), "valid")
    assert monitor.update([1, 0, 1], [7, 7, 8]) == "valid"
    bets = 0.9 * 0.5 ** np.arange(10) / (0.1 * 2)
    # group 7: one wrong of two, 0.8 more than the promise allows; group 8: 0.1 less
    expected = np.mean((1 + bets * 0.8) * (1 - bets * 0.1))
    assert monitor.evidence == pytest.approx(expected, rel=1e-12)
    assert (monitor.reviewed, monitor.wrong, monitor.num_groups) == (3, 1, 2)


def test_a_group_counts_once():
    monitor = PrecisionMonitor(0.9, largest_group=3)
    monitor.update([1, 0], ["a", "b"])
    before = monitor.evidence
    monitor.update([0, 0, 0], ["a", "b", "b"])
    assert monitor.evidence == before
    assert (monitor.reviewed, monitor.set_aside) == (2, 3)
    monitor.update([0, 0], [-1, -1])  # no group: each its own, again and again
    monitor.update([0, 0], [-1, -1])
    assert (monitor.reviewed, monitor.num_groups, monitor.set_aside) == (6, 6, 3)


def test_a_large_group_cannot_bankrupt_the_bet():
    monitor, small = (PrecisionMonitor(0.9, largest_group=2) for _ in range(2))
    monitor.update(np.ones(1000), np.zeros(1000, int))
    small.update(np.ones(2), np.zeros(2, int))
    assert monitor.evidence == small.evidence > 0


def test_every_decision_is_looked_at():
    """The wealth falls again within one call: the promise is void all the same."""
    monitor = PrecisionMonitor(0.9)
    assert monitor.update(np.append(np.zeros(5), np.ones(3000))) == "void"
    assert monitor.evidence < 20


def test_states():
    monitor = PrecisionMonitor(0.9, 0.95)
    seen = [monitor.state]
    for _ in range(6):
        seen.append(monitor.update([0]))
    assert seen == sorted(seen, key=["valid", "weakened", "void"].index)
    assert {"valid", "weakened", "void"} == set(seen)
    assert monitor.update(np.ones(10_000)) == "void"
    recovering = PrecisionMonitor(0.9, 0.95)
    while recovering.update([0]) != "weakened":
        pass
    assert recovering.update(np.ones(1000)) == "valid"


@pytest.mark.parametrize("alike", [0.01, 10.0])  # nearly independent; groups wrong as a whole
def test_a_kept_promise_is_hardly_ever_called_void(alike):
    """Right at the promised precision, looked at after each group, 600 histories."""
    rng = np.random.default_rng(0)
    ever, weak = [], []
    for _ in range(600):
        correct, group = decisions(rng, 300, 4, 0.1, alike)
        monitor = PrecisionMonitor(0.9, 0.9, largest_group=4)
        monitor.update(correct.ravel(), group)  # looks after each group by itself
        ever.append(monitor.state == "void")
        weak.append(monitor.state != "valid")
    assert np.mean(ever) <= 0.1 + 2 * math.sqrt(0.1 * 0.9 / 600)
    assert np.mean(weak) <= 0.1**0.5


@pytest.mark.parametrize("alike", [0.01, 10.0])
def test_a_broken_promise_is_found(alike):
    rng = np.random.default_rng(0)
    for _ in range(20):
        correct, group = decisions(rng, 1500, 4, 0.2, alike)
        monitor = PrecisionMonitor(0.9, largest_group=4)
        assert monitor.update(correct.ravel(), group) == "void"


def test_calls_can_be_split_at_will():
    correct, group = decisions(np.random.default_rng(0), 200, 3, 0.12)
    whole, parts = PrecisionMonitor(0.9, largest_group=3), PrecisionMonitor(0.9, largest_group=3)
    whole.update(correct.ravel(), group)
    for row, name in zip(correct, group[::3], strict=True):
        parts.update(row, np.full(3, name))
    assert parts.evidence == pytest.approx(whole.evidence, rel=1e-9)
    assert (parts.state, parts.wrong) == (whole.state, whole.wrong)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PrecisionMonitor(1.0), "precision=1.0"),
        (lambda: PrecisionMonitor(0.9, 0.0), "confidence=0.0"),
        (lambda: PrecisionMonitor(0.9, largest_group=0), "largest_group=0"),
        (lambda: PrecisionMonitor(0.9).update([]), "correct is empty"),
        (lambda: PrecisionMonitor(0.9).update([1, 3]), r"correct\[1\] is 3"),
        (lambda: PrecisionMonitor(0.9).update([1, 0], [1]), "groups has length 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
