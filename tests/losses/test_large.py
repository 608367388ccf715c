"""Sizes and compilers that take longer."""

import pytest
import torch

from alc_kernels import ALCLoss, Auxiliary, Positives, functional
from tests.losses.cases import make_data


@pytest.mark.slow
def test_more_pairs_than_31_bits_count(device):
    """47,000 x 47,000 > 2^31 pairs: the last row's hardest negative lies in the last columns."""
    n = 47_000
    labels = torch.full((n, 2), 0.5, device=device)
    labels[n - 2] = torch.tensor([0.75, 0.75])
    queries = torch.ones(n, 2, device=device)
    backend = "triton" if device.type == "cuda" else "torch"
    scores, index = functional.hardest_negatives(queries, labels, normalize=False, backend=backend)
    assert (index[: n - 2, 0] == n - 2).all() and (scores[: n - 2] == 1.5).all()
    assert index[n - 2, 0] == 0 and index[n - 1, 0] == n - 2
    ids = torch.arange(n, device=device) // 2
    options = {"normalize": False, "negative_margin": 0.5, "positive_margin": 0.5}
    loss = functional.threshold_margin_loss(
        queries, labels, Positives.from_ids(ids, ids), backend=backend, **options
    )
    # All n^2 - 2n negatives are active, each 0.5 over, those of column n - 2 by 1 each.
    pairs = float(n) * n - 2 * n
    expected = (0.5 * (pairs - (n - 2)) + 1.0 * (n - 2)) / pairs
    assert abs(loss.item() - expected) < 1e-5 * expected


@pytest.mark.slow
def test_compiled_with_the_default_compiler(device):
    torch.manual_seed(0)
    loss_fn = ALCLoss(24, auxiliary=Auxiliary(context_size=16, dropout=0.0)).to(device)
    data = make_data("diagonal").to(torch.float32, device)
    run = torch.compile(loss_fn, fullgraph=True)
    results = []
    for function in (loss_fn, run):
        data.queries.grad = None
        loss = function(data.queries, data.labels)
        loss.backward()
        results.append((loss.detach(), data.queries.grad.clone()))
    torch.testing.assert_close(results[1], results[0])
