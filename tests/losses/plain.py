"""The losses as most people write them today: plain PyTorch, S stored, diagonal positives.

This is what "plain PyTorch at the same precision" means in the tolerance tests.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def similarities(queries: Tensor, labels: Tensor) -> Tensor:
    """(B, B) in the embeddings' dtype."""
    return F.normalize(queries, dim=1) @ F.normalize(labels, dim=1).T


def softmax_loss(queries: Tensor, labels: Tensor) -> Tensor:
    s = similarities(queries, labels)
    return F.cross_entropy(s / 0.05, torch.arange(len(s), device=s.device)).float()


def triplet_loss(queries: Tensor, labels: Tensor) -> Tensor:
    s = similarities(queries, labels)
    positive = s.diagonal()
    own = torch.eye(len(s), dtype=torch.bool, device=s.device)
    negatives = s.masked_fill(own, -torch.inf).topk(10, dim=1).values
    loss = (0.3 - (positive[:, None] - negatives)).relu()
    weight = torch.where(loss > 0, negatives / 0.1, -torch.inf).softmax(dim=1)
    weight = torch.nan_to_num(weight)
    return (weight * loss).sum(dim=1).mean().float()


def sigmoid_loss(queries: Tensor, labels: Tensor) -> Tensor:
    s = similarities(queries, labels)
    y = 2 * torch.eye(len(s), dtype=s.dtype, device=s.device) - 1
    return -F.logsigmoid(y * (10 * s - 10)).sum(dim=1).mean().float()


PLAIN = {"softmax": softmax_loss, "triplet": triplet_loss, "sigmoid": sigmoid_loss}
