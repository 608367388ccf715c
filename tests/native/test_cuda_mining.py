"""Mining of the Triton backend through the CUDA kernels: the walk's checks, with them turned on.

Without a GPU: Triton's interpreter, and the CUDA kernels compiled for the host.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from alc_kernels import functional
from alc_kernels.backends import triton as triton_backend
from alc_kernels.backends.cuda import mining, operators
from alc_kernels.backends.triton import launch as workspace
from alc_kernels.backends.triton.launch import Tile, override_tile
from alc_kernels.engine.interface import WalkRequest
from tests.backends.common import poisoned_memory, random_problem
from tests.backends.relations import KINDS
from tests.backends.test_walk import check, everything, integer_problem

TILE = Tile(rows=16, cols=32, depth=16, warps=4, stages=2)


@pytest.fixture(autouse=True)
def _poisoned():
    with poisoned_memory():
        yield


def walk_and_check(problem, request, calls: list[str], tile: Tile = TILE) -> None:
    check("triton", problem, request, tiles=override_tile(tile))
    assert "alc_select_subtiles" in calls


@pytest.mark.parametrize("k", [2, 5, 40, 128])
def test_ties_by_smaller_label(calls, cuda_device, k):
    """Few distinct values, duplicates far apart, up to more than there are negatives."""
    problem = integer_problem(
        18, 7 if k == 40 else 150, 5, torch.float32, cuda_device, positives="csr", exclude="index"
    )
    walk_and_check(problem, WalkRequest(top_k=k), calls)


@pytest.mark.parametrize("positives", KINDS)
def test_relations_and_the_other_statistics(calls, cuda_device, positives):
    exclude = KINDS[KINDS.index(positives) - 1]
    size = (40, 40) if "diagonal" in (positives, exclude) else (33, 90)
    for dtype in (torch.float32, torch.bfloat16):
        problem = random_problem(
            *size, 24, dtype, cuda_device, positives=positives, exclude=exclude
        )
        walk_and_check(problem, everything(problem, top_k=4), calls)


@pytest.mark.parametrize(
    "positives",
    [pytest.param(kind, marks=[pytest.mark.slow] * (kind in ("empty", "index"))) for kind in KINDS],
)
def test_chunks_of_rows(calls, cuda_device, positives, monkeypatch):
    """Several launches, each with its part of the relations."""
    monkeypatch.setattr(workspace, "WORKSPACE_BYTES", 1)
    problem = integer_problem(
        135, 135, 4, torch.float16, cuda_device, positives=positives, exclude="csr"
    )
    large = Tile(rows=128, cols=128, depth=16, warps=4, stages=2)
    walk_and_check(problem, WalkRequest(top_k=3, hardest_positive=True), calls, large)
    assert calls.count("alc_select_subtiles") > 1


@pytest.mark.parametrize(
    ("k", "guard", "precision"), [(1, False, "highest"), (3, True, "highest"), (3, False, "high")]
)
def test_what_stays_on_triton(calls, cuda_device, k, guard, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        problem = random_problem(20, 50, 16, torch.float32, cuda_device, guard=guard)
        with override_tile(TILE):
            found = triton_backend.walk(problem, WalkRequest(top_k=k))
    finally:
        torch.set_float32_matmul_precision(before)
    assert found.top_score.shape == (20, k) and "alc_select_subtiles" not in calls


def test_hardest_negatives(calls, cuda_device):
    """The public function, its gradient too."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(60, 32, generator=generator, dtype=torch.float64).to(cuda_device)
    results = {}
    for backend, dtype in (("triton", torch.float32), ("torch", torch.float64)):
        q, x = (part.to(dtype).requires_grad_() for part in rows.split([20, 40]))
        positives = torch.arange(20, device=cuda_device)
        scores, index = functional.hardest_negatives(q, x, positives, k=7, backend=backend)
        gradients = torch.autograd.grad((scores * scores).sum(), (q, x))
        results[backend] = (scores, index, *gradients)
    assert {"alc_select_subtiles", "alc_compact_pairs"} <= set(calls)
    for mine, theirs in zip(results["triton"], results["torch"], strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=1e-4, atol=1e-5)


def test_widths_fit_everything():
    """A power of two, within the tile and the block's buffer; 4 and 2 at the sizes of record."""
    for k, m, d, tile in itertools.product(
        (2, 10, 100, 128), (1, 1000, 32768, 10**6), (1, 128, 4096), (8, 16, 64, 128, 256)
    ):
        width = mining.subtile_width(k, m, d, 2, tile)
        assert width >= 2 and width & (width - 1) == 0 and tile % (4 * width) == 0
        assert (k + 3) * width <= operators.CAPACITY
    assert mining.subtile_width(10, 32768, 768, 2, 256) == 4
    assert mining.subtile_width(100, 32768, 768, 2, 256) == 2
    assert mining.subtile_width(10, 1000, 16, 2, 4) == 0
