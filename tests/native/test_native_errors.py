"""What the operators say about inputs that they cannot take; and no crash."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from alc_kernels import BackendUnavailableError, Positives, functional
from alc_kernels.backends import native as native_backend
from alc_kernels.engine.interface import (
    GradientRequest,
    PrefixProblem,
    PrefixSides,
    PrefixTargets,
    Problem,
    WalkGradient,
    WalkRequest,
)
from alc_kernels.engine.prepare import choose_backend
from tests.native.common import needs_native

pytestmark = needs_native


def problem(b: int = 4, m: int = 5, d: int = 3, dtype: torch.dtype = torch.float32) -> Problem:
    return Problem(
        torch.ones(b, d, dtype=dtype),
        torch.ones(m, d, dtype=dtype),
        Positives._empty(b, m),
        Positives._empty(b, m),
        None,
    )


BAD_PROBLEMS = {
    "width": (ValueError, "got .4, 3. and .5, 2.", {"labels": torch.ones(5, 2)}),
    "dtype mix": (TypeError, "labels: expected torch.float32 .as queries., got torch.float16", {
        "labels": torch.ones(5, 3).half()}),
    "integers": (TypeError, "queries: expected one of .torch.float64, torch.float32", {
        "queries": torch.ones(4, 3).long(), "labels": torch.ones(5, 3).long()}),
    "dimensions": (ValueError, "expected .B, d. and .M, d.", {"queries": torch.ones(12)}),
    "index range": (IndexError, "positives: label 5 is out of range", {
        "positives": Positives("index", 4, 5, (torch.tensor([0, 1, 2, 5]),))}),
    "negative index": (IndexError, "exclude: label -1", {
        "exclude": Positives("index", 4, 5, (torch.tensor([0, 1, 2, -1]),))}),
    "index length": (ValueError, r"positives_column: expected \(4,\)", {
        "positives": Positives("index", 4, 5, (torch.tensor([0]),))}),
    "index dtype": (TypeError, "positives_column: expected torch.int64", {
        "positives": Positives("index", 4, 5, (torch.zeros(4, dtype=torch.int32),))}),
    "row pointer": (ValueError, "not a row pointer", {
        "positives": Positives(
            "csr", 4, 5, (torch.tensor([0, 3, 1, 2, 2]), torch.tensor([0, 1])))}),
    "rectangular diagonal": (ValueError, "a diagonal needs B = M", {
        "positives": Positives("diagonal", 4, 5, ())}),
    "unknown kind": (ValueError, "unknown kind", {"positives": Positives("other", 4, 5, ())}),
    "guard": (ValueError, r"guard: expected \(4,\)", {"guard": torch.zeros(3)}),
    "slack": (ValueError, r"column_slack: expected \(5,\)", {
        "guard": torch.zeros(4), "slack": (torch.zeros(4), torch.zeros(4))}),
    "guard dtype": (TypeError, "guard: expected torch.float32", {"guard": torch.zeros(4).double()}),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PROBLEMS)
def test_bad_problems(name):
    error, message, changes = BAD_PROBLEMS[name]
    bad = dataclasses.replace(problem(), **changes)
    with pytest.raises(error, match=message):
        native_backend.walk(bad, WalkRequest(top_k=1))
    with pytest.raises(error, match=message):
        native_backend.dense_gradient(bad, GradientRequest(None), None, None)


def test_bad_requests():
    good = problem()
    with pytest.raises(ValueError, match="top_k"):
        native_backend.walk(good, WalkRequest(top_k=-1))
    with pytest.raises(ValueError, match=r"label_offset: expected \(5,\)"):
        native_backend.walk(good, WalkRequest(softmax="all", label_offset=torch.zeros(4)))
    with pytest.raises(ValueError, match="row_scale is missing"):
        native_backend.dense_gradient(good, GradientRequest("sigmoid"), None, None)
    with pytest.raises(ValueError, match="log_sum_exp is missing"):
        native_backend.dense_gradient(
            good, GradientRequest("softmax", row_scale=torch.ones(4)), None, None
        )
    both = WalkGradient(lambda p, n: torch.ones(4), None, None)
    with pytest.raises(ValueError, match="one softmax or sigmoid loss"):
        native_backend.walk(good, WalkRequest(softmax="all", sigmoid=True, gradient=both))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"widths": (), "query_scale": None, "label_scale": None},
            ValueError,
            "widths: expected one or more",
        ),
        ({"widths": (2, 2)}, ValueError, "widths: expected ascending numbers in 1 .. 3"),
        ({"widths": (1, 4)}, ValueError, "widths: expected ascending numbers in 1 .. 3"),
        ({"label_scale": None}, ValueError, "expected both or neither"),
        ({"label_scale": torch.ones(2, 4)}, ValueError, r"label_scale: expected \(2, 5\)"),
        ({"guard": torch.ones(2, 4).double()}, TypeError, "guard: expected torch.float32"),
        (
            {"guard": torch.ones(2, 4), "slack": (torch.ones(2, 3), torch.ones(2, 5))},
            ValueError,
            r"row_slack: expected \(2, 4\)",
        ),
    ],
)
def test_bad_prefix_problems(changes, error, message):
    good = problem()
    prefixes = PrefixProblem(
        good.queries, good.labels, good.positives, good.exclude, (1, 3), torch.ones(2, 4),
        torch.ones(2, 5), None,
    )  # fmt: skip
    native_backend.prefix_walk(prefixes, WalkRequest(top_k=1))
    with pytest.raises(error, match=message):
        native_backend.prefix_walk(dataclasses.replace(prefixes, **changes), WalkRequest(top_k=1))


def test_bad_prefix_gradients():
    good = problem()
    prefixes = PrefixProblem(
        good.queries, good.labels, good.positives, good.exclude, (1, 3), None, None, None
    )
    zeros = torch.zeros(4, 3), torch.zeros(5, 3), torch.zeros(2, 4), torch.zeros(2, 5)
    sides = [
        PrefixSides(good.queries[:, :w], good.labels[:, :w], zeros[0], zeros[1]) for w in (1, 3)
    ]

    def call(request: GradientRequest, weights: tuple[float, ...] = (1.0, 1.0)) -> None:
        targets = PrefixTargets(weights, *zeros)
        native_backend.prefix_gradient(prefixes, [request, request], sides, lambda: targets)

    with pytest.raises(ValueError, match="row_scale is missing"):
        call(GradientRequest("sigmoid"))
    with pytest.raises(ValueError, match="log_sum_exp is missing"):
        call(GradientRequest("softmax", row_scale=torch.ones(4)))
    with pytest.raises(ValueError, match=r"row_scale: expected \(2, 4\)"):
        call(GradientRequest("sigmoid", row_scale=torch.ones(3)))


@pytest.mark.parametrize(
    "target", [torch.zeros(4, 4), torch.zeros(3, 4).T, torch.zeros(4, 3).double()]
)
def test_gradients_are_added_to_contiguous_tensors_of_their_shape(target):
    with pytest.raises((ValueError, TypeError), match="grad_queries: expected"):
        native_backend.dense_gradient(problem(), GradientRequest(None), target, None)


@pytest.mark.parametrize("label", [-2, 5, 2**40])
def test_listed_pairs_are_checked(label):
    index = torch.tensor([[0], [1], [label], [-1]])
    calls = (
        lambda: native_backend.score_pairs(problem(), index),
        lambda: native_backend.pair_gradient(
            problem(), index, torch.ones(4, 1), torch.zeros(4, 3), torch.zeros(5, 3), True
        ),
        lambda: native_backend.pair_logits(problem(), index, torch.ones(12), torch.tensor(0.0)),
    )
    for call in calls:
        with pytest.raises(IndexError, match="out of range"):
            call()


def test_other_devices_are_refused():
    x = torch.empty(4, 3, device="meta")
    assert "works on the CPU" in native_backend.unsupported(x)
    with pytest.raises(BackendUnavailableError, match="works on the CPU"):
        choose_backend("native", x, torch.float32)
    with pytest.raises(ValueError, match="expected a CPU tensor, got one on meta"):
        native_backend.normalize_rows(x, torch.float32, True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_non_finite_inputs_poison_the_loss(value, dtype):
    x, y = (torch.randn(6, 4, dtype=dtype, requires_grad=True) for _ in range(2))
    with torch.no_grad():
        y[2, 1] = value
    for loss in (functional.softmax_loss, functional.triplet_loss, functional.sigmoid_loss):
        x.grad = y.grad = None
        result = loss(x, y, backend="native")
        result.backward()
        assert result.isnan() and x.grad.isnan().all() and y.grad.isnan().all()
