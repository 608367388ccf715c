"""Sums over processes that gradients flow through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alc_kernels.distributed.collectives import sum_over
from alc_kernels.distributed.control import resolve
from alc_kernels.distributed.settings import Membership


class _Multiplied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream * ctx.factor, None


def multiply_gradient(x: Tensor, factor: int) -> Tensor:
    """``x``, whose gradient is multiplied by ``factor``."""
    made: Tensor = _Multiplied.apply(x, factor)
    return made


class _SharedSum(torch.autograd.Function):
    """Sum over processes. Each gets the gradient of its own summand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: str) -> Tensor:
        return sum_over(x.clone(), resolve(Membership.decode(group)), "sums of the batch part")

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream, None


def shared_sum(x: Tensor, group: str) -> Tensor:
    """The sum of ``x`` over all processes, attached to the own ``x``.

    Every process computes the gradient of the same number, so the upstream gradients agree and
    the own summand receives it as it is.
    """
    made: Tensor = _SharedSum.apply(x, group)
    return made
