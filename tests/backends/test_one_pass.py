"""The walk that makes the gradient as well (Triton), against autograd in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alc_kernels import functional, reference
from alc_kernels.backends import triton as triton_backend
from alc_kernels.backends.triton import launch as workspace
from alc_kernels.backends.triton.dense import launch as coefficients
from alc_kernels.backends.triton.launch import Tile
from alc_kernels.backends.triton.one_pass import launch as one_pass
from alc_kernels.backends.triton.walk import launch as walk_launch
from alc_kernels.engine.interface import Problem, RowStatistics, WalkGradient, WalkRequest
from tests.backends.common import error, random_problem
from tests.backends.dense import negatives_of
from tests.losses.cases import make_data

# Of gradients: coefficients and small operand are rounded once each in bfloat16.
ALLOWED = {torch.float32: 4e-6, torch.float16: 6e-4, torch.bfloat16: 4e-3}
KINDS = ("all", "negatives", "sigmoid")


@pytest.fixture
def small_tiles(monkeypatch):
    """Many tiles and several chunks of 32 rows in a small problem."""
    monkeypatch.setattr(coefficients, "tile_for", lambda *_: Tile(32, 32, 32, 4, 2))
    monkeypatch.setattr(coefficients, "CHUNK_UNIT", 32)
    monkeypatch.setattr(one_pass, "MIN_CHUNK_ROWS", 32)
    monkeypatch.setattr(workspace, "WORKSPACE_BYTES", 32 * 64 * 6)


def _truth(
    problem: Problem, request: WalkRequest, row_scale: Tensor
) -> tuple[RowStatistics, Tensor, Tensor, Tensor, Tensor]:
    """Statistics, and the gradients of sum row_scale * value in float64 (slope and bias too)."""
    queries, labels = (
        x.detach().double().requires_grad_() for x in (problem.queries, problem.labels)
    )
    slope = request.scale if request.sigmoid else request.inverse_temperature
    slope = slope.detach().double().requires_grad_()
    bias = torch.zeros_like(slope) if request.bias is None else request.bias.detach().double()
    bias.requires_grad_()
    s = queries @ labels.T
    positive, negative = negatives_of(problem, s)
    stats = RowStatistics(positive.sum(1), negative.sum(1))
    if request.sigmoid:
        x = s * slope + bias
        values = torch.where(positive, F.softplus(-x), torch.where(negative, F.softplus(x), 0.0))
        values = stats.sigmoid_sum = values.sum(1)
    else:
        z = s * slope
        if request.label_offset is not None:
            z = z + request.label_offset.double()
        of_negatives = torch.where(negative, z, -torch.inf).logsumexp(1)
        gap = of_negatives[:, None] - z
        everything = torch.where(positive | negative, z, -torch.inf).logsumexp(1)
        if request.softmax == "all":
            gap = everything[:, None] - z
        per_pair = F.softplus(gap) if request.softmax == "negatives" else gap
        counts = row_scale != 0
        per_pair = torch.where(positive & counts[:, None], per_pair, 0.0)
        values = per_pair.sum(1) / stats.num_positives.clamp(min=1)
        stats.log_sum_exp = of_negatives if request.softmax == "negatives" else everything
        stats.positive_logit_sum = torch.where(positive, z, 0.0).sum(1)
    (values * row_scale.double()).sum().backward()
    by_bias = torch.zeros_like(slope) if bias.grad is None else bias.grad
    return stats, queries.grad, labels.grad, slope.grad, by_bias


def _request(problem: Problem, kind: str, *, offset: bool, slope: float = 8.0) -> WalkRequest:
    device, m = problem.queries.device, problem.labels.shape[0]
    number = torch.tensor(slope, device=device)
    if kind == "sigmoid":
        return WalkRequest(sigmoid=True, scale=number, bias=torch.tensor(-2.0, device=device))
    offsets = torch.randn(m, generator=torch.Generator().manual_seed(m)).to(device)
    return WalkRequest(
        softmax=kind, inverse_temperature=number, label_offset=offsets if offset else None
    )


def _check(
    problem: Problem,
    request: WalkRequest,
    *,
    scalars: bool = True,
    floor: float = 0.0,
    largest: float = 1.0,
    there: float = 0.5,
) -> RowStatistics:
    """Walk with an offer; every number against the truth."""
    b, m = problem.positives.shape
    device = problem.queries.device
    weight = torch.rand(b, generator=torch.Generator().manual_seed(b)).to(device) / b
    weight[::7] = 0.0

    def row_scale(positives: Tensor, negatives: Tensor) -> Tensor:
        members = (positives > 0) & (negatives > 0) if request.softmax else positives >= 0
        return largest * torch.where(members, weight, 0.0)

    by_queries = torch.full(problem.queries.shape, there, device=device)
    by_labels = torch.full(problem.labels.shape, there, device=device)
    offer = WalkGradient(row_scale, by_queries, by_labels, scalars)
    request = dataclasses.replace(request, gradient=offer)
    assert one_pass.serves(problem, request)
    found = triton_backend.walk(problem, request)
    scale = row_scale(found.num_positives, found.num_negatives)
    exact, *gradients = _truth(problem, request, scale)
    assert torch.equal(found.num_positives, exact.num_positives)
    assert torch.equal(found.num_negatives, exact.num_negatives)
    for name in ("log_sum_exp", "positive_logit_sum", "sigmoid_sum"):
        a, c = getattr(found, name), getattr(exact, name)
        assert (a is None) == (c is None), name
        if c is not None:
            finite = torch.isfinite(c)
            assert torch.equal(a.double()[~finite], c[~finite]), name
            assert error(a[finite], c[finite].float()) < 2e-6, name
    allowed = ALLOWED[problem.queries.dtype] + floor
    assert error(by_queries - there, gradients[0]) < allowed + there * 2e-7 / largest
    assert error(by_labels - there, gradients[1]) < allowed + there * 2e-7 / largest
    # A row of scale 0 adds exactly nothing, whatever stands in it.
    assert torch.equal(by_queries[scale == 0], torch.full_like(by_queries[scale == 0], there))
    assert found.gradient is not None
    if not scalars:
        assert found.gradient.weighted_sum is None and found.gradient.plain_sum is None
        return found
    # A row's positives and negatives cancel: errors are relative to their sizes.
    size = float(scale.abs().sum()) * (1.0 + floor / 1e-6)
    # g = dL/d logit, so sum g s = dL/d slope.
    assert abs(float(found.gradient.weighted_sum.sum()) - float(gradients[2])) <= 2e-6 * size
    assert abs(float(found.gradient.plain_sum.sum()) - float(gradients[3])) <= 2e-6 * size * m
    return found


RELATIONS = [
    ("diagonal", "empty"),
    ("index", "csr"),
    ("ids", "index"),
    ("csr", "ids"),
    pytest.param("csr", "diagonal", marks=pytest.mark.slow),
    pytest.param("empty", "empty", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("positives", "exclude"), RELATIONS)
@pytest.mark.parametrize("offset", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_formula_and_relation(kind, positives, exclude, offset, device, small_tiles):
    size = (37, 37) if "diagonal" in (positives, exclude) else (37, 53)
    dtype = torch.bfloat16 if offset or positives == "index" else torch.float32
    problem = random_problem(*size, 24, dtype, device, positives=positives, exclude=exclude)
    offset = offset or exclude == "csr"
    _check(problem, _request(problem, kind, offset=offset), scalars=dtype == torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_tiles(kind, device):
    dtype = torch.bfloat16 if kind == "negatives" else torch.float32
    problem = random_problem(150, 140, 40, dtype, device, positives="index")
    _check(problem, _request(problem, kind, offset=True))


@pytest.mark.parametrize("size", [1e-7, 1e6])
def test_float16_sigmoid_neither_vanishes_nor_overflows(size, device, small_tiles):
    problem = random_problem(37, 53, 24, torch.float16, device, positives="ids")
    _check(problem, _request(problem, "sigmoid", offset=False), largest=size)


@pytest.mark.parametrize("kind", ["all", "negatives"])
@pytest.mark.parametrize(
    "case",
    ["offsets", "cold", *(pytest.param(x, marks=pytest.mark.slow) for x in ("long", "spread"))],
)
def test_references_that_are_far_off(kind, case, device, small_tiles):
    """Rows whose maximum is further from the guess than the exponents reach are written anew."""
    dtype = torch.bfloat16 if case in ("cold", "offsets") else torch.float32
    problem = random_problem(37, 53, 8, dtype, device, positives="csr")
    request = _request(problem, kind, offset=True, slope=200.0 if case == "cold" else 8.0)
    offset = torch.zeros(53, device=device)
    if case == "offsets":
        offset[::2], offset[1::2], offset[5] = -100.0, 100.0, 0.0
    if case == "spread":
        offset = torch.linspace(-100, 100, 53, device=device)
    if case == "long":  # inner products of vectors that are not normalised
        problem = dataclasses.replace(problem, queries=problem.queries * 40)
    request = dataclasses.replace(request, label_offset=offset)
    # Logits of hundreds are known to 2^-24 of that, and so are the exponentials.
    found = _check(problem, request, floor=1e-4)
    own = one_pass.positive_logits(problem, request.inverse_temperature, offset)
    guess = torch.where(own.maximum > -torch.inf, own.maximum, 0.0)
    far = (found.log_sum_exp / 0.6931 - guess).abs() > 70
    assert far.any() and not far.all()


@pytest.mark.parametrize("kind", ["all", "negatives"])
def test_a_certain_positive_keeps_its_gradient(kind, device):
    """1 - p is 4e-6 at worst: what p - 1 would lose by cancellation is kept."""
    problem = random_problem(32, 32, 16, torch.float32, device, positives="ids", seed=3)
    labels = torch.eye(32, 16, device=device) + 0.01 * problem.labels
    labels[16:] = torch.roll(-labels[:16], 1, 0)
    ids = torch.arange(32, device=device)
    positives = type(problem.positives).from_ids(ids, ids)
    problem = dataclasses.replace(problem, queries=labels.clone(), labels=labels)
    problem = dataclasses.replace(problem, positives=positives)
    _check(problem, _request(problem, kind, offset=False, slope=15.0), scalars=False, there=0.0)


def test_what_is_not_served(device):
    problem = random_problem(20, 30, 8, torch.bfloat16, device, positives="csr")
    offer = WalkGradient(lambda p, n: p.float(), None, None)
    request = dataclasses.replace(_request(problem, "all", offset=False), gradient=offer)
    assert one_pass.serves(problem, request)
    for change in (
        {"gradient": None},
        {"top_k": 1},
        {"hardest_positive": True},
        {"positive_margin": 0.9},
        {"negative_margin": 0.5},
        {"columns": "all"},
        {"softmax": None},
    ):
        assert not one_pass.serves(problem, dataclasses.replace(request, **change)), change
    guarded = dataclasses.replace(problem, guard=torch.zeros(20, device=device))
    assert not one_pass.serves(guarded, request)
    half = random_problem(20, 30, 8, torch.float16, device, positives="csr")
    assert not one_pass.serves(half, request)
    sigmoid = dataclasses.replace(_request(half, "sigmoid", offset=False), gradient=offer)
    assert one_pass.serves(half, sigmoid)


@pytest.mark.parametrize("size", [(0, 7, 4), (7, 0, 4)])
def test_empty_problems(size, device):
    problem = random_problem(*size, torch.float32, device)
    offer = WalkGradient(lambda p, n: p.float(), None, None)
    request = dataclasses.replace(_request(problem, "all", offset=False), gradient=offer)
    found = triton_backend.walk(problem, request)
    assert found.num_positives.shape == (size[0],) and found.gradient is None


class _Never(RuntimeError):
    """Raised where a second look at the similarities would begin."""


def _never(*_args: object, **_options: object) -> None:
    raise _Never


@pytest.mark.parametrize("relation", ["diagonal", pytest.param("csr", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("loss", "options"),
    [
        ("softmax_loss", {}),
        ("softmax_loss", {"decoupled": True}),
        ("softmax_loss", {"normalize": False, "temperature": 0.005}),
        ("sigmoid_loss", {}),
    ],
    ids=str,
)
def test_losses_compute_the_similarities_once(loss, options, relation, device, monkeypatch):
    """No walk but this one and no gradient pass; values as the reference's."""
    monkeypatch.setattr(walk_launch, "walk", _never)
    monkeypatch.setattr(triton_backend, "dense_gradient", _never)
    data = make_data(relation)
    exact = data.to(torch.float32).to(torch.float64)
    found = data.to(torch.float32, device)
    for side, module, more in (
        (exact, reference, {}),
        (found, functional, {"backend": "triton"}),
    ):
        call = getattr(module, loss)
        value = call(side.queries, side.labels, side.positives, side.exclude, **options, **more)
        value.backward()
    allowed = 1e-4 if "temperature" in options else 4e-6  # logits of hundreds, known to 2^-24
    assert error(found.queries.grad, exact.queries.grad) < allowed
    assert error(found.labels.grad, exact.labels.grad) < allowed


@pytest.mark.parametrize("decoupled", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_learned_temperature(decoupled, device):
    data = make_data("csr")
    exact, found = data.to(torch.float32).to(torch.float64), data.to(torch.float32, device)
    slopes = []
    for side, module, more in ((exact, reference, {}), (found, functional, {"backend": "triton"})):
        like = {"dtype": side.queries.dtype, "device": side.queries.device}
        temperature = torch.tensor(0.07, requires_grad=True, **like)
        module.softmax_loss(
            side.queries, side.labels, side.positives, temperature=temperature,
            decoupled=decoupled, **more,
        ).backward()  # fmt: skip
        slopes.append(float(temperature.grad))
    assert abs(slopes[1] - slopes[0]) < 2e-5 * abs(slopes[0])


def test_more_labels_than_the_workspace_takes(device, monkeypatch):
    """Where a chunk would hold too few rows, S is computed twice; the gradient is the same."""
    problem = random_problem(140, 140, 8, torch.float32, device, positives="index")
    offer = WalkGradient(lambda p, n: p.float(), None, None)
    request = dataclasses.replace(_request(problem, "all", offset=False), gradient=offer)
    gradients = []
    for size in (workspace.WORKSPACE_BYTES, 192 * 1024):
        monkeypatch.setattr(workspace, "WORKSPACE_BYTES", size)
        gradients.append(one_pass.serves(problem, request))
        queries = problem.queries.clone().requires_grad_()
        functional.softmax_loss(queries, problem.labels, backend="triton").backward()
        gradients.append(queries.grad)
    assert gradients[0] and not gradients[2]
    assert error(gradients[3], gradients[1]) < 4e-6
