"""Each formula on a case small enough to work out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from alc_kernels import (
    DynamicTriplet,
    Positives,
    Sigmoid,
    Softmax,
    ThresholdMargin,
    Triplet,
)
from alc_kernels import reference as ref

e = math.exp


def inputs(s: list[list[float]]) -> tuple[Tensor, Tensor]:
    """Q = I and K = S^T, so that the similarities are exactly ``s`` and dL/dS = (dL/dK)^T."""
    return torch.eye(len(s), dtype=torch.float64), torch.tensor(s, dtype=torch.float64).T


def run(
    function: Callable[..., Tensor], s: list[list[float]], pos: list[list[int]], **options: Any
) -> tuple[float, list[list[float]]]:
    """Value and dL/dS for positives given as a list of columns per row."""
    queries, labels = inputs(s)
    labels.requires_grad_()
    crow = torch.tensor([0] + [len(row) for row in pos]).cumsum(0)
    col = torch.tensor([j for row in pos for j in row], dtype=torch.int64)
    positives = Positives.from_csr(crow, col, len(s[0]))
    value = function(queries, labels, positives, normalize=False, **options)
    value.backward()
    return value.item(), labels.grad.T.tolist()


def near(expected: Any) -> Any:
    return pytest.approx(expected, rel=1e-12, abs=1e-14)


# -- triplet ----------------------------------------------------------------------------------


def test_triplet_one_active() -> None:
    # delta = .125, .5; losses .25 - .125 = .125 and 0: the weight is all on the first
    value, grad = run(ref.triplet_loss, [[0.5, 0.375, 0.0]], [[0]], margin=0.25)
    assert value == near(0.125)
    assert grad == [near([-1.0, 1.0, 0.0])]


def test_triplet_plain_mean_counts_inactive_negatives() -> None:
    value, grad = run(
        ref.triplet_loss, [[0.5, 0.375, 0.0]], [[0]], margin=0.25, weight_temperature=None
    )
    assert value == near(0.125 / 2)
    assert grad == [near([-0.5, 0.5, 0.0])]


def test_triplet_weights_carry_gradient() -> None:
    # losses a = .5 - (.5 - .25) = .25, b = .5 - (.5 - .125) = .125; weights softmax of s
    value, grad = run(
        ref.triplet_loss, [[0.5, 0.25, 0.125]], [[0]], margin=0.5, weight_temperature=0.5
    )
    wa = 1 / (1 + e((0.125 - 0.25) / 0.5))
    wb = 1 - wa
    assert value == near(wa * 0.25 + wb * 0.125)
    # d value/d s_a = wa + (0.25 - value) wa / t, likewise b; d value/d s_p = -1
    want_a = wa + wa * (0.25 - value) / 0.5
    want_b = wb + wb * (0.125 - value) / 0.5
    assert grad == [near([-1.0, want_a, want_b])]


def test_triplet_exactly_on_the_margin_is_inactive() -> None:
    value, grad = run(ref.triplet_loss, [[0.5, 0.25]], [[0]], margin=0.25)
    assert (value, grad) == (0.0, [[0.0, 0.0]])
    value, grad = run(ref.triplet_loss, [[0.5, 0.25]], [[0]], margin=0.25, weight_temperature=None)
    assert (value, grad) == (0.0, [[0.0, 0.0]])


def test_triplet_first_and_hardest_positive() -> None:
    s, pos = [[0.75, 0.25, 0.5]], [[0, 1]]
    assert run(ref.triplet_loss, s, pos, margin=0.5)[0] == near(0.25)  # .5 - (.75 - .5)
    assert run(ref.triplet_loss, s, pos, margin=0.5, positive="hardest")[0] == near(0.75)
    assert run(ref.triplet_loss, s, [[1, 0]], margin=0.5)[0] == near(0.75)  # order given


def test_triplet_num_negatives() -> None:
    s = [[0.0, 0.25, 0.75, 0.5]]
    options = {"margin": 0.25, "weight_temperature": None}
    assert run(ref.triplet_loss, s, [[0]], num_negatives=1, **options)[0] == near(1.0)
    assert run(ref.triplet_loss, s, [[0]], num_negatives=2, **options)[0] == near((1.0 + 0.75) / 2)
    mean = (1.0 + 0.75 + 0.5) / 3  # three exist
    assert run(ref.triplet_loss, s, [[0]], num_negatives=9, **options)[0] == near(mean)


def test_triplet_mean_is_over_rows_with_both() -> None:
    s = [[0.0, 0.25], [0.5, 0.5], [0.0, 0.75]]  # the second row has no positive
    value, grad = run(ref.triplet_loss, s, [[0], [], [0]], margin=0.25)
    assert value == near((0.5 + 1.0) / 2)
    assert grad[1] == [0.0, 0.0]


@pytest.mark.parametrize(("symmetric", "factor"), [("mean", 0.5), ("sum", 1.0)])
def test_triplet_symmetric(symmetric: str, factor: float) -> None:
    s = [[0.5, 0.25], [0.0, 0.5]]
    # rows: .5 - (.5 - .25) = .25 and 0 -> mean .125; columns: 0 and .25 -> mean .125
    value, grad = run(ref.triplet_loss, s, [[0], [1]], margin=0.5, symmetric=symmetric)
    assert value == near(factor * (0.125 + 0.125))
    assert grad == [near([-factor / 2, factor]), near([0.0, -factor / 2])]


def test_dynamic_margin() -> None:
    options = {"dynamic_margin": (0.125, 0.25), "weight_temperature": None}

    def one(lead: float) -> tuple[float, list[list[float]]]:
        return run(ref.triplet_loss, [[lead, 0.0]], [[0]], **options)

    for lead in (0.125, 0.2, 0.25):  # the band, with its ends: max(0, lead - lead), half a slope
        assert one(lead) == (0.0, [[-0.5, 0.5]])
    assert one(0.2501) == (0.0, [[0.0, 0.0]])
    options["band_gradient"] = 0.0
    for lead in (0.125, 0.2, 0.25):
        assert one(lead) == (0.0, [[0.0, 0.0]])
    assert one(0.0625) == (0.0625, [[-1.0, 1.0]])  # .125 - .0625
    assert one(0.0) == (0.125, [[-1.0, 1.0]])
    assert one(-0.1875) == (0.375, [[-1.0, 1.0]])  # margin .1875 held constant: slope 1, not 2
    assert one(-0.5) == (0.75, [[-1.0, 1.0]])  # .25 + .5


# -- softmax ----------------------------------------------------------------------------------


def test_softmax_one_positive() -> None:
    value, grad = run(ref.softmax_loss, [[1.0, 0.5]], [[0]], temperature=0.5)
    p = e(2) / (e(2) + e(1))
    assert value == near(-math.log(p))
    assert grad == [near([(p - 1) / 0.5, (1 - p) / 0.5])]


def test_softmax_several_positives() -> None:
    s, pos = [[1.0, 0.0, 0.0]], [[0, 1]]
    total = math.log(e(1) + 2)
    value, _ = run(ref.softmax_loss, s, pos, temperature=1.0)
    assert value == near(((total - 1) + total) / 2)
    value, grad = run(ref.softmax_loss, s, pos, temperature=1.0, decoupled=True)
    assert value == near((math.log((e(1) + 1) / e(1)) + math.log(2)) / 2)
    a, b = 1 / (1 + e(1)), 0.5  # 1 - probability of each positive against the negative
    assert grad == [near([-a / 2, -b / 2, (a + b) / 2])]


def test_softmax_offset_and_symmetric() -> None:
    s = [[1.0, 0.0], [0.5, 0.25]]
    z = [[1.5, -1.0], [1.0, -0.75]]  # s + offset, offset (.5, -1)
    rows = [math.log(1 + e(z[0][1] - z[0][0])), math.log(1 + e(z[1][0] - z[1][1]))]
    columns = [math.log(1 + e(z[1][0] - z[0][0])), math.log(1 + e(z[0][1] - z[1][1]))]
    options = {"temperature": 1.0, "label_offset": torch.tensor([0.5, -1.0])}
    for decoupled in (False, True):  # equal where there is one positive
        value, _ = run(ref.softmax_loss, s, [[0], [1]], decoupled=decoupled, **options)
        assert value == near(sum(rows) / 2)
        value, _ = run(
            ref.softmax_loss, s, [[0], [1]], decoupled=decoupled, symmetric=True, **options
        )
        assert value == near((sum(rows) / 2 + sum(columns) / 2) / 2)


def test_symmetric_with_an_empty_side() -> None:
    # one row, both columns: column 0 has a positive but no negative, so its side counts 0
    row = math.log(1 + e(-0.5))
    value, _ = run(ref.softmax_loss, [[0.5, 0.0]], [[0]], temperature=1.0, symmetric=True)
    assert value == near(row / 2)


def test_softmax_far_apart_is_finite_and_exact() -> None:
    # decoupled: softplus(lse_N - z_p) = softplus(1000) and softplus(-1000)
    for sign, expected in ((1.0, 0.0), (-1.0, 1000.0)):
        for decoupled in (False, True):
            value, grad = run(
                ref.softmax_loss,
                [[sign, 0.0]],
                [[0]],
                temperature=0.001,
                decoupled=decoupled,
            )
            assert value == near(expected)
            assert all(math.isfinite(x) for x in grad[0])
    value, _ = run(ref.softmax_loss, [[30.0, 0.0]], [[0]], temperature=1.0, decoupled=True)
    assert value == pytest.approx(e(-30), rel=1e-12)
    value, _ = run(ref.softmax_loss, [[-20.5, 0.0]], [[0]], temperature=1.0, decoupled=True)
    assert value == near(20.5 + math.log1p(e(-20.5)))


# -- sigmoid ----------------------------------------------------------------------------------


def test_sigmoid() -> None:
    s = [[1.0, 0.5], [0.0, -1.0]]  # the second row has no positive and still counts
    value, grad = run(ref.sigmoid_loss, s, [[0], []], scale=2.0, bias=-1.0)

    def softplus(x: float) -> float:
        return math.log(1 + e(x))

    rows = softplus(-1) + softplus(0), softplus(-1) + softplus(-3)
    assert value == near(sum(rows) / 2)

    def sig(x: float) -> float:
        return 1 / (1 + e(-x))

    # d/ds = -scale sigmoid(-x) on positives, +scale sigmoid(x) on negatives, over B = 2
    assert grad == [near([-sig(-1), sig(0)]), near([sig(-1), sig(-3)])]


def test_sigmoid_scalar_gradients() -> None:
    queries, labels = inputs([[0.5, 0.25]])
    scale = torch.tensor(2.0, requires_grad=True)
    bias = torch.tensor(-1.0, requires_grad=True)
    positives = torch.tensor([0])
    ref.sigmoid_loss(queries, labels, positives, scale=scale, bias=bias, normalize=False).backward()

    def sig(x: float) -> float:
        return 1 / (1 + e(-x))

    g = [-sig(0.0), sig(-0.5)]  # dL/dx at x = 2 s - 1 = 0, -.5
    assert scale.grad.item() == pytest.approx(0.5 * g[0] + 0.25 * g[1], rel=1e-6)
    assert bias.grad.item() == pytest.approx(sum(g), rel=1e-6)


def test_temperature_gradient() -> None:
    queries, labels = inputs([[1.0, 0.5]])
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    loss = ref.softmax_loss(
        queries, labels, torch.tensor([0]), temperature=temperature, normalize=False
    )
    loss.backward()
    # L = log(1 + exp(-.5/t)); dL/dt = sigmoid(-.5/t) * .5/t^2
    assert temperature.grad.item() == near(1 / (1 + e(1)) * 0.5 / 0.25)


# -- threshold-consistent margin --------------------------------------------------------------

TCM_SCORES = [[0.75, 0.5, 0.25], [0.25, 1.0, 0.875], [0.0, 0.625, 0.5]]
TCM_POSITIVES = [[0], [0, 1], []]


def test_threshold_margin() -> None:
    # positives <= .75: .75 (gap 0), .25 (gap .5), not 1.0; negatives >= .5: .5, .875, .625, .5
    options = {"positive_margin": 0.75, "negative_margin": 0.5}
    value, grad = run(ref.threshold_margin_loss, TCM_SCORES, TCM_POSITIVES, **options)
    assert value == near(0.5 / 2 + (0 + 0.375 + 0.125 + 0) / 4)
    assert grad == [  # inclusive: a pair on its margin counts and has its gradient
        near([-0.5, 0.25, 0.0]),
        near([-0.5, 0.0, 0.25]),
        near([0.0, 0.25, 0.25]),
    ]


def test_threshold_margin_hardest() -> None:
    # hardest negatives: .5, .875, .625 (of the row without positives)
    options = {"positive_margin": 0.75, "negative_margin": 0.5, "negative_scope": "hardest"}
    value, _ = run(ref.threshold_margin_loss, TCM_SCORES, TCM_POSITIVES, **options)
    assert value == near(0.5 / 2 + (0 + 0.375 + 0.125) / 3)
    value, grad = run(
        ref.threshold_margin_loss,
        TCM_SCORES,
        TCM_POSITIVES,
        reduction="rows",
        positive_weight=2.0,
        negative_weight=3.0,
        **options,
    )
    assert value == near(2 * 0.5 / 3 + 3 * (0.375 + 0.125) / 3)
    assert grad[2] == near([0.0, 1.0, 0.0])


def test_threshold_margin_empty_sets() -> None:
    options = {"positive_margin": 0.5, "negative_margin": 0.5}
    value, grad = run(ref.threshold_margin_loss, [[0.75, 0.25]], [[0]], **options)
    assert (value, grad) == (0.0, [[0.0, 0.0]])


# -- exclusion --------------------------------------------------------------------------------


def test_excluded_pairs_and_pairs_in_both() -> None:
    queries, labels = inputs([[0.5, 0.75, 0.25, 0.0]])
    positives = Positives.from_pairs(torch.tensor([0]), torch.tensor([0]), (1, 4))
    # 0 is positive and excluded: positive. 1 is excluded: not a negative.
    exclude = Positives.from_pairs(torch.tensor([0, 0]), torch.tensor([0, 1]), (1, 4))
    args = queries, labels, positives, exclude
    scores, index = ref.hardest_negatives(*args, 3, normalize=False)
    assert index.tolist() == [[2, 3, -1]]
    assert scores.tolist() == [[0.25, 0.0, -math.inf]]
    value = ref.softmax_loss(*args, temperature=1.0, normalize=False)
    assert value.item() == near(math.log(e(0.5) + e(0.25) + 1) - 0.5)
    value = ref.sigmoid_loss(*args, scale=1.0, bias=0.0, normalize=False)
    want = math.log(1 + e(-0.5)) + math.log(1 + e(0.25)) + math.log(2)
    assert value.item() == near(want)


def test_exclude_above_is_relative_to_the_first_positive() -> None:
    # first positive .5, m = .25: negatives above .25 go, and .25, which rounding could lift over it
    s = [[0.5, 0.25, 0.375, 0.0, 0.9]]
    queries, labels = inputs(s)
    positives = Positives.from_csr(torch.tensor([0, 2]), torch.tensor([0, 4]), 5)
    _, index = ref.hardest_negatives(
        queries, labels, positives, None, 4, normalize=False, exclude_above=0.25
    )
    assert index.tolist() == [[3, -1, -1, -1]]
    positives = Positives.from_csr(torch.tensor([0, 2]), torch.tensor([4, 0]), 5)  # first: .9
    _, index = ref.hardest_negatives(
        queries, labels, positives, None, 4, normalize=False, exclude_above=0.25
    )
    assert index.tolist() == [[2, 1, 3, -1]]


def test_exclude_above_on_the_column_side() -> None:
    # column 0: first positive .5 (row 0), its only negative .375 (row 1) is above .5 - .25
    # column 1: first positive .25 (row 1), its negative -.0625 (row 0) is below .25 - .25: stays
    # rows: row 0 keeps -.0625 (below .25), row 1 has guard 0 and loses .375
    s = [[0.5, -0.0625], [0.375, 0.25]]
    value, _ = run(
        ref.softmax_loss, s, [[0], [1]], temperature=1.0, symmetric=True, exclude_above=0.25
    )
    row, column = math.log(1 + e(-0.5625)), math.log(1 + e(-0.3125))
    assert value == near((row + column) / 2)


def test_exclude_above_leaves_rows_without_positives_alone() -> None:
    queries, labels = inputs([[0.5, 0.25]])
    nothing = Positives.from_dense(torch.zeros(1, 2))
    _, index = ref.hardest_negatives(
        queries, labels, nothing, None, 2, normalize=False, exclude_above=5.0
    )
    assert index.tolist() == [[0, 1]]


# -- weights, reduction, total ----------------------------------------------------------------


def test_row_weight() -> None:
    s = [[0.0, 0.25], [0.5, 0.5], [0.0, 0.75]]
    w = torch.tensor([3.0, 100.0, 1.0])  # the second row has no positive: its weight is unused
    pos: list[list[int]] = [[0], [], [0]]
    value, _ = run(ref.triplet_loss, s, pos, margin=0.25, row_weight=w)
    assert value == near((3 * 0.5 + 1 * 1.0) / 4)
    zero = torch.tensor([0.0, 1.0, 0.0])
    assert run(ref.triplet_loss, s, pos, margin=0.25, row_weight=zero) == (0.0, [[0.0] * 2] * 3)
    queries, labels = inputs(s)
    positives = Positives.from_csr(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0]), 2)
    values = ref.triplet_loss(
        queries, labels, positives, margin=0.25, row_weight=w, reduction="none", normalize=False
    )
    assert values.tolist() == near([1.5, 0.0, 1.0])


def test_row_weight_leaves_the_column_side_alone() -> None:
    s = [[0.5, 0.25], [0.0, 0.5]]  # rows lose .25 and 0, columns 0 and .25 (margin .5)
    w = torch.tensor([3.0, 1.0])
    options = {"margin": 0.5, "symmetric": "sum", "row_weight": w}
    assert run(ref.triplet_loss, s, [[0], [1]], **options)[0] == near(0.75 * 0.25 + 0.125)
    rows = [math.log(1 + e(-0.25)), math.log(1 + e(-0.5))]
    columns = [math.log(1 + e(-0.5)), math.log(1 + e(-0.25))]
    options = {"temperature": 1.0, "symmetric": True, "row_weight": w}
    value, _ = run(ref.softmax_loss, s, [[0], [1]], **options)
    assert value == near(((3 * rows[0] + rows[1]) / 4 + sum(columns) / 2) / 2)


def test_total_of_every_base() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    labels = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    index, exclude = torch.tensor([3, 0, 1, 6, 2]), torch.tensor([1, 1, 2, 2, 2])
    common = {"exclude_above": 0.01, "row_weight": torch.tensor([1.0, 2.0, 0.5, 0.0, 1.0])}
    offset = torch.linspace(-1, 1, 7)
    args = queries, labels, index, exclude
    tcm = ref.threshold_margin_loss(*args, exclude_above=0.01)
    for base, expected, more in (
        (Triplet(0.2, 3), ref.triplet_loss(*args, margin=0.2, num_negatives=3, **common), {}),
        (DynamicTriplet(), ref.triplet_loss(*args, dynamic_margin=(0.1, 0.3), **common), {}),
        (
            Softmax(decoupled=True),
            ref.softmax_loss(*args, decoupled=True, label_offset=offset, **common),
            {"label_offset": offset},
        ),
        (Sigmoid(5.0, -1.0), ref.sigmoid_loss(*args, scale=5.0, bias=-1.0, **common), {}),
    ):
        terms = ref.alc_loss(
            *args, base=base, threshold=ThresholdMargin(), base_weight=0.25, **common, **more
        )
        assert terms.base.item() == near(expected.item()) != 0
        assert terms.total.item() == near(0.25 * expected.item() + tcm.item())
