"""Where plain formulas subtract two numbers that are nearly equal."""

from __future__ import annotations

import pytest
import torch

from alc_kernels import Positives, functional, reference
from tests.native.common import needs_native

pytestmark = needs_native


def confident(rows: int = 40, width: int = 64) -> list[torch.Tensor]:
    """Queries next to their labels: at temperature 0.05 a positive's share is 1 - 1e-6 or so."""
    g = torch.Generator().manual_seed(0)
    labels = torch.randn(rows, width, generator=g)
    return [labels + 0.1 * torch.randn(rows, width, generator=g), labels]


def gradients(loss, leaves: list[torch.Tensor], relation: Positives, **options) -> list:
    leaves = [x.clone().requires_grad_() for x in leaves]
    loss(*leaves, relation, **options).backward()
    return [x.grad.double() for x in leaves]


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("temperature", [0.05, 0.03])
def test_a_share_next_to_one(extra, temperature):
    """p - 1/P from the shares of the others: subtracting would leave rounding errors alone.

    With a second positive per row that is the same label vector, both shares are next to 1/2.
    """
    queries, labels = confident()
    n = len(queries)
    rows = torch.arange(n).repeat(1 + extra)
    columns = torch.arange(n * (1 + extra))
    labels = labels.repeat(1 + extra, 1)
    relation = Positives.from_pairs(rows, columns, (n, len(labels)))
    exact = gradients(
        reference.softmax_loss, [queries.double(), labels.double()], relation,
        temperature=temperature,
    )  # fmt: skip
    found = gradients(
        functional.softmax_loss, [queries, labels], relation, temperature=temperature,
        backend="native",
    )  # fmt: skip
    assert max(x.abs().max() for x in exact) < 1e-4  # the shares are that close
    for x, y in zip(found, exact, strict=True):
        assert (x - y).norm() < 1e-4 * y.norm()
