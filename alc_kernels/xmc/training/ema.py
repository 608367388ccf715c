"""A moving average of the weights (Polyak averaging), without a pass over whole tables.

After step t the average is e = d e + (1 - d) w with d = min(decay, (1 + t) / (10 + t)): the
smaller decay of the first steps forgets the random weights that training began with, as
TensorFlow's ``ExponentialMovingAverage(num_updates)`` does.

A table's row changes only in steps that have a gradient for it, and while w rests, n steps come
to e = w + (d_1 ... d_n) (e - w). So a row is brought up to date when it is about to change and
when the average is asked for. The cost per step is that of the rows in use; memory is a second
copy of the weights and one number per table row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from alc_kernels.xmc.parallel.sharded import like, whole
from alc_kernels.xmc.training.optimizers import sparse_rows


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
