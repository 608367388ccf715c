"""What the processes of a pool run in the tests of FSDP: one model, sharded and whole."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from alc_kernels import ALCLoss, Auxiliary, GlobalBatch, Sigmoid, Softmax
from tests.distributed.behaviours import rows


class Trained(nn.Module):
    """An encoder with its loss: what is sharded."""

    def __init__(self, base: Any, group: Any) -> None:
        super().__init__()
        self.encoder = nn.Linear(7, 12)
        across = GlobalBatch(group, gradients_are_averaged=True) if group else None
        auxiliary = Auxiliary(dropout=0.0, context_size=4)
        self.loss = ALCLoss(12, base, auxiliary, process_group=across)

    def forward(self, queries: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = self.loss(self.encoder(queries), self.encoder(labels))
        return loss


def _made(name: str, group: Any) -> Trained:
    torch.manual_seed(3)
    if name == "sigmoid":
        return Trained(Sigmoid(5.0, -2.0), group).double()
    temperature = nn.Parameter(torch.full((1,), 0.3))
    return Trained(Softmax(temperature), group).double()


def _steps(model: Trained, x: Tensor, y: Tensor) -> list[Tensor]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    values = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(x, y)
        loss.backward()
        optimizer.step()
        values.append(loss.detach())
    return values


def trained(rank: int, group: Any, name: str) -> list[str]:
    """Three steps of a sharded model, beside the same steps of a whole one."""
    count = group.size()
    x, y = rows(8, 7, seed=1), rows(8, 7, seed=2)
    whole = _made(name, None)
    expected = _steps(whole, x, y)
    model = _made(name, group if count > 1 else None)
    learned = ["loss.log_scale", "loss.bias"] if name == "sigmoid" else ["loss.temperature"]
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if n in learned}
    bad = [] if shapes == dict.fromkeys(learned, (1,)) else [f"shapes: {shapes}"]
    fully_shard(model, mesh=DeviceMesh.from_group(group, "cpu"))
    own = slice(rank * 8 // count, (rank + 1) * 8 // count)
    found = _steps(model, x[own], y[own])
    if not torch.allclose(torch.stack(found), torch.stack(expected), rtol=1e-9):
        bad.append(f"losses {found}, expected {expected}")
    for (n, p), q in zip(model.named_parameters(), whole.parameters(), strict=True):
        assert isinstance(p, DTensor)
        if not torch.allclose(p.full_tensor(), q, rtol=1e-6, atol=1e-8):
            bad.append(f"{n}: {p.full_tensor().flatten()[:3]}, expected {q.flatten()[:3]}")
        if n in learned and torch.equal(q, dict(_made(name, None).named_parameters())[n]):
            bad.append(f"{n} did not move")
    dist.barrier(group=group)
    return bad
