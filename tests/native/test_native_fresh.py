"""Gradients that hold nothing yet are written, not added to: what lay there does not matter."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from alc_kernels import Positives
from alc_kernels.backends import native as native_backend
from alc_kernels.engine.interface import GradientRequest, Problem, WalkGradient, WalkRequest
from tests.native.common import needs_native

pytestmark = needs_native

SIZES = [(40, 30), (0, 30), (40, 0), (3, 40_000)]  # the last: more than one chunk of columns


def problem(rows: int, columns: int) -> Problem:
    g = torch.Generator().manual_seed(rows + columns)
    q, k = (torch.randn(n, 8, generator=g) for n in (rows, columns))
    return Problem(q, k, Positives._empty(rows, columns), Positives._empty(rows, columns), None)


def targets(given: Problem, value: float) -> list[torch.Tensor]:
    return [torch.full(x.shape, value) for x in (given.queries, given.labels)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sides", [(0, 1), (0,), (1,)])
def test_dense_gradient(size, sides):
    given = problem(*size)
    scale = torch.ones(size[0])
    request = GradientRequest(
        "sigmoid", row_scale=scale, scale=torch.tensor(2.0), bias=torch.tensor(-1.0)
    )
    zeros, garbage = targets(given, 0.0), targets(given, torch.nan)
    for fresh, sums in ((False, zeros), (True, garbage)):
        wanted = [x if n in sides else None for n, x in enumerate(sums)]
        native_backend.dense_gradient(given, dataclasses.replace(request, fresh=fresh), *wanted)
    for n in sides:
        torch.testing.assert_close(garbage[n], zeros[n])
    assert zeros[sides[0]].numel() == 0 or 0 in size or bool(zeros[sides[0]].any())


@pytest.mark.parametrize("size", SIZES[:3])
def test_walk(size):
    given = problem(*size)
    zeros, garbage = targets(given, 0.0), targets(given, torch.nan)
    for fresh, sums in ((False, zeros), (True, garbage)):
        offer = WalkGradient(lambda *_: torch.ones(size[0]), *sums, fresh=fresh)
        request = WalkRequest(
            sigmoid=True, scale=torch.tensor(2.0), bias=torch.tensor(-1.0), gradient=offer
        )
        assert native_backend.walk(given, request).gradient is not None
    for a, b in zip(garbage, zeros, strict=True):
        torch.testing.assert_close(a, b)


def test_active_pairs():
    given = problem(40, 30)
    request = WalkRequest(positive_margin=0.5, negative_margin=6.0, keep_active=True)
    found = native_backend.walk(given, request)
    assert found.active is not None and int(found.negative_margin_count.sum()) > 0
    one = torch.tensor(1.0)
    gradient = GradientRequest(
        None, positive_margin=0.5, positive_margin_scale=one, negative_margin=6.0,
        negative_margin_scale=one, active=found.active,
    )  # fmt: skip
    zeros, garbage = targets(given, 0.0), targets(given, torch.nan)
    native_backend.dense_gradient(given, gradient, *zeros)
    native_backend.dense_gradient(given, dataclasses.replace(gradient, fresh=True), *garbage)
    assert all(torch.equal(a, b) for a, b in zip(garbage, zeros, strict=True))
