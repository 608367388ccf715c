"""Values of other libraries of the field, and of the formulas that they publish.

open_clip and lightly are not installed: both bring torchvision, which ties the version of torch.
Their losses are two lines of PyTorch each, written out here.
"""

from __future__ import annotations

from collections.abc import Callable

import faiss
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional import retrieval

from alc_kernels import functional, metrics

pytestmark = pytest.mark.slow


def rows(seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    made = [torch.randn(3 + seed, 8, generator=g, dtype=torch.float64) for _ in range(2)]
    return made[0].requires_grad_(), made[1].requires_grad_()


def agree(ours: Tensor, theirs: Tensor, *leaves: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad(value, leaves) for value in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_clip(seed: int) -> None:
    """open_clip's ClipLoss: both cross-entropies, halved; the scale is learned."""
    x, y = rows(seed)
    scale = torch.tensor(10.0 + seed, dtype=torch.float64, requires_grad=True)
    logits = scale * F.normalize(x) @ F.normalize(y).T
    own = torch.arange(len(x))
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    found = functional.softmax_loss(x, y, temperature=1 / scale, symmetric=True)
    agree(found, expected, x, y, scale)


@pytest.mark.parametrize("seed", range(20))
def test_siglip(seed: int) -> None:
    """open_clip's SigLipLoss: a sum over pairs, divided by the rows; scale and bias learned."""
    x, y = rows(seed)
    scale, bias = torch.tensor([9.0, -4.0], dtype=torch.float64, requires_grad=True).unbind()
    logits = scale * F.normalize(x) @ F.normalize(y).T + bias
    sign = 2 * torch.eye(len(x), dtype=torch.float64) - 1
    expected = -F.logsigmoid(sign * logits).sum() / len(x)
    agree(functional.sigmoid_loss(x, y, scale=scale, bias=bias), expected, x, y, scale, bias)


@pytest.mark.parametrize("seed", range(20))
def test_ntxent_of_two_views(seed: int) -> None:
    """lightly's NTXentLoss (SimCLR): each row finds its other view among all rows but itself."""
    x, y = rows(seed)
    both, n = torch.cat([x, y]), 2 * len(x)
    s = F.normalize(both) @ F.normalize(both).T / 0.3
    own = torch.arange(n)
    other = (own + n // 2) % n
    expected = F.cross_entropy(s.masked_fill(torch.eye(n, dtype=torch.bool), -torch.inf), other)
    agree(functional.softmax_loss(both, both, other, own, temperature=0.3), expected, x, y)


MEASURES: dict[str, tuple[Callable, Callable]] = {
    "precision": (metrics.precision_at_k, retrieval.retrieval_precision),
    "recall": (metrics.recall_at_k, retrieval.retrieval_recall),
    "ndcg": (metrics.ndcg_at_k, retrieval.retrieval_normalized_dcg),
}


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("k", [1, 3, 10])
def test_measures_of_torchmetrics(name: str, k: int) -> None:
    ours, theirs = MEASURES[name]
    for seed in range(30):
        g = torch.Generator().manual_seed(seed)
        scores = torch.rand(12, 25, generator=g)
        right = torch.rand(12, 25, generator=g) < 0.15
        right[0] = True
        right[1] = False  # without an answer: left out
        ranking = scores.argsort(dim=1, descending=True)[:, :k]
        each = [theirs(s, y, top_k=k) for s, y in zip(scores, right, strict=True) if bool(y.any())]
        expected = torch.stack(each).double().mean()
        assert ours(ranking, right.numpy(), k) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("k", [1, 7, 40])
@pytest.mark.parametrize("normalize", [False, True])
def test_nearest_labels_of_a_flat_index(k: int, normalize: bool) -> None:
    """faiss.IndexFlatIP, whose order among equal scores is its own."""
    for seed in range(10):
        g = np.random.default_rng(seed)
        q, x = (g.standard_normal((n, 16), dtype=np.float32) for n in (9, 40 + 30 * seed))
        rows = [torch.from_numpy(a) for a in (q, x)]
        given = [F.normalize(r) if normalize else r for r in rows]
        index = faiss.IndexFlatIP(16)
        index.add(given[1].numpy())
        expected, labels = index.search(given[0].numpy(), k)
        found, indices = functional.topk_similarity(*rows, k, normalize=normalize)
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-5, atol=1e-5)
        other = indices.numpy() != labels  # swapped where scores differ by a rounding
        gaps = np.abs(np.diff(expected, axis=1, append=-np.inf)) < 1e-5
        near = gaps | np.roll(gaps, 1, axis=1)
        assert not bool((other & ~near).any()) and other.mean() < 0.02
