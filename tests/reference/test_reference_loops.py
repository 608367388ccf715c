"""The reference against Python loops, on random relations with ties and boundary hits."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import reference_loops as loops
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference_loops import Case
from torch import Tensor

from alc_kernels import Positives, ThresholdMargin, Triplet
from alc_kernels import reference as ref

TRIPLET: list[dict[str, Any]] = [
    {},
    {"num_negatives": 1},
    {"num_negatives": 3, "weight_temperature": None, "margin": 0.25},
    {"positive": "hardest", "weight_temperature": 0.5},
    {"symmetric": "mean", "num_negatives": 2},
    {"symmetric": "sum", "positive": "hardest"},
    {"dynamic_margin": (0.125, 0.375)},
    {"dynamic_margin": (0.125, 0.25), "weight_temperature": None, "symmetric": "sum"},
    {"dynamic_margin": (0.0, 0.25), "positive": "hardest", "num_negatives": 2},
]
SOFTMAX = [
    {"temperature": t, "decoupled": d, "symmetric": y}
    for t, d, y in [(1.0, False, False), (0.25, True, False), (0.5, False, True), (1.0, True, True)]
]
SIGMOID = [{}, {"scale": 1.0, "bias": 0.0}]
THRESHOLD: list[dict[str, Any]] = [
    {"positive_margin": 0.75, "negative_margin": 0.25, "negative_scope": n, "reduction": r}
    for n in ("all", "hardest")
    for r in ("active", "rows")
] + [{"positive_weight": 2.0, "negative_weight": 0.5}]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Up to 6 x 7 similarities in eighths, so that ties and margins are met exactly."""
    b, m = draw(st.integers(0, 6)), draw(st.integers(0, 7))
    eighths = st.integers(-8, 8).map(lambda n: n / 8)
    s = draw(st.lists(st.lists(eighths, min_size=m, max_size=m), min_size=b, max_size=b))
    cells = [(i, j) for i in range(b) for j in range(m)]
    some = st.lists(st.sampled_from(cells), max_size=12) if cells else st.just([])
    return Case(s, draw(some), set(draw(some)), m, draw(st.sampled_from([None, 0.0, 0.25, -0.5])))


def arguments(case: Case) -> tuple[Tensor, Tensor, Positives, Positives]:
    """Inputs whose similarities are exactly those of the case: Q = [I 0], K = [S^T 1].

    The last coordinate gives every label a length: the guard allows for rounding by lengths.
    """
    b, m = len(case.s), case.num_columns
    d = b + 1
    labels = torch.ones(m, d, dtype=torch.float64)
    labels[:, :b] = torch.tensor(case.s, dtype=torch.float64).reshape(b, m).T
    queries = torch.eye(b, d, dtype=torch.float64)
    relation = []
    for pairs in (case.pairs, sorted(case.excluded)):
        flat = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
        relation.append(Positives.from_pairs(flat[:, 0], flat[:, 1], (b, m)))
    return queries, labels.requires_grad_(), relation[0], relation[1]


def check(function: Callable[..., Tensor], expected: float, case: Case, **options: Any) -> None:
    queries, labels, positives, exclude = arguments(case)
    value = function(
        queries, labels, positives, exclude, normalize=False, exclude_above=case.guard, **options
    )
    assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-13), (function, options)
    value.backward()
    grad = labels.grad[:, : len(case.s)].T  # dL/dS, because Q = [I 0]
    assert torch.isfinite(grad).all()
    for i, j in case.excluded - set(case.pairs):
        assert grad[i, j] == 0


fuzz = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@fuzz
@given(cases())
def test_triplet(case: Case) -> None:
    for options in TRIPLET:
        check(ref.triplet_loss, loops.triplet(case, **options), case, **options)


@fuzz
@given(cases(), st.booleans())
def test_softmax(case: Case, with_offset: bool) -> None:
    offset = [0.5 * j - 1 for j in range(case.num_columns)] if with_offset else None
    given_offset = torch.tensor(offset, dtype=torch.float32) if with_offset else None
    for options in SOFTMAX:
        expected = loops.softmax(case, label_offset=offset, **options)
        check(ref.softmax_loss, expected, case, label_offset=given_offset, **options)


@fuzz
@given(cases())
def test_sigmoid(case: Case) -> None:
    for options in SIGMOID:
        check(ref.sigmoid_loss, loops.sigmoid(case, **options), case, **options)


@fuzz
@given(cases())
def test_threshold_margin(case: Case) -> None:
    for options in THRESHOLD:
        check(ref.threshold_margin_loss, loops.threshold_margin(case, **options), case, **options)


@fuzz
@given(cases(), st.integers(1, 9))
def test_mining(case: Case, k: int) -> None:
    queries, labels, positives, exclude = arguments(case)
    scores, indices = ref.hardest_negatives(
        queries, labels, positives, exclude, k, normalize=False, exclude_above=case.guard
    )
    top_scores, top = ref.topk_similarity(queries, labels, k, exclude, normalize=False)
    assert scores.shape == indices.shape == top.shape == (len(case.s), k)
    for i, s in enumerate(case.s):
        want = case.hardest_negatives(i, k)
        pad = k - len(want)
        assert indices[i].tolist() == want + [-1] * pad
        assert scores[i].tolist() == [s[j] for j in want] + [-math.inf] * pad
        free = [j for j in range(case.num_columns) if (i, j) not in case.excluded]
        free = sorted(free, key=lambda j: (-s[j], j))[:k]
        assert top[i].tolist() == free + [-1] * (k - len(free))
        assert top_scores[i].tolist() == [s[j] for j in free] + [-math.inf] * (k - len(free))


@fuzz
@given(cases(), st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=6, max_size=6))
def test_row_weight(case: Case, weight: list[float]) -> None:
    weight = weight[: len(case.s)]
    w = torch.tensor(weight, dtype=torch.float64)
    expected = loops.triplet(case, "sum", weight=weight)
    check(ref.triplet_loss, expected, case, symmetric="sum", row_weight=w)
    expected = loops.softmax(case, temperature=1.0, symmetric=True, weight=weight)
    check(ref.softmax_loss, expected, case, temperature=1.0, symmetric=True, row_weight=w)
    check(ref.sigmoid_loss, loops.sigmoid(case, weight=weight), case, row_weight=w)


@fuzz
@given(cases())
def test_reduction_none(case: Case) -> None:
    """Per row, weighted, 0 outside R."""
    queries, labels, positives, exclude = arguments(case)
    weight = [1.0 + i for i in range(len(case.s))]
    options = {
        "normalize": False,
        "exclude_above": case.guard,
        "reduction": "none",
        "row_weight": torch.tensor(weight, dtype=torch.float64),
    }
    triplet = ref.triplet_loss(queries, labels, positives, exclude, **options)
    softmax = ref.softmax_loss(queries, labels, positives, exclude, temperature=1.0, **options)
    sigmoid = ref.sigmoid_loss(queries, labels, positives, exclude, **options)
    for i, w in enumerate(weight):
        want = [0.0, 0.0]
        if case.in_loss(i):
            rows = loops.triplet_row(case, i), loops.softmax_row(case, case.s, i, False)
            want = [w * value for value in rows]
        assert [triplet[i].item(), softmax[i].item()] == pytest.approx(want, rel=1e-12, abs=1e-13)
        pairs = [(0, j) for row, j in case.pairs if row == i]
        excluded = {(0, j) for row, j in case.excluded if row == i}
        one = Case([case.s[i]], pairs, excluded, case.num_columns, case.guard)
        assert sigmoid[i].item() == pytest.approx(w * loops.sigmoid(one), rel=1e-12, abs=1e-13)


@fuzz
@given(cases())
def test_terms(case: Case) -> None:
    """The total is the weighted sum, and every part is what the loops say."""
    queries, labels, positives, exclude = arguments(case)
    threshold = ThresholdMargin(0.75, 0.25, 2.0, 3.0)
    terms = ref.alc_loss(
        queries,
        labels,
        positives,
        exclude,
        base=Triplet(symmetric="mean"),
        threshold=threshold,
        base_weight=0.5,
        normalize=False,
        exclude_above=case.guard,
    )
    base = loops.triplet(case, "mean")
    low = loops.threshold_margin(case, 0.75, 0.25, negative_weight=0.0)
    high = loops.threshold_margin(case, 0.75, 0.25, positive_weight=0.0)
    got = [terms.base, terms.tcm_positive, terms.tcm_negative, terms.total]
    want = [base, low, high, 0.5 * base + 2 * low + 3 * high]
    assert [x.item() for x in got] == pytest.approx(want, rel=1e-12, abs=1e-13)
    assert [x.requires_grad for x in got] == [False, False, False, True]
    assert terms.pair.item() == terms.batch.item() == 0.0
    active_positives = active_negatives = 0
    for i, s in enumerate(case.s):
        active_positives += sum(s[j] <= 0.75 for j in case.positives(i))
        active_negatives += sum(s[j] >= 0.25 for j in case.negatives(i))
        hardest = (case.hardest_negatives(i, 1) or [-1])[0]
        assert terms.hardest_index[i] == hardest
        assert terms.hardest_score[i] == (s[hardest] if hardest >= 0 else -math.inf)
    assert terms.active_positives.item() == active_positives
    assert terms.active_negatives.item() == active_negatives


@pytest.mark.parametrize("seed", range(5))
def test_normalized(seed: int) -> None:
    """The whole way from unnormalised rows: lengths, dot products, several positives."""
    draw = random.Random(seed)
    b, m, d = 6, 9, 4
    q = [[draw.gauss(0, 1) for _ in range(d)] for _ in range(b)]
    k = [[draw.gauss(0, 3) for _ in range(d)] for _ in range(m)]
    q[2] = [0.0] * d
    cells = [(i, j) for i in range(b) for j in range(m)]
    pairs, excluded = draw.sample(cells, 12), set(draw.sample(cells, 8))

    def unit(x: list[float]) -> list[float]:
        norm = math.sqrt(sum(v * v for v in x))
        return [v / norm for v in x] if norm > 1e-12 else [0.0] * len(x)

    s = [[sum(x * y for x, y in zip(unit(u), unit(v), strict=True)) for v in k] for u in q]
    case = Case(s, pairs, excluded, m, 0.05)
    flat, flat_x = torch.tensor(pairs), torch.tensor(sorted(excluded))
    inputs = (
        torch.tensor(q, dtype=torch.float64),
        torch.tensor(k, dtype=torch.float64),
        Positives.from_pairs(flat[:, 0], flat[:, 1], (b, m)),
        Positives.from_pairs(flat_x[:, 0], flat_x[:, 1], (b, m)),
    )
    for options in TRIPLET:
        got = ref.triplet_loss(*inputs, exclude_above=0.05, **options)
        assert got.item() == pytest.approx(loops.triplet(case, **options), rel=1e-10)
    for options in SOFTMAX:
        got = ref.softmax_loss(*inputs, exclude_above=0.05, **options)
        assert got.item() == pytest.approx(loops.softmax(case, **options), rel=1e-10)
    for options in THRESHOLD:
        got = ref.threshold_margin_loss(*inputs, exclude_above=0.05, **options)
        assert got.item() == pytest.approx(loops.threshold_margin(case, **options), rel=1e-10)
    got = ref.sigmoid_loss(*inputs, exclude_above=0.05)
    assert got.item() == pytest.approx(loops.sigmoid(case), rel=1e-10)
