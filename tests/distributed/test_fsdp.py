"""FSDP shards a loss's parameters, learnable scalars among them; older checkpoints still load."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from alc_kernels import ALCLoss, Auxiliary, Sigmoid, Softmax, functional, reference
from alc_kernels.trainer.training.optimizers import Optimizers
from tests.distributed import sharded
from tests.distributed.pool import shared_pool


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("name", ["sigmoid", "temperature"])
def test_fully_sharded_training(name: str, processes: int) -> None:
    assert shared_pool().run(sharded.trained, processes, name) == [[]] * processes


def sigmoid() -> ALCLoss:
    return ALCLoss(8, Sigmoid(7.0, -3.0), Auxiliary(context_heads=2))


def older(state: dict[str, Any]) -> dict[str, Any]:
    """As it was saved when the scalars were 0-d."""
    return {k: v.reshape(()) if v.shape == (1,) and "." not in k else v for k, v in state.items()}


@pytest.mark.parametrize("assign", [False, True])
def test_older_checkpoints_load(assign: bool) -> None:
    saved = older(sigmoid().state_dict())
    assert saved["log_scale"].dim() == saved["bias"].dim() == 0
    loss = ALCLoss(8, Sigmoid(), Auxiliary(context_heads=2))
    assert list(loss.state_dict()) == list(saved)
    loss.load_state_dict(saved, assign=assign)
    assert loss.log_scale.shape == loss.bias.shape == (1,)
    assert loss.log_scale.exp().item() == pytest.approx(7.0) and loss.bias.item() == -3.0
    nested = torch.nn.ModuleDict({"loss": ALCLoss(8, Sigmoid(), Auxiliary(context_heads=2))})
    nested.load_state_dict({f"loss.{k}": v for k, v in saved.items()})
    assert nested["loss"].bias.item() == -3.0
    with pytest.raises(RuntimeError, match="size mismatch for bias"):
        loss.load_state_dict({**saved, "bias": torch.zeros(2)})


def stepped(loss: ALCLoss, optimizers: Optimizers) -> None:
    g = torch.Generator().manual_seed(0)
    optimizers.start(1.0)
    torch.manual_seed(0)
    loss(*(torch.randn(6, 8, generator=g) for _ in range(2))).backward()
    optimizers.step(torch.amp.GradScaler(enabled=False))


def test_the_trainer_resumes_from_older_optimizer_state() -> None:
    rates = {"learning_rate": 0.01, "table_learning_rate": 0.01, "weight_decay": 0.0}
    loss = sigmoid()
    optimizers = Optimizers(loss.parameters(), [], **rates)
    stepped(loss, optimizers)
    saved = older(loss.state_dict())
    moments = {name: value.clone() for name, value in optimizers.state_dict().items()}
    scalars = [i for i, p in enumerate(loss.parameters()) if p.shape == (1,)][:2]
    for i in scalars:
        for key in ("exp_avg", "exp_avg_sq"):
            moments[f"dense.{i}.{key}"] = moments[f"dense.{i}.{key}"].reshape(())
    again = sigmoid()
    again.load_state_dict(saved)
    resumed = Optimizers(again.parameters(), [], **rates)
    resumed.load_state_dict(moments)
    for one, both in ((loss, optimizers), (again, resumed)):
        stepped(one, both)
    assert resumed.each["dense"].state[again.bias]["exp_avg"].shape == (1,)
    for p, q in zip(loss.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_scalar_may_be_a_number_0d_or_of_one_element() -> None:
    x, y = torch.randn(2, 6, 8, dtype=torch.float64).unbind()
    made = float, torch.tensor, lambda v: torch.tensor([v])
    for module in (functional, reference):
        values: list[Tensor] = []
        for make in made:
            values.append(module.sigmoid_loss(x, y, scale=make(4.0), bias=make(-1.0)))
            values.append(module.softmax_loss(x, y, temperature=make(0.25)))
        assert all(value.shape == () for value in values)
        assert values[0] == values[2] == values[4] and values[1] == values[3] == values[5]
    scale = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    grads = [
        torch.autograd.grad(module.sigmoid_loss(x, y, scale=scale), scale)[0]
        for module in (functional, reference)
    ]
    assert grads[0].shape == (1,)
    torch.testing.assert_close(*grads)
    with pytest.raises(ValueError, match=r"expected a 0-d .* or one of shape \(1,\), got .*\(2,\)"):
        Softmax(temperature=torch.ones(2))
