"""Symmetric softmax: similarities kept from the walk where they are few, computed again else."""

from __future__ import annotations

import pytest
import torch

from alc_kernels import Positives, functional, reference
from tests.native.common import needs_native

pytestmark = needs_native


@pytest.mark.parametrize("rows", [700, 2100, 2048], ids=["kept", "again", "kept-at-the-limit"])
@pytest.mark.parametrize("decoupled", [False, True])
def test_kept_similarities_change_nothing(rows, decoupled):
    """float32 beside the reference in float64: several tiles, positives and excluded pairs."""
    width, columns = 8, 2048
    g = torch.Generator().manual_seed(rows)
    labels = torch.randn(columns, width, generator=g)
    own = torch.arange(rows) % columns
    queries = labels[own] + torch.randn(rows, width, generator=g)
    pairs = torch.cat([own, (own + 5) % columns, (own + 9) % columns]).reshape(3, rows)
    here = torch.arange(rows)
    positives = Positives.from_pairs(here.repeat(2), pairs[:2].reshape(-1), (rows, columns))
    exclude = Positives.from_pairs(here.repeat(2), pairs[1:].reshape(-1), (rows, columns))

    def gradients(loss, dtype, **options):
        leaves = [queries, labels, torch.tensor(0.2)]
        leaves = [x.to(dtype, copy=True).requires_grad_() for x in leaves]
        value = loss(
            *leaves[:2], positives, exclude, temperature=leaves[2], symmetric=True,
            decoupled=decoupled, **options,
        )  # fmt: skip
        value.backward()
        return [value.detach().double(), *(x.grad.double() for x in leaves)]

    exact = gradients(reference.softmax_loss, torch.float64)
    found = gradients(functional.softmax_loss, torch.float32, backend="native")
    for x, y in zip(found, exact, strict=True):
        assert (x - y).norm() < 1e-5 * y.norm()
