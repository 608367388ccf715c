"""Balanced clusters: equal sizes, similar members, repeatable."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alc_kernels.trainer.errors import XMCError
from alc_kernels.trainer.negatives import MissingFaiss, balanced_clusters


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 90), st.integers(1, 12), st.sampled_from(["normal", "equal", "zero"]))
def test_sizes_differ_by_one_at_most(n: int, size: int, kind: str) -> None:
    vectors = torch.randn(n, 3, generator=seeded(n))
    if kind != "normal":
        vectors = torch.full_like(vectors, float(kind == "equal"))
    clusters = balanced_clusters(vectors, size, seeded(0))
    assert clusters.dtype == torch.int64 and clusters.shape == (n,)
    counts = torch.bincount(clusters)
    assert len(counts) == -(-n // size)
    if n:
        assert int(counts.max()) <= size and int(counts.max() - counts.min()) <= 1


def groups(count: int, members: int, dim: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors around random centres, shuffled, and the centre of each."""
    centres = torch.randn(count, dim, generator=seeded(1))
    truth = torch.randperm(count * members, generator=seeded(2)) % count
    vectors = centres[truth] + noise * torch.randn(len(truth), dim, generator=seeded(3))
    return vectors, truth


def purity(clusters: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of the members that belong to their cluster's most frequent group."""
    table = np.zeros((int(clusters.max()) + 1, int(truth.max()) + 1))
    np.add.at(table, (clusters.numpy(), truth.numpy()), 1)
    return float(table.max(axis=1).sum() / table.sum())


def test_similar_vectors_share_a_cluster() -> None:
    vectors, truth = groups(count=64, members=32, dim=16, noise=0.3)
    vectors *= torch.rand(len(vectors), 1, generator=seeded(4)) + 0.1  # lengths do not matter
    # Random clusters of 16 out of 64 groups would reach .15.
    assert purity(balanced_clusters(vectors, 16, seeded(0)), truth) > 0.8


def test_the_generator_decides() -> None:
    vectors = torch.randn(500, 8, generator=seeded(0))
    before = vectors.clone()
    first = balanced_clusters(vectors, 10, seeded(1))
    assert torch.equal(first, balanced_clusters(vectors, 10, seeded(1)))
    assert not torch.equal(first, balanced_clusters(vectors, 10, seeded(2)))
    assert torch.equal(vectors, before)


@pytest.mark.parametrize(
    ("vectors", "size", "message"),
    [
        (torch.zeros(3), 2, "expected \\(n, d\\), got shape \\(3,\\)"),
        (torch.zeros(3, 2), 0, "size = 0"),
        (torch.tensor([[0.0], [float("nan")], [1.0]]), 2, "finite"),
    ],
)
def test_refuses(vectors: torch.Tensor, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        balanced_clusters(vectors, size, seeded(0))


def test_names_the_extra_where_faiss_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingFaiss, match=r"pip install 'alc-kernels\[faiss-cpu\]'") as caught:
        balanced_clusters(torch.zeros(4, 2), 2, seeded(0))
    assert isinstance(caught.value, XMCError)
