"""The optimizers, the learning rate's course, and clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class RowAdagrad(Optimizer):
    """Adagrad with one accumulator per table row, for sparse gradients.

    row -= lr * g / sqrt(sum over steps of mean(g^2)). Only rows with a gradient are touched,
    and a rare n-gram still moves after thousands of steps, which a decaying average or dense
    Adam (four passes over the whole table per step) do not offer.

    Args:
        params: parameters (rows, width) whose gradients are sparse along rows.
        lr: learning rate; 0 leaves a group alone.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-2) -> None:
        super().__init__(params, {"lr": lr, "eps": 1e-10})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None or group["lr"] == 0:
                    continue
                rows, gradient = sparse_rows(param.grad)
                state = self.state[param]
                if not state:
                    state["sum"] = torch.zeros(len(param), 1, device=param.device)
                total = state["sum"][rows] + gradient.square().mean(1, keepdim=True)
                state["sum"][rows] = total
                update = gradient / (total.sqrt() + group["eps"])
                param.index_add_(0, rows, update, alpha=-group["lr"])


def sparse_rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (U,) and values (U, width) of a gradient that is sparse along distinct rows."""
    if not gradient.is_sparse:
        raise TypeError(f"expected a sparse gradient, got layout {gradient.layout}")
    rows = gradient._indices()[0]
    # The n-gram encoder looks every bucket up once per call, so a single call gives ascending
    # rows; queries and labels are two calls, and rows in both must be added up first.
    if len(rows) > 1 and not bool((rows[1:] > rows[:-1]).all()):
        gradient = gradient.coalesce()
        rows = gradient.indices()[0]
        return rows, gradient.values()
    return rows, gradient._values()


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Linear rise over the first ``warmup`` share of ``total`` steps, then linear fall to 0.

    ``step`` counts from 0; the first step already moves.
    """
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    return (total - step) / (total - rising + 1)


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """Scale all gradients, sparse ones included, so that their joint norm is at most ``limit``."""
    values = []
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
                values.append(parameter.grad._values())
            else:
                values.append(parameter.grad)
    if not values:
        return
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(v) for v in values]))
    factor = (limit / (norm + 1e-12)).clamp(max=1.0)
    for value in values:
        value.mul_(factor)
