"""The pair part of ALC: binary cross-entropy of a linear head, its features never stored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from alc_kernels.engine.interface import Backend, Problem


@dataclass(frozen=True)
class PairHead:
    """Linear(4d, 1) on [a; b; |a-b|; a*b]."""

    weight: Tensor  # (4d,) acc
    bias: Tensor  # 0-d acc


@dataclass
class PairPart:
    """Its value and gradients with unit weight."""

    value: Tensor  # 0-d acc
    grad_weight: Tensor  # (4d,) acc
    grad_bias: Tensor  # 0-d acc


def pair_part(
    backend: Backend,
    problem: Problem,
    head: PairHead,
    index: Tensor,
    weight: float,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
    want_head: bool,
    deterministic: bool,
) -> PairPart:
    """1/(2|R|) sum over R of softplus(-f(positive)) + softplus(f(negative)).

    Args:
        index: (B, 2) int64, each row's positive and negative label; -1 in rows outside R.
        weight: of this part in the total; embedding gradients are added times it.
    """
    members = index[:, :1] >= 0  # (B, 1)
    logits = backend.pair_logits(problem, index, head.weight, head.bias)  # (B, 2)
    losses, slope = pair_losses(logits, members)
    share = pair_share(members.sum(), logits.dtype)
    slope = slope * (share * weight)
    grad_weight = torch.zeros_like(head.weight)
    if want_head or grad_queries is not None or grad_labels is not None:
        grad_weight = backend.pair_logits_backward(
            problem, index, head.weight, slope, grad_queries, grad_labels, deterministic
        )
    return PairPart(losses.sum() * share, grad_weight, slope.sum())


def pair_losses(logits: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 2) cross-entropies and their slopes by the logit; 0 outside ``members`` (B, 1)."""
    # Made on the device: copying [1, -1] from the host would break graph capture.
    sign = 1.0 - 2.0 * torch.arange(2, device=logits.device, dtype=logits.dtype)
    losses = torch.where(members, -F.logsigmoid(sign * logits), 0.0)
    return losses, torch.where(members, -sign * torch.sigmoid(-sign * logits), 0.0)


def pair_share(count: Tensor, dtype: torch.dtype) -> Tensor:
    """1/(2|R|), 0-d; 0 where R is empty."""
    return torch.where(count > 0, 0.5 / count.to(dtype), 0.0)
