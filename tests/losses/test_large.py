"""Sizes and compilers that take longer."""

import subprocess
import sys

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


def test_resident_memory_stays_bounded():
    """The whole process, as the system sees it: S alone would take 549 MiB here.

    Watching tensors would not see a heap that grows with every chunk.
    """
    code = (
        "import resource, torch\n"
        "from alc_kernels import functional\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "x = torch.randn(12_000, 4, requires_grad=True)\n"
        "small = x[:500]\n"
        "functional.triplet_loss(small, small, backend='torch').backward()\n"
        "before = peak()\n"
        "functional.triplet_loss(x, x.detach(), backend='torch').backward()\n"
        "functional.softmax_loss(x, x.detach(), backend='torch').backward()\n"
        "print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 250  # MiB: the workspace and what the allocator keeps around it


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
