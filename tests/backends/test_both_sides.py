"""Softmax statistics of rows and columns from one walk, and the gradient of both (Triton)."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from alc_kernels import functional, reference
from alc_kernels.backends import triton as triton_backend
from alc_kernels.backends.triton import launch as workspace
from alc_kernels.backends.triton.dense import launch as coefficients
from alc_kernels.backends.triton.launch import Tile
from alc_kernels.backends.triton.one_pass import both_sides
from alc_kernels.backends.triton.walk import launch as walk_launch
from alc_kernels.engine.interface import GradientRequest, Problem, WalkRequest
from tests.backends.common import error, random_problem
from tests.backends.dense import dense_walk
from tests.losses.cases import make_data


@pytest.fixture
def small_tiles(monkeypatch):
    """Many tiles, and chunks of 32 rows, in a small problem."""
    monkeypatch.setattr(coefficients, "tile_for", lambda *_: Tile(32, 32, 32, 4, 2))
    monkeypatch.setattr(workspace, "WORKSPACE_BYTES", 1)


def _exchanged(problem: Problem) -> Problem:
    positives, exclude = problem.positives.transpose(), problem.exclude.transpose()
    return Problem(problem.labels, problem.queries, positives, exclude, None)


def _check(problem: Problem, rows: str, columns: str, slope: float, offset: torch.Tensor | None):
    number = torch.tensor(slope, device=problem.queries.device)
    request = WalkRequest(softmax=rows, inverse_temperature=number, label_offset=offset)
    both = dataclasses.replace(request, columns=columns)
    assert both_sides.serves(problem, both)
    found = triton_backend.walk(problem, both)
    request_of_columns = WalkRequest(softmax=columns, inverse_temperature=number)
    for side, exact in (
        (found, dense_walk(problem, request)),
        (found.columns, dense_walk(_exchanged(problem), request_of_columns)),
    ):
        assert torch.equal(side.num_positives, exact.num_positives)
        assert torch.equal(side.num_negatives, exact.num_negatives)
        for name in ("log_sum_exp", "positive_logit_sum"):
            a, b = getattr(side, name), getattr(exact, name)
            finite = torch.isfinite(b)
            assert torch.equal(a.double()[~finite], b[~finite]), name
            assert error(a[finite], b[finite]) < 2e-6, name


@pytest.mark.parametrize(
    ("positives", "exclude", "rows", "columns"),
    [
        ("diagonal", "empty", "negatives", "negatives"),
        ("index", "csr", "negatives", "all"),
        ("ids", "index", "all", "all"),
        ("csr", "ids", "all", "negatives"),
    ],
)
def test_statistics_of_both_sides(positives, exclude, rows, columns, device, small_tiles):
    size = (43, 43) if positives == "diagonal" else (43, 75)
    dtype = torch.float16 if positives == "index" else torch.float32
    problem = random_problem(*size, 24, dtype, device, positives=positives, exclude=exclude)
    offset = torch.randn(size[1], generator=torch.Generator().manual_seed(1)).to(device)
    _check(problem, rows, columns, 8.0, offset if positives != "diagonal" else None)


def test_a_tile_whose_rows_differ_by_more_than_exponents_reach(device, small_tiles):
    """Row and column maxima hundreds apart within a tile: each is summed with its own."""
    problem = random_problem(43, 75, 8, torch.float32, device, positives="csr")
    spread = torch.linspace(-1, 1, 43, device=device)[:, None]
    problem = dataclasses.replace(problem, queries=problem.queries * spread)
    _check(problem, "all", "all", 300.0, torch.linspace(-90, 90, 75, device=device))


def test_shipped_tiles(device):
    problem = random_problem(140, 150, 24, torch.bfloat16, device, positives="index")
    _check(problem, "negatives", "all", 20.0, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("positives", "exclude", "kinds"),
    [
        ("index", "empty", ("decoupled", "softmax")),
        ("csr", "ids", ("softmax", "decoupled")),
    ],
)
def test_gradient_of_both_sides_is_the_sum(dtype, positives, exclude, kinds, device):
    """One pass with the coefficients of both, against one pass for each."""
    problem = random_problem(37, 53, 24, dtype, device, positives=positives, exclude=exclude)
    generator = torch.Generator().manual_seed(0)
    offset = torch.randn(53, generator=generator).to(device)
    slope = torch.tensor(8.0, device=device)
    requests = []
    for side, kind, more in ((problem, kinds[0], offset), (_exchanged(problem), kinds[1], None)):
        over = "negatives" if kind == "decoupled" else "all"
        walked = WalkRequest(softmax=over, inverse_temperature=slope, label_offset=more)
        found = dense_walk(side, walked, torch.float32)
        counts = (found.num_positives > 0) & (found.num_negatives > 0)
        counts[::7] = False
        n = len(counts)
        lse, scale = found.log_sum_exp, torch.rand(n, generator=generator).to(device)
        lse = torch.where(counts, lse, torch.nan)  # what does not count may hold anything
        request = GradientRequest(
            kind, row_scale=torch.where(counts, scale / n, 0.0), log_sum_exp=lse,
            num_positives=found.num_positives, negative_scale=torch.where(counts, scale, torch.nan),
            inverse_temperature=slope, label_offset=more, want_scalars=True,
        )  # fmt: skip
        requests.append(request)

    def zeros() -> tuple[torch.Tensor, torch.Tensor]:
        return (
            torch.zeros(problem.queries.shape, device=device),
            torch.zeros(problem.labels.shape, device=device),
        )

    (by_queries, by_labels), (all_queries, all_labels) = zeros(), zeros()
    joint = dataclasses.replace(requests[0], columns=requests[1])
    found = triton_backend.dense_gradient(problem, joint, by_queries, by_labels)
    first = triton_backend.dense_gradient(problem, requests[0], all_queries, all_labels)
    second = triton_backend.dense_gradient(
        _exchanged(problem), requests[1], all_labels, all_queries
    )
    allowed = {torch.float32: 2e-6, torch.float16: 6e-4, torch.bfloat16: 4e-3}[dtype]
    assert error(by_queries, all_queries) < allowed and error(by_labels, all_labels) < allowed
    for name in ("weighted_sum", "plain_sum"):
        a, b, c = (getattr(x, name).sum() for x in (found, first, second))
        assert abs(float(a - b - c)) < 2e-6 * float(sum(r.row_scale.sum() for r in requests))


def _never(*_args: object, **_options: object) -> None:
    raise AssertionError("a second look at the similarities")


@pytest.mark.parametrize(("relation", "decoupled"), [("diagonal", False), ("csr", True)])
def test_the_symmetric_loss_computes_the_similarities_twice(
    relation, decoupled, device, monkeypatch
):
    """One walk for both sides and one gradient pass for both, with a learned temperature."""
    monkeypatch.setattr(walk_launch, "walk", _never)
    passes = []
    dense = triton_backend.dense_gradient

    def counted(problem, request, *sides):
        passes.append(request.columns is not None)
        return dense(problem, request, *sides)

    monkeypatch.setattr(triton_backend, "dense_gradient", counted)
    data = make_data(relation)
    exact, found = data.to(torch.float32).to(torch.float64), data.to(torch.float32, device)
    slopes = []
    for side, module, more in ((exact, reference, {}), (found, functional, {"backend": "triton"})):
        like = {"dtype": side.queries.dtype, "device": side.queries.device}
        temperature = torch.tensor(0.07, requires_grad=True, **like)
        module.softmax_loss(
            side.queries, side.labels, side.positives, temperature=temperature,
            decoupled=decoupled, symmetric=True, **more,
        ).backward()  # fmt: skip
        slopes.append(float(temperature.grad))
    assert passes == [True]
    assert abs(slopes[1] - slopes[0]) < 2e-5 * abs(slopes[0])
    assert error(found.queries.grad, exact.queries.grad) < 4e-6
    assert error(found.labels.grad, exact.labels.grad) < 4e-6


def test_what_is_not_served(device):
    """Other statistics, or a guard: two walks, as on any backend."""
    problem = random_problem(20, 30, 8, torch.float32, device, positives="csr")
    request = WalkRequest(
        softmax="all", columns="all", inverse_temperature=torch.tensor(8.0, device=device)
    )
    assert both_sides.serves(problem, request)
    for change in ({"columns": None}, {"top_k": 1}, {"negative_margin": 0.5}):
        assert not both_sides.serves(problem, dataclasses.replace(request, **change)), change
    guarded = dataclasses.replace(problem, guard=torch.zeros(20, device=device))
    assert not both_sides.serves(guarded, request)
    found = triton_backend.walk(problem, dataclasses.replace(request, top_k=1))
    assert found.columns is None and found.top_score is not None
