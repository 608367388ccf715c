"""Any shape, layout, relation and request: the native operators agree with plain PyTorch."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alc_kernels import ALCLoss, Positives, functional
from alc_kernels.backends import native as native_backend
from alc_kernels.backends import torch as torch_backend
from alc_kernels.engine.interface import (
    GradientRequest,
    Problem,
    RowStatistics,
    WalkGradient,
    WalkRequest,
)
from tests.backends.dense import add_margin_totals
from tests.backends.relations import KINDS, random_relation
from tests.native.common import LAYOUTS, laid_out, needs_native, threads

pytestmark = needs_native
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
fuzz = settings(max_examples=40, deadline=None, derandomize=True)


def problem_of(draw: st.DataObject) -> Problem:
    """Embeddings of a few quarters: every similarity is exact, and many are equal."""
    b, m = draw.draw(st.integers(0, 40)), draw.draw(st.integers(0, 70))
    if draw.draw(st.booleans()):
        m = b
    d = draw.draw(st.integers(0, 20))
    dtype = draw.draw(st.sampled_from(DTYPES))
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    g = torch.Generator().manual_seed(draw.draw(st.integers(0, 10**6)))
    queries, labels = (
        laid_out(
            (torch.randint(-2, 3, (n, d), generator=g) / 4).to(dtype),
            draw.draw(st.sampled_from(LAYOUTS)),
        )
        for n in (b, m)
    )
    relations = [
        random_relation(draw.draw(st.sampled_from(KINDS)), b, m, g, density=density)
        for density in (0.1, 0.2)
    ]
    limits = (torch.randint(-1, 3, (b,), generator=g) / 4).to(acc)
    guard = limits if draw.draw(st.booleans()) else None
    slack = None
    if guard is not None and draw.draw(st.booleans()):
        by_row, by_column = (torch.randint(0, 3, (n,), generator=g).to(acc) / 4 for n in (b, m))
        slack = by_row, by_column
    return Problem(queries, labels, relations[0], relations[1], guard, slack)


def same(found: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    assert found.dtype == expected.dtype and found.shape == expected.shape, name
    if expected.dtype == torch.int64:
        assert torch.equal(found, expected), name
        return
    tight = expected.dtype == torch.float64
    torch.testing.assert_close(
        found, expected, rtol=1e-11 if tight else 2e-5, atol=1e-12 if tight else 2e-6, msg=name
    )


@fuzz
@given(data=st.data())
@pytest.mark.parametrize("count", [1, 3])
def test_walk(count, data):
    problem = problem_of(data)
    acc, m = problem.acc, problem.labels.shape[0]
    offset = torch.linspace(-1, 1, m, dtype=acc) if data.draw(st.booleans()) else None
    request = WalkRequest(
        top_k=data.draw(st.sampled_from([0, 1, 3, 17, 80])),
        hardest_positive=data.draw(st.booleans()),
        softmax=data.draw(st.sampled_from([None, "all", "negatives"])),
        inverse_temperature=torch.tensor(data.draw(st.sampled_from([2.0, 20.0, -1.0])), dtype=acc),
        label_offset=offset,
        sigmoid=data.draw(st.booleans()),
        scale=torch.tensor(-3.0, dtype=acc),
        bias=torch.tensor(0.5, dtype=acc),
        positive_margin=data.draw(st.sampled_from([None, 0.25])),
        negative_margin=data.draw(st.sampled_from([None, -0.25, 0.25])),
        keep_active=data.draw(st.booleans()),
    )
    with threads(count):
        found = native_backend.walk(problem, request)
    expected = torch_backend.walk(problem, request)
    add_margin_totals(expected)
    for field in dataclasses.fields(RowStatistics):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "active":
            continue
        assert (a is None) == (b is None), field.name
        if b is not None:
            same(a, b, field.name)


def slopes(problem: Problem, draw: st.DataObject) -> GradientRequest:
    """A request as a loss makes it, margins included or not."""
    b, m = problem.positives.shape
    acc = problem.acc
    number = problem.positives.to_dense().sum(1)
    row_scale = torch.linspace(0, 1, b, dtype=acc)
    row_scale[number == 0] = 0
    margins = draw.draw(st.booleans())

    def scalar(value: float) -> torch.Tensor:
        return torch.tensor(value, dtype=acc)

    return GradientRequest(
        draw.draw(st.sampled_from([None, "softmax", "decoupled", "sigmoid"])),
        row_scale=row_scale,
        num_positives=number,
        log_sum_exp=torch.linspace(0, 4, b, dtype=acc),
        negative_scale=torch.linspace(0, 1, b, dtype=acc),
        inverse_temperature=scalar(2.0),
        label_offset=torch.linspace(-1, 1, m, dtype=acc) if draw.draw(st.booleans()) else None,
        scale=scalar(draw.draw(st.sampled_from([0.0, 3.0]))),
        bias=scalar(-0.5),
        positive_margin=0.25 if margins else None,
        positive_margin_scale=scalar(0.5) if margins else None,
        negative_margin=-0.25 if margins else None,
        negative_margin_scale=scalar(0.25) if margins else None,
        want_scalars=draw.draw(st.booleans()),
    )


@fuzz
@given(data=st.data())
@pytest.mark.parametrize("count", [1, 3])
def test_dense_gradient(count, data):
    problem = problem_of(data)
    request = slopes(problem, data)
    sides = [
        torch.ones(x.shape, dtype=problem.acc) if data.draw(st.booleans()) else None
        for x in (problem.queries, problem.labels)
    ]
    results = []
    for backend in (native_backend, torch_backend):
        copies = [None if x is None else x.clone() for x in sides]
        with threads(count):
            results.append((backend.dense_gradient(problem, request, *copies), copies))
    (a, found), (b, expected) = results
    for x, y, name in zip(found, expected, ("queries", "labels"), strict=True):
        if y is not None:
            same(x, y, name)
    assert (a.weighted_sum is None) == (b.weighted_sum is None)
    if b.weighted_sum is not None:
        same(a.weighted_sum, b.weighted_sum, "weighted_sum")
        same(a.plain_sum, b.plain_sum, "plain_sum")


@fuzz
@given(data=st.data())
@pytest.mark.parametrize("count", [1, 3])
def test_active_pairs_are_the_dense_gradient(count, data):
    """A walk's list of active pairs gives the gradient of the margins, at every density."""
    problem = problem_of(data)
    request = dataclasses.replace(
        slopes(problem, data),
        kind=None,
        positive_margin=0.25,
        positive_margin_scale=torch.tensor(0.5, dtype=problem.acc),
        negative_margin=data.draw(st.sampled_from([-0.5, 0.25, 0.75])),
        negative_margin_scale=torch.tensor(0.25, dtype=problem.acc),
    )
    walked = WalkRequest(
        positive_margin=0.25, negative_margin=request.negative_margin, keep_active=True
    )
    with threads(count):
        found = native_backend.walk(problem, walked)
        total = int((found.positive_margin_count + found.negative_margin_count).sum())
        assert (found.active is not None) == (total <= 64)
        results = []
        for active in (found.active, None):
            grads = [
                torch.zeros(x.shape, dtype=problem.acc) for x in (problem.queries, problem.labels)
            ]
            given = dataclasses.replace(request, active=active)
            native_backend.dense_gradient(problem, given, *grads)
            results.append(grads)
    for x, y in zip(*results, strict=True):
        same(x, y, "active")


@fuzz
@given(data=st.data())
@pytest.mark.parametrize("kind", ["all", "negatives", "sigmoid"])
def test_the_gradient_made_during_the_walk(kind, data):
    """It equals the one of the pass of its own, statistics included."""
    problem = dataclasses.replace(problem_of(data), guard=None)
    acc = problem.acc
    b, m = problem.positives.shape
    scale = torch.linspace(0.1, 1, b, dtype=acc)
    request = WalkRequest(
        top_k=2,
        hardest_positive=True,
        softmax=None if kind == "sigmoid" else kind,
        inverse_temperature=torch.tensor(3.0, dtype=acc),
        label_offset=torch.linspace(-1, 1, m, dtype=acc) if data.draw(st.booleans()) else None,
        sigmoid=kind == "sigmoid",
        scale=torch.tensor(2.0, dtype=acc),
        bias=torch.tensor(-1.0, dtype=acc),
        positive_margin=0.25,
        negative_margin=0.25,
    )

    def row_scale(num_positives: torch.Tensor, num_negatives: torch.Tensor) -> torch.Tensor:
        members = (num_positives > 0) & (num_negatives > 0)
        return torch.where(members | (kind == "sigmoid"), scale, 0.0)

    def zeros() -> list[torch.Tensor]:
        return [torch.zeros(x.shape, dtype=acc) for x in (problem.queries, problem.labels)]

    fused, apart = zeros(), zeros()
    offer = WalkGradient(row_scale, *fused, want_scalars=True)
    found = native_backend.walk(problem, dataclasses.replace(request, gradient=offer))
    plain = native_backend.walk(problem, request)
    for field in dataclasses.fields(RowStatistics):
        y = getattr(plain, field.name)
        if isinstance(y, torch.Tensor):
            same(getattr(found, field.name), y, field.name)
    assert found.gradient is not None and plain.gradient is None
    negative_scale = None
    if kind == "negatives":
        sums = torch_backend.positive_pass(
            problem, plain.log_sum_exp, request.inverse_temperature, request.label_offset
        )
        negative_scale = sums[1] / plain.num_positives.clamp(min=1)
    sums = torch_backend.dense_gradient(
        problem,
        GradientRequest(
            {"all": "softmax", "negatives": "decoupled"}.get(kind, kind),
            row_scale=row_scale(plain.num_positives, plain.num_negatives),
            num_positives=plain.num_positives,
            log_sum_exp=plain.log_sum_exp,
            negative_scale=negative_scale,
            inverse_temperature=request.inverse_temperature,
            label_offset=request.label_offset,
            scale=request.scale,
            bias=request.bias,
            want_scalars=True,
        ),
        *apart,
    )
    for x, y in zip(fused, apart, strict=True):
        same(x, y, "gradient")
    same(found.gradient.weighted_sum, sums.weighted_sum, "weighted_sum")
    same(found.gradient.plain_sum, sums.plain_sum, "plain_sum")


def exchanged(problem: Problem) -> Problem:
    """Queries and labels in each other's place."""
    relations = problem.positives.transpose(), problem.exclude.transpose()
    return Problem(problem.labels, problem.queries, *relations, None)


@fuzz
@given(data=st.data())
@pytest.mark.parametrize("count", [1, 3])
def test_both_directions_of_a_softmax(count, data):
    """The columns' statistics and coefficients are those of the exchanged problem's rows."""
    problem = dataclasses.replace(problem_of(data), guard=None)
    other, acc = exchanged(problem), problem.acc
    b, m = problem.positives.shape
    over = st.sampled_from(["all", "negatives"])
    slope = torch.tensor(data.draw(st.sampled_from([2.0, -1.0])), dtype=acc)
    requests = [WalkRequest(softmax=data.draw(over), inverse_temperature=slope) for _ in range(2)]
    offset = torch.linspace(-1, 1, m, dtype=acc) if data.draw(st.booleans()) else None
    requests[0] = dataclasses.replace(requests[0], label_offset=offset)
    both = dataclasses.replace(requests[0], columns=requests[1].softmax)
    with threads(count):
        found = native_backend.walk(problem, both)
    expected = [torch_backend.walk(p, r) for p, r in zip((problem, other), requests, strict=True)]
    for x, y in zip((found, found.columns), expected, strict=True):
        for name in ("num_positives", "num_negatives", "log_sum_exp", "positive_logit_sum"):
            same(getattr(x, name), getattr(y, name), name)

    wanted = [
        GradientRequest(
            "softmax" if request.softmax == "all" else "decoupled",
            # Only rows with a positive have a share; among them some weigh nothing.
            row_scale=torch.linspace(0, 1, size, dtype=acc) * (walked.num_positives > 0),
            num_positives=walked.num_positives,
            log_sum_exp=torch.linspace(0, 4, size, dtype=acc),
            negative_scale=torch.linspace(0, 1, size, dtype=acc),
            inverse_temperature=slope,
            label_offset=request.label_offset,
            want_scalars=True,
        )
        for request, walked, size in zip(requests, expected, (b, m), strict=True)
    ]
    grads = [
        [torch.zeros(x.shape, dtype=acc) for x in (problem.queries, problem.labels)]
        for _ in range(2)
    ]
    with threads(count):
        joint = dataclasses.replace(wanted[0], columns=wanted[1])
        sums = native_backend.dense_gradient(problem, joint, *grads[0])
    apart = [
        torch_backend.dense_gradient(problem, wanted[0], *grads[1]),
        torch_backend.dense_gradient(other, wanted[1], *reversed(grads[1])),
    ]
    for x, y in zip(*grads, strict=True):
        same(x, y, "gradient")
    for name in ("weighted_sum", "plain_sum"):
        total = sum(getattr(part, name).sum() for part in apart)
        torch.testing.assert_close(getattr(sums, name).sum(), total, rtol=2e-5, atol=2e-5)


@fuzz
@given(data=st.data())
@pytest.mark.parametrize("count", [1, 3])
def test_listed_pairs(count, data):
    """Scores, gradients and the pair head, over indices with and without missing labels."""
    problem = problem_of(data)
    b, m, d = *problem.positives.shape, problem.queries.shape[1]
    t = data.draw(st.integers(0, 4))
    g = torch.Generator().manual_seed(b + t)
    index = torch.randint(-1, m, (b, t), generator=g) if m else torch.full((b, t), -1)
    numbers = torch.randint(-2, 3, (b, t), generator=g).to(problem.acc)
    numbers[index < 0] = float("nan")
    weight = torch.randint(-2, 3, (4 * d,), generator=g).to(problem.acc)
    bias = torch.tensor(0.25, dtype=problem.acc)
    results = []
    for backend in (native_backend, torch_backend):
        grads = [torch.zeros(x.shape, dtype=problem.acc) for x in (problem.queries, problem.labels)]
        with threads(count):
            made = [
                backend.score_pairs(problem, index),
                backend.pair_logits(problem, index, weight, bias),
                backend.pair_logits_backward(problem, index, weight, numbers, *grads, True),
            ]
            backend.pair_gradient(problem, index, numbers, *grads, True)
        results.append([*made, *grads])
    for x, y in zip(*results, strict=True):
        same(x, y, "pairs")


@fuzz
@given(data=st.data())
def test_unit_rows(data):
    n, d = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 20))
    dtype = data.draw(st.sampled_from(DTYPES))
    g = torch.Generator().manual_seed(n * 50 + d)
    size = data.draw(st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
    if dtype == torch.float16:
        size = min(max(size, 1e-3), 1e3)
    x = (torch.randn(n, d, generator=g, dtype=torch.float64) * size).to(dtype)
    x[::3] = 0
    x = laid_out(x, data.draw(st.sampled_from(LAYOUTS)))
    normalize = data.draw(st.booleans())
    found = native_backend.normalize_rows(x, dtype, normalize)
    expected = torch_backend.normalize_rows(x, dtype, normalize)
    # A half may round to its neighbour where the two norms differ in the last place.
    loose = {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, 1e-6)
    torch.testing.assert_close(found[0], expected[0], rtol=loose, atol=1e-7)
    assert bool(found[2]) == bool(expected[2])
    assert (found[1] is None) == (expected[1] is None)
    if expected[1] is not None:
        torch.testing.assert_close(found[1], expected[1], rtol=1e-6, atol=0)
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    grad = torch.randn(n, d, generator=g, dtype=torch.float64).to(acc)
    up = torch.tensor(0.5, dtype=acc)
    a = native_backend.normalize_rows_backward(grad, x, expected[1], up)
    b = torch_backend.normalize_rows_backward(grad, x, expected[1], up)
    scale = 1.0 if expected[1] is None else float(expected[1].abs().max()) if n else 1.0
    torch.testing.assert_close(a, b, rtol=loose, atol=1e-6 * min(scale, 1e4))


@fuzz
@given(data=st.data())
def test_losses_on_any_layout(data):
    """The public calls take views as they come."""
    b, d = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 16))
    g = torch.Generator().manual_seed(b * 20 + d)
    layouts = [data.draw(st.sampled_from(LAYOUTS)) for _ in range(2)]
    base = [torch.randn(b, d, generator=g) for _ in range(2)]
    results = []
    for backend in ("native", "torch"):
        leaves = [
            laid_out(x, layout).requires_grad_() for x, layout in zip(base, layouts, strict=True)
        ]
        loss = functional.softmax_loss(*leaves, Positives.diagonal(b), backend=backend)
        results.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_repeats_bit_by_bit(count):
    """The same numbers at every call; a walk's also with another number of threads."""
    g = torch.Generator().manual_seed(1)
    x, y = (torch.randn(700, 24, generator=g) for _ in range(2))
    loss = ALCLoss(24, backend="native")
    walked = WalkRequest(
        top_k=5, softmax="all", inverse_temperature=torch.tensor(20.0), columns="negatives"
    )
    unit = [native_backend.normalize_rows(z, torch.float32, True)[0] for z in (x, y)]
    problem = Problem(*unit, Positives.diagonal(700), Positives._empty(700, 700), None)
    with threads(1):
        one = native_backend.walk(problem, walked)

    def run() -> list[torch.Tensor]:
        leaves = [z.clone().requires_grad_() for z in (x, y)]
        value = functional.softmax_loss(*leaves, backend="native")
        value = value + functional.triplet_loss(*leaves, backend="native")
        value = value + functional.threshold_margin_loss(*leaves, backend="native")
        return [value.detach(), *torch.autograd.grad(value, leaves)]

    with threads(count):
        several = native_backend.walk(problem, walked)
        first = run()
        for _ in range(3):
            assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
        assert loss(x, y).isfinite()
    assert torch.equal(one.top_index, several.top_index)
    assert torch.equal(one.top_score, several.top_score)
    assert torch.equal(one.log_sum_exp, several.log_sum_exp)
    assert torch.equal(one.columns.log_sum_exp, several.columns.log_sum_exp)
