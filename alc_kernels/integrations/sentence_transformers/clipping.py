"""``clip_with_heads``: the trainer's ``max_grad_norm`` for the loss's parameters too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainer
from torch import Tensor, nn


def clip_with_heads(trainer: SentenceTransformerTrainer) -> None:
    """Let ``max_grad_norm`` clip everything that the trainer's optimizer moves.

    The trainer clips (and logs the norm of) the model's parameters only; those of a loss, heads
    or learned scalars, are stepped as they are. After this call the norm is that of all of them
    together. With several processes, where each trains heads of its own, the loss's parameters
    are clipped by themselves, so that the model's step stays the same on all.

    Args:
        trainer: before ``train()``.
    """
    accelerator: Any = trainer.accelerator
    clip = accelerator.clip_grad_norm_

    def clip_all(
        parameters: Iterable[nn.Parameter], max_norm: float, *more: Any, **options: Any
    ) -> Tensor | None:
        model = list(parameters)
        known = {id(parameter) for parameter in model}
        groups: Any = getattr(trainer.optimizer, "param_groups", [])
        moved = [parameter for group in groups for parameter in group["params"]]
        others = [parameter for parameter in moved if id(parameter) not in known]
        if accelerator.num_processes == 1:
            model, others = [*model, *others], []
        norm: Tensor | None = clip(model, max_norm, *more, **options)  # undoes a loss scale first
        if others:
            torch.nn.utils.clip_grad_norm_(others, max_norm)
        return norm

    accelerator.clip_grad_norm_ = clip_all
