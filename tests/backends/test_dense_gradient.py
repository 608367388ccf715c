"""The dense gradient pass, on every backend."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from alc_kernels.backends.triton import launch as workspace
from alc_kernels.backends.triton.dense import launch as coefficients
from alc_kernels.engine.interface import GradientRequest, GradientResult, Problem
from tests.backends.common import (
    BACKENDS,
    DTYPES,
    assert_close,
    backend,
    error,
    random_problem,
)
from tests.backends.dense import negatives_of

ALL = ("guard", "offset", "margins", "scalars")
SLACK = (*ALL, "slack")
# kind, positives, exclude, options: each value of each at least once, and all at once.
CASES = [
    ("softmax", "diagonal", "empty", ()),
    ("softmax", "csr", "ids", ALL),
    ("softmax", "index", "csr", ("scalars",)),
    ("decoupled", "csr", "index", SLACK),
    ("decoupled", "ids", "empty", ("offset", "scalars")),
    ("sigmoid", "empty", "csr", ("guard", "scalars")),
    ("sigmoid", "ids", "diagonal", ALL),
    (None, "csr", "diagonal", ("margins", "guard", "slack")),
]


def _request(problem: Problem, kind: str | None, options: tuple[str, ...]) -> GradientRequest:
    """Numbers as a loss would give them; rows that do not count hold NaN and infinities."""
    b, m = problem.positives.shape
    device = problem.queries.device
    generator = torch.Generator().manual_seed(b)
    scores = problem.queries.double() @ problem.labels.double().T
    positive, negative = negatives_of(problem, scores)
    number = positive.sum(1)
    row_scale = torch.rand(b, generator=generator).to(device) / max(b, 1)
    counts = (number > 0) & negative.any(1)
    counts[::7] = False
    offset = torch.randn(m, generator=generator).to(device) / 10
    z = scores * 8 + (offset if "offset" in options else 0)
    log_sum_exp = torch.where(positive | negative, z, float("-inf")).logsumexp(1).float()
    log_sum_exp[::7] = float("nan")
    log_sum_exp[::14] = float("-inf")
    negative_scale = torch.rand(b, generator=generator).to(device)
    negative_scale[::7] = float("nan")
    margins = "margins" in options

    def number_of(value: float) -> Tensor:
        return torch.tensor(value, device=device)

    return GradientRequest(
        kind,  # type: ignore[arg-type]
        row_scale=torch.where(counts, row_scale, 0.0),
        num_positives=number,
        log_sum_exp=log_sum_exp,
        negative_scale=negative_scale,
        inverse_temperature=number_of(8.0),
        label_offset=offset if "offset" in options else None,
        scale=number_of(6.0),
        bias=number_of(-2.0),
        positive_margin=0.6 if margins else None,
        positive_margin_scale=number_of(0.02) if margins else None,
        negative_margin=0.1 if margins else None,
        negative_margin_scale=number_of(0.01) if margins else None,
        want_scalars="scalars" in options,
    )


def _naive(
    problem: Problem, request: GradientRequest, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(G K, G^T Q, weighted sums, plain sums), all of S at once.

    ``dtype`` float64 is the truth; another is what plain PyTorch makes in the inputs' dtype.
    """
    exact = dtype == torch.float64
    acc = torch.float64 if exact else torch.float32
    queries, labels = problem.queries.to(acc), problem.labels.to(acc)
    s = queries @ labels.T
    positive, negative = negatives_of(problem, queries.double() @ labels.double().T)
    g, slope = torch.zeros_like(s), torch.ones((), dtype=acc, device=s.device)
    if request.kind is not None:
        row_scale = request.row_scale.to(acc)[:, None]
        if request.kind == "sigmoid":
            slope = request.scale.to(acc)
            x = s * slope + request.bias.to(acc)
            g = torch.where(positive, -torch.sigmoid(-x), torch.sigmoid(x))
        else:
            slope = request.inverse_temperature.to(acc)
            z = s * slope
            if request.label_offset is not None:
                z = z + request.label_offset.to(acc)
            gap = z - request.log_sum_exp.to(acc)[:, None]
            share = 1.0 / request.num_positives.clamp(min=1)[:, None].to(acc)
            if request.kind == "softmax":
                g = gap.exp() - torch.where(positive, share, 0.0)
            else:
                g = request.negative_scale.to(acc)[:, None] * gap.exp()
                g = torch.where(positive, -torch.sigmoid(-gap) * share, g)
        g = torch.where((positive | negative) & (row_scale != 0), row_scale * g, 0.0)
    weighted, plain = (g * s).sum(1), g.sum(1)
    g = g * slope
    if request.positive_margin is not None:
        active = positive & (s <= request.positive_margin)
        g = g - torch.where(active, request.positive_margin_scale, 0.0)
        active = negative & (s >= request.negative_margin)
        g = g + torch.where(active, request.negative_margin_scale, 0.0)
    g = g.to(dtype).to(acc)
    return g @ labels, g.T @ queries, weighted, plain


def _run(
    name: str, problem: Problem, request: GradientRequest
) -> tuple[Tensor, Tensor, GradientResult]:
    device = problem.queries.device
    of_queries = torch.zeros(problem.queries.shape, device=device)
    of_labels = torch.zeros(problem.labels.shape, device=device)
    result = backend(name).dense_gradient(problem, request, of_queries, of_labels)
    return of_queries, of_labels, result


def _check(name: str, problem: Problem, request: GradientRequest) -> None:
    of_queries, of_labels, result = _run(name, problem, request)
    exact = _naive(problem, request, torch.float64)
    plain = _naive(problem, request, problem.queries.dtype)
    dtype = problem.queries.dtype
    # What plain PyTorch makes is known by its values; their dtype says how they were rounded.
    assert_close(of_queries, exact[0], _rounded_like(plain[0], dtype))
    assert_close(of_labels, exact[1], _rounded_like(plain[1], dtype))
    if request.want_scalars:
        # A row's positives and negatives cancel in the sums: errors are relative to their sizes.
        size = float(request.row_scale.abs().sum()) if request.row_scale is not None else 0.0
        found = torch.stack([result.weighted_sum, result.plain_sum])
        assert found.dtype == torch.float32
        expected = torch.stack(exact[2:])
        size += float(expected.abs().sum())
        assert float((found - expected).abs().sum()) <= 1e-6 * size
    else:
        assert result.weighted_sum is None and result.plain_sum is None


def _rounded_like(plain: Tensor, dtype: torch.dtype) -> Tensor:
    return plain.to(dtype) if dtype == torch.bfloat16 else plain


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "positives", "exclude", "options"), CASES)
def test_every_formula_and_relation(name, dtype, kind, positives, exclude, options, device):
    guard = "slack" if "slack" in options else "guard" in options
    problem = random_problem(
        37, 53, 24, dtype, device, positives=positives, exclude=exclude, guard=guard
    )
    _check(name, problem, _request(problem, kind, options))


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("b", "m", "d"), [(130, 130, 64), (150, 70, 7), (1, 140, 128)])
def test_sizes_that_do_and_do_not_fill_tiles(name, dtype, b, m, d, device):
    positives = "diagonal" if b == m else "index"
    problem = random_problem(b, m, d, dtype, device, positives=positives)
    _check(name, problem, _request(problem, "sigmoid", ("scalars",)))


@pytest.mark.parametrize("name", BACKENDS)
def test_adds_to_what_is_there_and_only_wanted_sides(name, device):
    problem = random_problem(37, 53, 24, torch.float16, device, positives="index")
    request = _request(problem, "softmax", ("scalars",))
    of_queries, of_labels, result = _run(name, problem, request)
    queries = torch.full_like(of_queries, 0.5)
    labels = torch.full_like(of_labels, 0.25)
    again = backend(name).dense_gradient(problem, request, queries, labels)
    assert error(queries - 0.5, of_queries) < 1e-4 and error(labels - 0.25, of_labels) < 1e-4
    one_side = torch.zeros_like(of_queries)
    backend(name).dense_gradient(problem, request, one_side, None)
    assert torch.equal(one_side, of_queries)
    one_side = torch.zeros_like(of_labels)
    backend(name).dense_gradient(problem, request, None, one_side)
    assert torch.equal(one_side, of_labels)
    alone = backend(name).dense_gradient(problem, request, None, None)
    assert torch.equal(alone.weighted_sum, result.weighted_sum)
    assert torch.equal(again.plain_sum, result.plain_sum)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("kind", ["softmax", "decoupled", "sigmoid"])
def test_rows_of_scale_zero_contribute_nothing(name, kind, device):
    problem = random_problem(37, 53, 24, torch.float32, device, positives="index")
    request = _request(problem, kind, ())
    request.row_scale.zero_()
    of_queries, of_labels, _ = _run(name, problem, request)
    assert not of_queries.any() and not of_labels.any()


@pytest.mark.parametrize("kind", ["softmax", "decoupled", "sigmoid"])
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e7])
def test_float16_coefficients_neither_vanish_nor_overflow(kind, size, device):
    problem = random_problem(37, 53, 24, torch.float16, device, positives="index")
    request = _request(problem, kind, ())
    request = dataclasses.replace(request, row_scale=request.row_scale * size)
    of_queries, of_labels, _ = _run("triton", problem, request)
    exact = _naive(problem, request, torch.float64)
    assert error(of_queries, exact[0]) < 5e-4 and error(of_labels, exact[1]) < 5e-4


@pytest.mark.parametrize("dtype", DTYPES)
def test_row_and_column_chunks(dtype, device, monkeypatch):
    problem = random_problem(200, 300, 24, dtype, device, positives="index")
    request = _request(problem, "softmax", ("scalars",))
    whole = _run("triton", problem, request)
    monkeypatch.setattr(workspace, "WORKSPACE_BYTES", 1)
    monkeypatch.setattr(coefficients, "MIN_CHUNK_ROWS", 128)
    parts = _run("triton", problem, request)
    for a, b in zip(parts[:2], whole[:2], strict=True):
        assert error(a, b) < 1e-5
    size = float(request.row_scale.sum())
    for a, b in (
        (parts[2].weighted_sum, whole[2].weighted_sum),
        (parts[2].plain_sum, whole[2].plain_sum),
    ):
        assert float((a - b).abs().sum()) < 1e-6 * size


@given(
    rows=st.integers(1, 2**33),
    cols=st.integers(1, 2**33),
    item=st.sampled_from([2, 4, 6]),
)
@settings(deadline=None)
def test_a_chunk_fits_the_workspace_or_is_one_tile(rows, cols, item):
    height, width = coefficients.chunk_shape(rows, cols, item)
    unit = coefficients.CHUNK_UNIT
    assert height % unit == 0 and width % unit == 0
    assert height < rows + unit and width < cols + unit
    assert height * width * item <= workspace.WORKSPACE_BYTES


class _Largest(TorchDispatchMode):
    """The bytes of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, Tensor):
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return made


def test_no_tensor_of_the_size_of_the_similarities(device, monkeypatch):
    size = 1 << 18
    monkeypatch.setattr(workspace, "WORKSPACE_BYTES", size)
    monkeypatch.setattr(coefficients, "MIN_CHUNK_ROWS", 128)
    problem = random_problem(140, 2500, 8, torch.float16, device, positives="index")
    request = _request(problem, "softmax", ("scalars",))
    with _Largest() as largest:
        _run("triton", problem, request)
    assert 0 < largest.bytes <= size < 140 * 2500 * 2


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("b", "m"), [(0, 5), (5, 0), (0, 0)])
def test_empty_sides(name, b, m, device):
    problem = random_problem(b, m, 8, torch.float32, device)
    request = _request(problem, "sigmoid", ALL)
    of_queries, of_labels, result = _run(name, problem, request)
    assert not of_queries.any() and not of_labels.any()
    assert result.weighted_sum.shape == (b,) and not result.weighted_sum.any()
