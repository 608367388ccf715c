"""The certified threshold: what it returns, and its refusals. Its promise: the simulation test."""

import math

import numpy as np
import pytest
import torch

from alc_kernels.metrics import certified_threshold, threshold_at_precision


def queries(count=4000, size=4, seed=0, slope=1.5):
    """(scores, correct, groups), better scores more often right, groups alike."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(count // size), size)
    quality = rng.standard_normal(count // size)[group] + rng.standard_normal(count)
    scores = quality + rng.standard_normal(count)
    return scores, slope * quality + rng.standard_normal(count) > -1.0, group


SCORES, CORRECT, GROUPS = queries()


def test_what_a_certificate_says():
    found = certified_threshold(SCORES, CORRECT, 0.95, groups=GROUPS)
    accept = found.threshold <= SCORES
    assert found.certified and found.threshold in SCORES
    assert found.coverage == accept.mean()
    assert found.num_queries == 4000
    assert found.num_groups == len(np.unique(GROUPS[accept]))
    assert 0.95 <= found.precision_bound < CORRECT[accept].mean()
    assert accept.sum() / 4 < found.effective_queries < accept.sum()
    wrong = (~CORRECT[accept]).sum()
    assert found.reason == (
        f"certified on {accept.sum()} accepted queries of {found.num_groups} groups, worth "
        f"{found.effective_queries:.0f} independent ones, {wrong} of them wrong"
    )
    # more cautious than the plug-in, by less than a third of its coverage
    plugin = threshold_at_precision(SCORES, CORRECT, 0.95) <= SCORES
    assert 0.67 * plugin.mean() < found.coverage < plugin.mean()


def test_dependence_costs_coverage_and_being_unsure_gives_it_back():
    whole = certified_threshold(SCORES, CORRECT, 0.95, groups=GROUPS)
    alone = certified_threshold(SCORES, CORRECT, 0.95)
    assert "independent (no groups were given)" in alone.reason
    whole_products = queries(size=20)
    grouped = certified_threshold(*whole_products[:2], 0.95, groups=whole_products[2])
    assert grouped.coverage < 0.95 * certified_threshold(*whole_products[:2], 0.95).coverage
    assert alone.effective_queries == alone.coverage * 4000
    assert certified_threshold(SCORES, CORRECT, 0.95, 0.5, GROUPS).coverage > whole.coverage
    assert certified_threshold(SCORES, CORRECT, 0.9, groups=GROUPS).coverage > whole.coverage


def test_order_kinds_of_ids_and_tensors_do_not_matter():
    expected = certified_threshold(SCORES, CORRECT, 0.95, groups=GROUPS)
    order = np.random.default_rng(1).permutation(4000)
    assert (
        certified_threshold(SCORES[order], CORRECT[order], 0.95, groups=GROUPS[order]) == expected
    )
    names = [f"product {group}" for group in GROUPS]
    assert certified_threshold(SCORES, CORRECT.astype(int), 0.95, groups=names) == expected
    tensors = torch.tensor(SCORES), torch.tensor(CORRECT), torch.tensor(GROUPS)
    assert certified_threshold(*tensors[:2], 0.95, groups=tensors[2]) == expected
    lone = certified_threshold(SCORES, CORRECT, 0.95, groups=np.full(4000, -1))
    assert lone.threshold == certified_threshold(SCORES, CORRECT, 0.95).threshold


def test_tied_scores_stay_together():
    scores = np.round(SCORES)
    found = certified_threshold(scores, CORRECT, 0.95, groups=GROUPS)
    assert found.threshold in scores
    assert found.coverage == (scores >= found.threshold).mean()
    # one score for all: all or nothing
    assert certified_threshold(np.zeros(4000), CORRECT, 0.95).threshold == math.inf
    assert certified_threshold(np.zeros(4000), np.ones(4000), 0.95).coverage == 1.0


def test_infinite_scores_are_queries_like_others():
    scores = SCORES.copy()
    scores[np.argsort(-SCORES)[:200]] = np.inf
    scores[np.argsort(-SCORES)[-200:]] = -np.inf
    expected = certified_threshold(SCORES, CORRECT, 0.95, groups=GROUPS)
    assert certified_threshold(scores, CORRECT, 0.95, groups=GROUPS) == expected
    every = certified_threshold(np.full(100, np.inf), np.ones(100), 0.9)
    assert every.threshold == math.inf and every.certified and every.coverage == 1.0


def test_wrong_answers_at_the_very_top_do_not_stop_it():
    scores, correct = SCORES.copy(), CORRECT.copy()
    scores[:2], correct[:2] = 100.0, False
    found = certified_threshold(scores, correct, 0.95, groups=GROUPS)
    assert found.coverage > 0.8 * certified_threshold(SCORES, CORRECT, 0.95, groups=GROUPS).coverage


def test_too_few_queries_say_how_many_it_takes():
    found = certified_threshold(np.arange(30.0), np.ones(30), 0.95)
    assert (found.threshold, found.coverage, found.certified) == (math.inf, 0.0, False)
    assert math.isnan(found.precision_bound) and found.effective_queries == found.num_groups == 0
    assert found.reason == (
        "not certifiable: 30 queries, and even without a wrong answer 59 accepted ones are needed "
        "for precision 0.95 at confidence 0.95"
    )
    assert (found.needed(1.0), found.needed(0.5)) == (29, 88)
    assert certified_threshold(np.arange(59.0), np.ones(59), 0.95).coverage == 1.0
    # the same in five products is worth five queries
    whole = certified_threshold(np.arange(60.0), np.ones(60), 0.95, groups=np.arange(60) % 5)
    assert whole.threshold == math.inf


def test_wrong_everywhere_cannot_be_helped():
    found = certified_threshold(SCORES, np.zeros(4000), 0.95)
    assert found.threshold == math.inf
    assert "too near the wanted precision for any number of queries" in found.reason
    assert found.needed(0.1) == math.inf


def test_needed_queries():
    found = certified_threshold(SCORES, CORRECT, 0.95, groups=GROUPS)
    assert found.needed(found.coverage) == 0
    steps = [found.needed(found.coverage + extra) for extra in (0.01, 0.02, 0.03)]
    assert 0 < steps[0] < steps[1] < steps[2] < math.inf
    assert found.needed(1.0) == math.inf  # not even that precise
    for coverage in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="coverage="):
            found.needed(coverage)


def test_so_many_more_queries_certify_the_coverage_about_half_of_the_time():
    """Seeds in turn: the first sample asks, samples of the size it asks for answer."""
    kept = []
    for seed in range(5):
        scores, correct, group = queries(2000, 4, seed)
        first = certified_threshold(scores, correct, 0.95, groups=group)
        wanted = first.coverage + 0.04
        more = first.needed(wanted)
        if math.isinf(more) or more > 20_000:
            continue
        for again in range(6):
            larger = queries(int(2000 + more) // 4 * 4, 4, 100 + 10 * seed + again)
            kept.append(certified_threshold(*larger[:2], 0.95, groups=larger[2]).coverage >= wanted)
    assert len(kept) >= 18
    assert 0.15 < np.mean(kept) < 0.95


def test_categories():
    rng = np.random.default_rng(0)
    category = rng.choice(["books", "phones"], 1000)[GROUPS]
    category[:40], category[40:80] = "rare", "lone"
    correct = CORRECT.copy()
    correct[category == "phones"] &= rng.random((category == "phones").sum()) < 0.9
    found = certified_threshold(SCORES, correct, 0.9, groups=GROUPS, categories=category)
    assert list(found.by_category) == ["books", "lone", "phones", "rare"]
    books, rare, phones = (found.by_category[name] for name in ("books", "rare", "phones"))
    rows = category == "books"
    assert books == certified_threshold(SCORES[rows], correct[rows], 0.9, groups=GROUPS[rows])
    assert books.certified and books.threshold < found.threshold
    assert not rare.certified and rare.threshold == found.threshold
    assert rare.coverage == (SCORES[category == "rare"] >= found.threshold).mean()
    assert rare.reason.startswith("too few queries for a threshold of its own, so that of all, ")
    assert rare.precision_bound < 0.9
    # many phones, at most nine of ten right however high the score: the threshold of all breaks it
    assert phones.threshold == math.inf and "not certifiable" in phones.reason
    assert found.threshold == certified_threshold(SCORES, correct, 0.9, groups=GROUPS).threshold


def test_watching():
    found = certified_threshold(SCORES, CORRECT, 0.95, groups=GROUPS)
    scores, correct, group = queries(seed=1)
    assert found.update(scores, correct, group) == "valid"
    accept = scores >= found.threshold
    assert found.monitor.reviewed == accept.sum()
    assert found.monitor.wrong == (~correct[accept]).sum()
    assert found.update(np.full(5, -100.0), np.zeros(5)) == "valid"  # none of them accepted
    assert found.monitor.reviewed == accept.sum()
    bad = correct & (np.random.default_rng(0).random(len(correct)) < 0.8)
    assert found.update(scores, bad, group + 10_000) == "void"
    assert found.update(scores, np.ones(len(scores)), group + 20_000) == "void"  # for good


def test_nothing_to_watch():
    nothing = certified_threshold(np.arange(30.0), np.ones(30), 0.95)
    with pytest.raises(ValueError, match="no threshold to watch: not certifiable: 30 queries"):
        nothing.update([1.0], [1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": []}, "scores is empty"),
        ({"scores": [1.0, math.nan, 2.0]}, r"scores\[1\] is NaN"),
        ({"correct": [1, 0]}, "scores has length 3, correct has length 2"),
        ({"correct": [1, 2, 0]}, r"correct\[1\] is 2: expected 0 or 1"),
        ({"precision": 1.0}, "precision=1.0: expected a number strictly between 0 and 1"),
        ({"confidence": 95}, "confidence=95.0: expected a number strictly between 0 and 1"),
        ({"groups": [1, 2]}, "scores has length 3, groups has length 2"),
        ({"categories": ["a"] * 4}, "scores has length 3, categories has length 4"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    good = {"scores": [3.0, 2.0, 1.0], "correct": [1, 1, 0], "precision": 0.9}
    with pytest.raises(ValueError, match=message) as caught:
        certified_threshold(**{**good, **change})
    assert "\n" not in str(caught.value)


def test_needed_queries_bring_the_sequence_there():
    """Few products, nearly all right: late tests are clear, the first ones lack products."""
    rng = np.random.default_rng(0)
    scores, groups = rng.normal(size=1000), np.arange(1000) % 30
    correct = np.ones(1000, bool)
    correct[np.argsort(scores)[:3]] = False  # at the end, where the error rate is far below 10 %
    found = certified_threshold(scores, correct, 0.9, groups=groups)
    assert not found.certified
    more = found.needed(0.5)
    assert 200 < more < 2000 and f"about {found.needed(1.0):.0f} more" in found.reason
