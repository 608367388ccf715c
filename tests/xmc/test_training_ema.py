"""The averaged weights against a plain loop over everything, and without touching training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alc_kernels.trainer.training.optimizers import RowAdagrad, WeightAverage

DECAY = 0.8


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(7, 3))
        self.unused = nn.Parameter(torch.randn(4, 2))
        self.dense = nn.Linear(3, 2)
        self.register_buffer("count", torch.tensor(3))

    def forward(self, rows: Tensor) -> Tensor:
        return self.dense(F.embedding(rows, self.table, sparse=True)).square().sum()


def steps(model: Small, average: WeightAverage, count: int, seed: int = 0) -> dict[str, Tensor]:
    """Train; the average that a plain loop over all weights gives."""
    generator = torch.Generator().manual_seed(seed)
    table = RowAdagrad([model.table], lr=0.1)
    dense = torch.optim.SGD(model.dense.parameters(), lr=0.1)
    plain = {name: p.detach().clone() for name, p in model.named_parameters()}
    for step in range(1, count + 1):
        for optimizer in (table, dense):
            optimizer.zero_grad()
        for _ in range(2):  # gradients of two batches: duplicate rows, not coalesced
            model(torch.randint(0, 4 + step % 2, (2,), generator=generator)).backward()
        average.before_step()
        table.step()
        dense.step()
        average.after_step()
        decay = min(DECAY, (1 + step) / (10 + step))
        for name, p in model.named_parameters():
            plain[name] = decay * plain[name] + (1 - decay) * p.detach()
    return plain


def make() -> tuple[Small, WeightAverage]:
    torch.manual_seed(0)
    model = Small()
    return model, WeightAverage(model, [model.table, model.unused], DECAY)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_rows_that_rest_are_averaged_as_if_every_row_were_visited(count: int) -> None:
    model, average = make()
    plain = steps(model, average, count)
    found = average.averaged()
    assert found.keys() == plain.keys()
    for name, expected in plain.items():
        torch.testing.assert_close(found[name], expected)
    assert torch.equal(found["unused"], model.unused)


def test_the_first_steps_forget_the_random_weights() -> None:
    """With decay .999 and no warm-up, 20 steps would leave 98 % of them."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 100.0)
    average = WeightAverage(model, [], 0.999)
    nn.init.zeros_(model.weight)
    for _ in range(20):
        average.before_step()
        average.after_step()
    assert 0 < average.averaged()["weight"].item() < 0.01


def test_applied_gives_the_model_its_own_weights_back() -> None:
    model, average = make()
    steps(model, average, 5)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    averaged = average.averaged()
    with pytest.raises(RuntimeError, match="evaluation failed"), average.applied():
        assert all(torch.equal(p, averaged[name]) for name, p in model.named_parameters())
        assert not torch.equal(model.table, own["table"])
        raise RuntimeError("evaluation failed")
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_looking_at_the_average_does_not_change_what_follows() -> None:
    one, other = make(), make()
    steps(*one, 10)
    original = other[1].after_step

    def looked_at() -> None:
        original()
        other[1].averaged()

    other[1].after_step = looked_at  # type: ignore[method-assign]
    steps(*other, 10)
    for name, value in one[1].averaged().items():
        assert torch.equal(value, other[1].averaged()[name])


def test_state_round_trip_goes_on_bit_for_bit() -> None:
    model, average = make()
    steps(model, average, 6)
    copy, second = make()
    copy.load_state_dict(model.state_dict())
    second.load_state_dict(average.state_dict())
    for one in ((model, average), (copy, second)):
        steps(*one, 4, seed=1)
    for name, value in average.averaged().items():
        assert torch.equal(value, second.averaged()[name])
    with pytest.raises(KeyError):
        second.load_state_dict({"steps": 1, "log_decay": 0.0})
