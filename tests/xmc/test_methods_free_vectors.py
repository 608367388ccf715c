"""Vectors that clusters of labels share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from alc_kernels.trainer.methods.base import FreeVectors
from alc_kernels.trainer.training.optimizers import RowAdagrad
from tests.xmc.methods_cases import DIM, LABELS, SEEN, generator, snapshot

pytest.importorskip("faiss")


def test_clusters_have_the_size_and_hold_similar_labels() -> None:
    free, taken = FreeVectors(LABELS, DIM, 4), snapshot()
    free.assign(taken, generator())
    assert free.table.shape == (LABELS // 4, DIM)
    counts = np.bincount(free.cluster[:SEEN])
    assert counts.tolist() == [4] * (SEEN // 4)
    similarity = taken.labels[:SEEN] @ taken.labels[:SEEN].T
    together = free.cluster[:SEEN, None] == free.cluster[None, :SEEN]
    together.fill_diagonal_(False)
    apart = ~together & ~torch.eye(SEEN, dtype=torch.bool)
    assert similarity[together].mean() > similarity[apart].mean() + 0.15


def test_labels_without_queries_join_the_nearest_cluster_and_change_none() -> None:
    free, other = FreeVectors(LABELS, DIM, 4), FreeVectors(LABELS, DIM, 4)
    taken = snapshot()
    free.assign(taken, generator())
    means = torch.stack([taken.labels[:SEEN][free.cluster[:SEEN] == c].sum(0) for c in range(8)])
    nearest = (taken.labels[SEEN:] @ F.normalize(means, dim=1).T).argmax(1)
    assert torch.equal(free.cluster[SEEN:], nearest)
    changed = taken.labels.clone()
    changed[SEEN:] = -changed[SEEN:]
    other.assign(taken._replace(labels=changed), generator())
    assert torch.equal(other.cluster[:SEEN], free.cluster[:SEEN])
    assert not torch.equal(other.cluster[SEEN:], free.cluster[SEEN:])


def test_clusters_are_made_once_and_repeatably() -> None:
    free, same = FreeVectors(LABELS, DIM, 3), FreeVectors(LABELS, DIM, 3)
    for each in (free, same):
        each.assign(snapshot(), generator(5))
    assert torch.equal(free.cluster, same.cluster)
    before = free.cluster.clone()
    free.assign(snapshot(seed=9), generator(6))
    assert torch.equal(free.cluster, before)
    restored = FreeVectors(LABELS, DIM, 3)
    restored.load_state_dict(free.state_dict())
    restored.assign(snapshot(seed=9), generator(6))
    assert torch.equal(restored.cluster, before)


def test_one_label_per_vector_needs_no_clusters() -> None:
    free = FreeVectors(LABELS, DIM, 1)
    assert bool(free.assigned)
    free.assign(snapshot(), generator())
    assert torch.equal(free.cluster, torch.arange(LABELS))


@pytest.mark.parametrize("dim", [16, 64])
def test_a_first_step_moves_a_vector_by_the_learning_rate_at_any_width(dim: int) -> None:
    free = FreeVectors(LABELS, dim, 4)
    ids = torch.tensor([9, 0, 8])  # 8 and 9 share a vector
    (free(ids) * torch.randn(3, dim, generator=generator())).sum().backward()
    assert free.table.grad is not None and free.table.grad.is_sparse
    assert sorted(set(free.table.grad.coalesce().indices()[0].tolist())) == [0, 2]
    RowAdagrad([free.table], lr=0.01).step()
    made = free(torch.arange(LABELS))
    length = made.norm(dim=1)
    moved = torch.isin(free.cluster, torch.tensor([0, 2]))
    torch.testing.assert_close(length[moved], torch.full((8,), 0.01))
    assert not length[~moved].any()
