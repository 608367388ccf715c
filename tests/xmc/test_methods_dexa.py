"""DEXA: text plus auxiliary vector."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from alc_kernels.trainer.methods.base import AuxiliaryVectors
from tests.xmc.methods_cases import DIM, LABELS, SEEN, generator, snapshot, unit

pytest.importorskip("faiss")


def side() -> AuxiliaryVectors:
    made = AuxiliaryVectors(LABELS, DIM, 4)
    made.refresh(snapshot(), generator())
    return made


def test_label_vectors() -> None:
    made, text, ids = side(), unit(5, 3), torch.tensor([3, 39, 0, 20, 3])
    torch.testing.assert_close(made(text, ids), text)  # as NGAME at the start
    with torch.no_grad():
        made.free.table.copy_(torch.randn(made.free.table.shape, generator=generator()))
    expected = F.normalize(text + made.free.table[made.free.cluster[ids]] / DIM**0.5, dim=1)
    torch.testing.assert_close(made(text, ids), expected)
    assert made(text.half(), ids).dtype == torch.float16
    assert made(text[:0], ids[:0]).shape == (0, DIM)


def test_only_the_batch_s_vectors_get_a_gradient_and_text_gets_one() -> None:
    made, ids = side(), torch.tensor([1, 2, SEEN])
    text = unit(3, 3).requires_grad_()
    (made(text, ids) * unit(3, 4)).sum().backward()
    gradient = made.free.table.grad
    assert gradient is not None and gradient.is_sparse
    rows = gradient.coalesce().indices()[0]
    assert torch.equal(rows, made.free.cluster[ids].unique())
    assert text.grad is not None and bool((text.grad.norm(dim=1) > 0).all())
    assert [p is made.free.table for p in made.table_parameters()] == [True]


def test_a_snapshot_is_asked_for_once() -> None:
    made = AuxiliaryVectors(LABELS, DIM, 4)
    assert made.needs_snapshot
    made.refresh(snapshot(), generator())
    assert not made.needs_snapshot
    restored = AuxiliaryVectors(LABELS, DIM, 4)
    restored.load_state_dict(made.state_dict())
    assert not restored.needs_snapshot
    assert not AuxiliaryVectors(LABELS, DIM, 1).needs_snapshot
