"""The optimizers, the learning rate's course, and clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from alc_kernels.trainer.parallel.processes import is_sharded, like, local, whole


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


class Optimizers:
    """AdamW for everything dense, row-wise Adagrad for tables with sparse gradients, as one.

    Args:
        parameters: all that is trained.
        tables: those of them with sparse gradients.
        learning_rate: peak rate of the dense parameters.
        table_learning_rate: peak rate of the tables.
        weight_decay: AdamW's, dense parameters only.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        tables: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        table_learning_rate: float,
        weight_decay: float,
    ) -> None:
        self.parameters, tables = list(parameters), list(tables)
        is_table = {id(parameter) for parameter in tables}
        dense = [p for p in self.parameters if id(p) not in is_table]
        self.each: dict[str, Optimizer] = {}
        if dense:
            self.each["dense"] = torch.optim.AdamW(
                dense, lr=learning_rate, weight_decay=weight_decay
            )
        if tables:
            self.each["table"] = RowAdagrad(tables, lr=table_learning_rate)
        for optimizer in self.each.values():
            for group in optimizer.param_groups:
                group["peak"] = group["lr"]

    def start(self, factor: float) -> None:
        """Before the backward passes of a step: no gradients, ``factor`` times the peak rate."""
        for optimizer in self.each.values():
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.zero_grad(set_to_none=True)

    def step(self, scaler: torch.amp.GradScaler, clip_norm: float = 0.0) -> None:
        """Clip at a joint norm of ``clip_norm`` (0: not), then move.

        ``scaler`` divides its scale out of the gradients and skips a step whose gradients
        overflowed; a disabled one does nothing.
        """
        if clip_norm > 0:
            for optimizer in self.each.values():
                scaler.unscale_(optimizer)
            clip_gradients(self.parameters, clip_norm)
        for optimizer in self.each.values():
            scaler.step(optimizer)
        scaler.update()

    def state_dict(self) -> dict[str, Tensor]:
        """Every parameter's state as ``optimizer.number.name``; learning rates are no state."""
        return {
            f"{name}.{index}.{key}": whole(torch.as_tensor(value))
            for name, optimizer in self.each.items()
            for index, values in optimizer.state_dict()["state"].items()
            for key, value in values.items()
        }

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state_dict` gave.

        Raises:
            KeyError: state of an optimizer that does not exist here.
            IndexError: state of a parameter that does not exist here.
        """
        states: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in self.each}
        for path, value in saved.items():
            name, index, key = path.split(".", 2)
            moved = [p for group in self.each[name].param_groups for p in group["params"]]
            parameter = moved[int(index)]
            if key != "step" and value.dim() == 0 and parameter.shape == (1,):
                value = value.reshape(1)  # of a scalar that was 0-d in older checkpoints
            # Moments are spread over the processes as their parameter is.
            same = value.shape == parameter.shape
            states[name].setdefault(int(index), {})[key] = like(value, parameter) if same else value
        for name, optimizer in self.each.items():
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": states[name], "param_groups": groups})


def learning_rate_factor(step: int, total: int, warmup: float, schedule: str = "linear") -> float:
    """Share of the peak learning rate in (0, 1] at ``step``, which counts from 0.

    A linear rise over the first ``warmup`` share of ``total`` steps (the first step already
    moves), then with x rising from 0 to 1 over the rest:

        linear    1 - x
        cosine    (1 + cos(pi x)) / 2      (SGDR without restarts, arXiv 1608.03983)
        constant  1
    """
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    left = (total - step) / (total - rising + 1)  # 1 - x
    return left if schedule == "linear" else (1 - math.cos(math.pi * left)) / 2


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """Scale all gradients, sparse ones included, so that their joint norm is at most ``limit``."""
    values, parts = [], []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if is_sharded(parameter.grad):
            parts.append(local(parameter.grad))
        elif parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            values.append(parameter.grad._values())
        else:
            values.append(parameter.grad)
    norms = [torch.linalg.vector_norm(value) for value in values]
    if parts:  # of every process, so that all find the same norm
        square = torch.stack([value.square().sum() for value in parts]).sum()
        dist.all_reduce(square)
        norms.append(square.sqrt())
    if not norms:
        return
    norm = torch.linalg.vector_norm(torch.stack(norms))
    factor = (limit / (norm + 1e-12)).clamp(max=1.0)
    for value in [*values, *parts]:
        value.mul_(factor)


# A moving average of the weights (Polyak averaging), without a pass over whole tables.
#
# After step t the average is e = d e + (1 - d) w with d = min(decay, (1 + t) / (10 + t)): the
# smaller decay of the first steps forgets the random weights that training began with, as
# TensorFlow's ``ExponentialMovingAverage(num_updates)`` does.
#
# A table's row changes only in steps that have a gradient for it, and while w rests, n steps come
# to e = w + (d_1 ... d_n) (e - w). So a row is brought up to date when it is about to change and
# when the average is asked for. The cost per step is that of the rows in use; memory is a second
# copy of the weights and one number per table row.


class WeightAverage:
    """The average of ``model``'s parameters; buffers are taken as they are.

    Call :meth:`before_step` when gradients are complete and :meth:`after_step` when the
    optimizers have moved.

    Args:
        model: what is trained.
        tables: its parameters with sparse gradients, (rows, width).
        decay: of one step, in (0, 1).
    """

    def __init__(self, model: nn.Module, tables: Iterable[nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.steps = 0
        # log(d_1 ... d_t): a product of many decays would underflow, its logarithm does not.
        self.log_decay = 0.0
        is_table = {id(table) for table in tables}
        self.weights = dict(model.named_parameters())
        self.tables = [name for name, p in self.weights.items() if id(p) in is_table]
        self.average = {name: p.detach().clone() for name, p in self.weights.items()}
        # The value of log_decay up to which a row's average is right.
        self.reached = {
            name: torch.zeros(len(p), dtype=torch.float64, device=p.device)
            for name, p in self.weights.items()
            if name in self.tables
        }
        self._changing: dict[str, Tensor] = {}

    @torch.no_grad()
    def before_step(self) -> None:
        """Bring the table rows that have a gradient up to date with their old weights."""
        self._changing = {}
        for name in self.tables:
            gradient = self.weights[name].grad
            if gradient is None:
                continue
            rows, _ = sparse_rows(gradient)
            self._changing[name] = rows
            self.average[name][rows] = self._caught_up(name, rows)
            self.reached[name][rows] = self.log_decay

    @torch.no_grad()
    def after_step(self) -> None:
        """Take the new weights in."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.log_decay += math.log(decay)
        for name, weight in self.weights.items():
            if name not in self.tables:
                self.average[name].lerp_(weight, 1 - decay)
            elif name in self._changing:
                rows = self._changing[name]
                self.average[name][rows] = self.average[name][rows].lerp(weight[rows], 1 - decay)
                self.reached[name][rows] = self.log_decay

    def _caught_up(self, name: str, rows: Tensor | slice) -> Tensor:
        """The average of ``rows`` after all steps so far, given that they rested since."""
        weight, average = self.weights[name].detach()[rows], self.average[name][rows]
        share = (self.log_decay - self.reached[name][rows]).exp()[:, None].to(weight.dtype)
        return weight + share * (average - weight)

    @torch.no_grad()
    def averaged(self) -> dict[str, Tensor]:
        """The average of every parameter, by its name in the model."""
        return {
            name: self._caught_up(name, slice(None)) if name in self.tables else average.clone()
            for name, average in self.average.items()
        }

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with averaged weights; afterwards it has its own again, bit for bit."""
        own = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self._assign(self.averaged())
        try:
            yield
        finally:
            self._assign(own)

    @torch.no_grad()
    def _assign(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(values[name])

    def state_dict(self) -> dict[str, Tensor | int | float]:
        """Averages, how far each row is, and the step; to be called by every process."""
        tensors = {f"average.{name}": whole(value) for name, value in self.average.items()}
        tensors |= {f"reached.{name}": value for name, value in self.reached.items()}
        return {"steps": self.steps, "log_decay": self.log_decay, **tensors}

    def load_state_dict(self, saved: Mapping[str, Tensor | int | float]) -> None:
        """Take what :meth:`state_dict` gave.

        Raises:
            KeyError: something is missing.
        """
        self.steps, self.log_decay = int(saved["steps"]), float(saved["log_decay"])
        for group, values in (("average", self.average), ("reached", self.reached)):
            for name, value in values.items():
                value.copy_(like(torch.as_tensor(saved[f"{group}.{name}"]), value))
