"""Labels prepared once are searched as labels are."""

from __future__ import annotations

import pickle

import pytest
import torch

from alc_kernels import Positives, functional
from alc_kernels.backends import native
from alc_kernels.backends.native import screening
from tests.backends.common import NATIVE
from tests.native.common import needs_native

BACKENDS = [
    "torch",
    pytest.param("native", marks=pytest.mark.skipif(NATIVE is not None, reason=str(NATIVE))),
]


def rows(count: int, width: int = 70, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count)).to(dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_same_as_of_labels(backend, dtype, normalize, monkeypatch):
    monkeypatch.setenv(screening.SWITCH, "on")
    labels = rows(1500, dtype=dtype)
    prepared = functional.prepare(labels, normalize=normalize, backend=backend)
    for count in (0, 1, 130):
        queries = rows(count, dtype=dtype)
        exclude = torch.arange(count)
        options = {"normalize": normalize, "backend": backend}
        for excluded in (None, exclude, Positives.from_index(exclude, 1500)):
            found = functional.topk_similarity(queries, prepared, 9, excluded, **options)
            expected = functional.topk_similarity(queries, labels, 9, excluded, **options)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    # What one process has packed may be nothing that another can read.
    again = pickle.loads(pickle.dumps(prepared))
    found = functional.topk_similarity(queries, again, 9, **options)
    expected = functional.topk_similarity(queries, prepared, 9, **options)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_native
def test_packed_labels_serve_few_queries():
    """Packing for a handful of queries would cost more than it saves; packed labels are used."""
    labels, queries = rows(3000), rows(4)
    prepared = functional.prepare(labels)
    assert prepared.packed is not None
    assert prepared.packed.numel() < 3100 * 72 * 2 + 4 * 3100 * 4
    screening.take_counts()
    functional.topk_similarity(queries, labels, 3)
    assert screening.take_counts().screened == 0
    functional.topk_similarity(queries, prepared, 3)
    if screening.take_counts().screened == 0:
        pytest.skip("plain C++ saves no time: not screened")


@needs_native
def test_what_is_not_packed(monkeypatch):
    assert native.pack(rows(100, dtype=torch.float64)) is None
    assert native.pack(rows(100) * 1e30) is None
    monkeypatch.setenv(screening.SWITCH, "off")
    assert native.pack(rows(100)) is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_query_that_is_not_finite(backend):
    prepared, queries = functional.prepare(rows(1500), backend=backend), rows(150)
    queries[3, 5] = torch.nan
    assert functional.topk_similarity(queries, prepared, 3, backend=backend)[0].isnan().all()


def test_bad_arguments():
    labels = rows(20)
    prepared = functional.prepare(labels)
    labels[7, 3] = torch.inf
    with pytest.raises(ValueError, match="labels: row 7 holds a number that is not finite"):
        functional.prepare(labels)
    with pytest.raises(TypeError, match="expected a tensor, got list"):
        functional.prepare([1.0])
    with pytest.raises(ValueError, match="normalize=False: the prepared labels have True"):
        functional.topk_similarity(rows(3), prepared, 1, normalize=False)
    with pytest.raises(ValueError, match="backend='torch': the prepared labels have 'auto'"):
        functional.topk_similarity(rows(3), prepared, 1, backend="torch")
    with pytest.raises(ValueError, match="expected width"):
        functional.topk_similarity(rows(3, 5), prepared, 1)
    with pytest.raises(TypeError, match=r"expected torch\.float64 as queries"):
        functional.topk_similarity(rows(3).double(), prepared, 1)
    with pytest.raises(IndexError):
        functional.topk_similarity(rows(1), prepared, 1, torch.tensor([20]))
    with pytest.raises(ValueError, match="k=0"):
        functional.topk_similarity(rows(1), prepared, 0)
