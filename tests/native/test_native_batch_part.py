"""The batch part's own kernel against the same in PyTorch operators."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alc_kernels import ALCLoss, Auxiliary
from alc_kernels.backends import native
from alc_kernels.engine.batch_part import groupwise_loss, named_parameters

pytestmark = pytest.mark.skipif(
    native.unsupported(torch.empty(0)) is not None, reason="the native extension is not built"
)
SIZES = [
    (10, 8, 16, 4, 4), (50, 32, 16, 2, 16), (300, 24, 32, 4, 150), (3, 5, 4, 1, 64),
    (70, 100, 44, 4, 16),
]  # fmt: skip


def make(dim: int, width: int, heads: int, **more: float) -> ALCLoss:
    """Heads without attention dropout, none of whose parameters is 0 or 1."""
    torch.manual_seed(0)
    auxiliary = Auxiliary(
        context_dim=width, context_heads=heads, **{"dropout": 0.0, **more}
    )  # fmt: skip
    loss_fn = ALCLoss(dim, auxiliary=auxiliary).double()
    with torch.no_grad():
        for parameter in loss_fn.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return loss_fn


def inputs(rows: int, dim: int, size: int, masked: bool) -> tuple[Tensor, Tensor, Tensor]:
    queries = F.normalize(torch.randn(rows, dim, dtype=torch.float64), dim=1)
    pairs = F.normalize(torch.randn(rows, 2, dim, dtype=torch.float64), dim=2)
    members = torch.ones(rows, dtype=torch.bool)
    if masked:
        members = torch.rand(rows) < 0.6
        members[:size] = False  # a group without any
        pairs[~members] = 0
    return queries, pairs, members


def results(
    loss_fn: ALCLoss, size: int, given: tuple[Tensor, Tensor, Tensor], backend: str,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:  # fmt: skip
    """Value, then the gradients of both sides and of every parameter."""
    heads = {name: getattr(loss_fn, name).to(dtype) for name in HEADS}
    sides = [x.to(dtype).requires_grad_() for x in given[:2]]
    value = groupwise_loss(heads, size, *sides, given[2], backend)
    return [
        value.detach(),
        *torch.autograd.grad(value, [*sides, *named_parameters(heads).values()]),
    ]


HEADS = ("context_in", "context_layer", "context_head")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("rows", "dim", "width", "heads", "size"), SIZES)
def test_equals_the_operators(rows, dim, width, heads, size, masked):
    loss_fn = make(dim, width, heads)
    given = inputs(rows, dim, size, masked)
    found, expected = (results(loss_fn, size, given, name) for name in ("native", "torch"))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-13)


def test_error_in_float32_is_that_of_the_operators():
    loss_fn, size = make(96, 64, 4), 64
    given = inputs(256, 96, size, True)
    exact = results(loss_fn, size, given, "torch")
    errors = {}
    for backend in ("native", "torch"):
        found = results(loss_fn, size, given, backend, torch.float32)
        errors[backend] = [
            float((x.double() - y).norm() / y.norm()) for x, y in zip(found, exact, strict=True)
        ]
        loss_fn.double()
    for mine, theirs in zip(errors["native"], errors["torch"], strict=True):
        assert mine <= 2 * max(theirs, 1e-6)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_only_what_is_asked_for(wanted):
    loss_fn = make(8, 16, 4)
    queries, pairs, members = inputs(20, 8, 8, True)
    heads = {name: getattr(loss_fn, name) for name in HEADS}
    whole = results(loss_fn, 8, (queries, pairs, members), "native")
    sides = [x.requires_grad_(w) for x, w in zip((queries, pairs), wanted, strict=True)]
    for parameter in loss_fn.parameters():
        parameter.requires_grad_(False)
    value = groupwise_loss(heads, 8, *sides, members, "native")
    torch.testing.assert_close(value.detach(), whole[0])
    for side, expected in zip(sides, whole[1:3], strict=True):
        if side.requires_grad:
            torch.testing.assert_close(
                *torch.autograd.grad(value, side, retain_graph=True), expected
            )


def test_threads_change_no_bit():
    loss_fn, before = make(24, 16, 4), torch.get_num_threads()
    given = inputs(100, 24, 8, True)
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(results(loss_fn, 8, given, "native", torch.float32))
            loss_fn.double()
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


def test_dropout_keeps_the_mean_and_follows_the_seed():
    loss_fn = make(12, 16, 2, dropout=0.2)
    given = inputs(64, 12, 16, False)
    torch.manual_seed(3)
    first = results(loss_fn, 16, given, "native")
    torch.manual_seed(3)
    again = results(loss_fn, 16, given, "native")
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    draws = {
        name: torch.stack([results(loss_fn, 16, given, name)[0] for _ in range(200)])
        for name in ("native", "torch")
    }
    assert len(draws["native"].unique()) == 200
    (mine, theirs), (spread, other) = (
        [getattr(draws[n], f)() for n in ("native", "torch")] for f in ("mean", "std")
    )
    assert abs(mine - theirs) < 4 * (spread**2 + other**2).sqrt() / 200**0.5
    assert 0.7 < spread / other < 1.4


def test_what_it_serves():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    assert not native.batch_part.serves(layer, 16)  # dropout of the weights
    layer.self_attn.dropout = 0.0
    assert native.batch_part.serves(layer, 16)
    assert not native.batch_part.serves(layer, native.batch_part.LARGEST_GROUP + 1)
    layer.dropout1.p = 0.5
    assert not native.batch_part.serves(layer, 16)


CHILD = """
import torch
from tests.native.test_native_batch_part import inputs, make, results
for dim, width in ((20, 16), (100, 68)):
    loss_fn, given = make(dim, width, 4), inputs(60, dim, 16, True)
    expected = results(loss_fn, 16, given, "torch")
    found = results(loss_fn, 16, given, "native", torch.float32)
    for mine, theirs in zip(found, expected, strict=True):
        assert float((mine.double() - theirs).norm()) <= 3e-6 * float(theirs.norm() + 1e-3)
"""


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(level):
    subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=Path(__file__).parents[2], env=os.environ | {"ALC_KERNELS_SIMD": level}, check=True,
    )  # fmt: skip
