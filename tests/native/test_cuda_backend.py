"""The Triton backend with the CUDA kernels turned on gives what it gives without them.

Without a GPU: Triton's interpreter, and the CUDA kernels compiled for the host.
"""

from __future__ import annotations

import pytest
import torch

from alc_kernels import functional
from alc_kernels.backends.cuda import library
from alc_kernels.positives import Positives
from tests.backends.common import assert_close


def embeddings(b: int, m: int, d: int, dtype: torch.dtype, device) -> tuple:
    generator = torch.Generator().manual_seed(b)
    rows = torch.randn(b + m, d, generator=generator)
    rows[b : b + min(b, m)] += rows[: min(b, m)]
    rows = rows.bfloat16()  # the same numbers in every dtype
    return tuple(part.to(device, dtype).requires_grad_() for part in rows.split([b, m]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight_temperature", [None, 0.1])
def test_triplets(calls, cuda_device, dtype, weight_temperature):
    """A loss whose gradient is that of listed pairs."""
    results = {}
    for name, backend in (("cuda", "triton"), ("plain", "torch"), ("exact", "torch")):
        q, x = embeddings(20, 40, 24, torch.float64 if name == "exact" else dtype, cuda_device)
        positives = Positives.from_index(torch.arange(20, device=cuda_device), 40)
        loss = functional.triplet_loss(
            q, x, positives, num_negatives=5, margin=0.9, backend=backend,
            weight_temperature=weight_temperature,
        )  # fmt: skip
        results[name] = (loss, *torch.autograd.grad(loss, (q, x)))
    assert {"alc_compact_pairs", "alc_segment_sum"} <= set(calls)
    for mine, plain, exact in zip(*(results[n] for n in ("cuda", "plain", "exact")), strict=True):
        assert_close(mine, exact, plain)


def test_switched_off(calls, cuda_device, monkeypatch):
    monkeypatch.setenv(library.SWITCH, "0")
    q, x = embeddings(8, 8, 16, torch.float32, cuda_device)
    functional.triplet_loss(q, x, num_negatives=3, backend="triton").backward()
    assert calls == []
