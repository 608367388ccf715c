"""The gradients of several prefix widths from one pass, against those of plain PyTorch."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from alc_kernels.backends import torch as torch_backend
from alc_kernels.backends import triton as triton_backend
from alc_kernels.backends.triton import launch as workspace
from alc_kernels.backends.triton.active import product as prefix_bits
from alc_kernels.backends.triton.dense import launch as coefficients
from alc_kernels.engine.interface import (
    GradientRequest,
    PrefixProblem,
    PrefixSides,
    PrefixTargets,
    WalkRequest,
)
from alc_kernels.positives import Positives
from tests.backends.test_prefix_walk import problem
from tests.tolerances import TOLERANCES, assert_close

ONE = torch.ones(())
# Of margins alone: the kernels of sparse products take time in the interpreter.
BITS = pytest.param(None, marks=pytest.mark.slow)
SOFTMAX = {"softmax": "all", "decoupled": "negatives"}


def requests(
    given: PrefixProblem, kind: str | None, *, margins: bool = False, offset: bool = False
) -> list[GradientRequest]:
    """Numbers as a loss would give them; rows that do not count hold NaN and infinities."""
    (b, _), m = given.queries.shape, given.labels.shape[0]
    device = given.queries.device
    g = torch.Generator().manual_seed(3)
    label_offset = (torch.randn(m, generator=g) / 10).to(device) if offset else None
    slope = (10 * ONE).to(device)
    walk = WalkRequest(
        softmax=SOFTMAX.get(kind or ""), inverse_temperature=slope, label_offset=label_offset
    )
    made = []
    for number, found in enumerate(torch_backend.prefix_walk(given, walk)):
        counts = (found.num_positives > 0) & (found.num_negatives > 0)
        counts[::7] = False
        row_scale = torch.where(counts, torch.rand(b, generator=g).to(device) / b, 0.0)
        if found.log_sum_exp is not None:
            found.log_sum_exp[::7] = float("nan")
        negative_scale = torch.rand(b, generator=g).to(device)
        negative_scale[::7] = float("inf")
        made.append(
            GradientRequest(
                kind,  # type: ignore[arg-type]
                row_scale=row_scale,
                num_positives=found.num_positives,
                log_sum_exp=found.log_sum_exp,
                negative_scale=negative_scale,
                inverse_temperature=slope,
                label_offset=label_offset,
                scale=slope / 2,
                bias=-slope / 5,
                positive_margin=0.6 if margins else None,
                positive_margin_scale=slope * (0.001 + 0.001 * number) if margins else None,
                negative_margin=0.1 if margins else None,
                negative_margin_scale=slope * (0.002 + 0.001 * number) if margins else None,
            )
        )
    return made


def sides(given: PrefixProblem, queries: bool = True, labels: bool = True) -> list[PrefixSides]:
    """Unit prefixes, and gradients that already hold something."""
    made = []
    for n, width in enumerate(given.widths):
        rows = []
        for x, scale in (
            (given.queries, given.query_scale),
            (given.labels, given.label_scale),
        ):
            prefix = x[:, :width].float()
            rows.append((prefix if scale is None else prefix * scale[n, :, None]).to(x.dtype))
        sums = [
            torch.full(x.shape, 0.01 * (n + 1), device=x.device) if wanted else None
            for x, wanted in zip(rows, (queries, labels), strict=True)
        ]
        made.append(PrefixSides(*(x.contiguous() for x in rows), *sums))
    return made


def unused() -> PrefixTargets:
    """Both add to the sides."""
    raise AssertionError


def agree(given: PrefixProblem, asked: list[GradientRequest], **wanted: bool) -> list[PrefixSides]:
    expected, found = sides(given, **wanted), sides(given, **wanted)
    assert torch_backend.prefix_gradient(given, asked, expected, unused)
    assert triton_backend.prefix_gradient(given, asked, found, unused)
    allowed = TOLERANCES[given.queries.dtype].gradient
    for n, (a, b) in enumerate(zip(expected, found, strict=True)):
        for name in ("grad_queries", "grad_labels"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None) == (y is None)
            if x is not None:
                start = 0.01 * (n + 1)
                assert_close(f"{name} {n}", y - start, x - start, allowed)
    return found


@pytest.mark.parametrize(
    ("kind", "relation", "options"),
    [
        ("softmax", "csr", ("margins",)),
        ("decoupled", "pairs+exclude-ids", ("guard", "slack", "offset")),
        ("sigmoid", "ids", ("guard", "margins")),
        (None, "dense+exclude", ("margins", "guard", "slack")),
        pytest.param(None, "ids", ("margins",), marks=pytest.mark.slow),
    ],
)
def test_every_kind_and_relation(kind, relation, options, device):
    guard = "slack" if "slack" in options else "guard" in options
    given = problem(relation, (5, 16, 24), device=device, guard=guard)
    asked = requests(given, kind, margins="margins" in options, offset="offset" in options)
    agree(given, asked)


@pytest.mark.parametrize("kind", ["softmax", BITS])
@pytest.mark.parametrize("widths", [(24,), (1, 2, 20), (8, 16)])
def test_widths(widths, kind, device):
    given = problem("index", widths, device=device)
    agree(given, requests(given, kind, margins=kind is None))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["softmax", BITS])
def test_half_precision(dtype, kind, device):
    given = problem("csr", dtype=dtype, device=device)
    agree(given, requests(given, kind, margins=kind is None))


@pytest.mark.parametrize("size", [1e-9, 1e7])
def test_float16_coefficients_neither_vanish_nor_overflow(size, device):
    given = problem("index", dtype=torch.float16, device=device)
    asked = [
        dataclasses.replace(request, row_scale=request.row_scale * size * (1 + 999 * n))
        for n, request in enumerate(requests(given, "softmax"))
    ]
    zero = [
        dataclasses.replace(
            side,
            grad_queries=torch.zeros_like(side.grad_queries),
            grad_labels=torch.zeros_like(side.grad_labels),
        )
        for side in sides(given)
    ]
    expected = [
        dataclasses.replace(
            side,
            grad_queries=torch.zeros_like(side.grad_queries),
            grad_labels=torch.zeros_like(side.grad_labels),
        )
        for side in zero
    ]
    triton_backend.prefix_gradient(given, asked, zero, unused)
    torch_backend.prefix_gradient(given, asked, expected, unused)
    for a, b in zip(expected, zero, strict=True):
        for x, y in ((a.grad_queries, b.grad_queries), (a.grad_labels, b.grad_labels)):
            assert_close("gradient", y / size, x / size, TOLERANCES[torch.float16].gradient)


@pytest.mark.parametrize("kind", ["sigmoid", BITS])
def test_only_wanted_sides(kind, device):
    given = problem("index", device=device)
    asked = requests(given, kind, margins=kind is None)
    agree(given, asked, labels=False)
    agree(given, asked, queries=False)
    both = agree(given, asked)
    again = agree(given, asked)
    for a, b in zip(both, again, strict=True):
        assert torch.equal(a.grad_queries, b.grad_queries)
        assert torch.equal(a.grad_labels, b.grad_labels)


@pytest.mark.parametrize("kind", ["softmax", BITS])
def test_inner_products(kind, device):
    given = problem("diagonal", device=device, scaled=False)
    agree(given, requests(given, kind, margins=kind is None))


@pytest.mark.parametrize("kind", ["softmax", BITS])
def test_row_and_column_chunks(kind, device, monkeypatch):
    monkeypatch.setattr(workspace, "WORKSPACE_BYTES", 1)
    monkeypatch.setattr(coefficients, "MIN_CHUNK_ROWS", 128)
    launches = []
    for module, name in (
        (coefficients, "prefix_coefficients_kernel"),
        (prefix_bits, "prefix_bits_kernel"),
    ):
        kernel = getattr(module, name)
        monkeypatch.setattr(module, name, _Counted(kernel, launches))
    given = problem("ids", device=device, rows=200, columns=150)
    agree(given, requests(given, kind, margins=kind is None))
    assert len(launches) == (4 if kind else 2)


class _Counted:
    """A kernel that notes its grids."""

    def __init__(self, kernel, launches: list) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        self.launches.append(grid)
        return self.kernel[grid]


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (3, 0)])
def test_no_rows_and_no_labels(rows, columns, device):
    x, y = torch.randn(rows, 8, device=device), torch.randn(columns, 8, device=device)
    empty = Positives._empty(rows, columns)
    given = PrefixProblem(x, y, empty, empty, (4, 8), None, None, None)
    for kind in ("sigmoid", None):
        agree(given, requests(given, kind, margins=kind is None))
