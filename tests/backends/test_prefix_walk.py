"""The Triton walk over several prefix widths against that of plain PyTorch."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from alc_kernels.backends import torch as torch_backend
from alc_kernels.backends import triton as triton_backend
from alc_kernels.backends.triton import launch as workspace
from alc_kernels.backends.triton.launch import Tile, override_tile
from alc_kernels.engine.interface import PrefixProblem, RowStatistics, WalkRequest
from alc_kernels.positives import Positives
from tests.losses.cases import make_data

ONE = torch.ones(())
MARGINS = {"positive_margin": 0.8, "negative_margin": 0.3}
REQUESTS = {
    "list": WalkRequest(top_k=3, hardest_positive=True, **MARGINS),
    "one": WalkRequest(top_k=1, hardest_positive=True),
    "softmax": WalkRequest(softmax="all", inverse_temperature=ONE * 10),
    "negatives": WalkRequest(
        softmax="negatives", inverse_temperature=ONE * 10, top_k=20, negative_margin=0.2
    ),
    "sigmoid": WalkRequest(sigmoid=True, scale=ONE * 5, bias=-ONE),
    "counts": WalkRequest(),
}
SMALL = Tile(16, 16, 16, 4, 2)


def problem(
    relation: str, widths=(5, 24), dtype=torch.float32, device="cpu", guard=False, scaled=True,
    rows=19, columns=35,
) -> PrefixProblem:  # fmt: skip
    data = make_data(relation, rows=rows, columns=columns).to(dtype, device)
    queries, labels = data.queries.detach(), data.labels.detach()
    rows, columns = queries.shape[0], labels.shape[0]
    positives, exclude = data.positives, data.exclude
    if positives is None:
        positives = Positives.diagonal(rows)
    elif isinstance(positives, torch.Tensor):
        positives = Positives.from_index(positives, columns)
    if exclude is None:
        exclude = Positives._empty(rows, columns)
    scales = [
        torch.stack([x[:, :w].float().norm(dim=1).reciprocal() for w in widths])
        for x in (queries, labels)
    ]
    limit = None
    if guard:
        g = torch.Generator().manual_seed(1)
        limit = (0.2 + 0.3 * torch.rand(len(widths), rows, generator=g)).to(device)
    if not scaled:
        scales = [None, None]
    slack = None
    if guard == "slack":
        by_row, by_column = (torch.rand(len(widths), n, generator=g) for n in (rows, columns))
        slack = 0.4 * by_row.to(device), by_column.to(device)
    return PrefixProblem(queries, labels, positives, exclude, tuple(widths), *scales, limit, slack)


def agree(given: PrefixProblem, request: WalkRequest, tolerance: float = 2e-5) -> None:
    expected = torch_backend.prefix_walk(given, request)
    found = triton_backend.prefix_walk(given, request)
    assert len(found) == len(given.widths)
    for wide, ours in zip(expected, found, strict=True):
        for field in fields(RowStatistics):
            a, b = getattr(wide, field.name), getattr(ours, field.name)
            assert (a is None) == (b is None), field.name
            if a is None:
                continue
            assert a.shape == b.shape and a.dtype == b.dtype, field.name
            if a.dtype == torch.int64:
                assert torch.equal(a, b), field.name
            else:
                torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance, msg=field.name)


@pytest.mark.parametrize("name", ["list", "softmax"])
def test_statistics(name, device):
    with override_tile(SMALL):
        agree(problem("csr", device=device), REQUESTS[name])


@pytest.mark.slow
@pytest.mark.parametrize("relation", ["diagonal", "csr", "pairs+exclude-ids"])
@pytest.mark.parametrize("name", REQUESTS)
def test_statistics_of_every_request(name, relation, device):
    with override_tile(SMALL):
        agree(problem(relation, (5, 16, 24), device=device), REQUESTS[name])


@pytest.mark.parametrize("widths", [(24,), (1, 2, 20), (8, 16)])
def test_widths(widths, device):
    with override_tile(SMALL):
        agree(problem("index", widths, device=device), REQUESTS["one"])


@pytest.mark.parametrize("guard", [True, "slack"])
def test_guard(guard, device):
    with override_tile(SMALL):
        agree(problem("ids", device=device, guard=guard), REQUESTS["negatives"])


@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float16, marks=pytest.mark.slow), torch.bfloat16], ids=str
)
def test_half_precision_and_shipped_tiles(dtype, device):
    agree(problem("csr", dtype=dtype, device=device), REQUESTS["list"])


@pytest.mark.slow
def test_inner_products(device):
    agree(problem("dense+exclude", device=device, scaled=False), REQUESTS["softmax"], 1e-4)


@pytest.mark.slow
def test_rows_in_several_launches(monkeypatch, device):
    monkeypatch.setattr(workspace, "WORKSPACE_BYTES", 1 << 12)
    with override_tile(SMALL):
        agree(problem("csr", device=device), REQUESTS["list"])


def test_no_rows_and_no_labels(device):
    for rows, columns in ((0, 3), (3, 0)):
        x, y = torch.randn(rows, 8, device=device), torch.randn(columns, 8, device=device)
        empty = Positives._empty(rows, columns)
        given = PrefixProblem(x, y, empty, empty, (4, 8), None, None, None)
        for found in triton_backend.prefix_walk(given, REQUESTS["list"]):
            assert found.top_index.shape == (rows, 3) and (found.top_index == -1).all()
