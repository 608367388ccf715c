"""The loss at several prefix widths, as the definition reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alc_kernels.reference.total import alc_loss


def matryoshka_loss(
    queries: Tensor,
    labels: Tensor,
    *arguments: Any,
    widths: Sequence[int],
    weights: Sequence[float] | None = None,
    **settings: Any,
) -> Tensor:
    """Sum over ``widths`` of weight times :func:`alc_loss` of the prefixes ``x[:, :width]``.

    Each prefix is normalised by its own norm. Source: Matryoshka representation learning,
    arXiv 2205.13147.

    Args:
        queries: (B, d) floating point.
        labels: (M, d).
        arguments, settings: those of :func:`alc_loss`. ``auxiliary`` is evaluated at the width
            that ``heads`` fit, d, alone.
        widths: ascending, each in 1 .. d.
        weights: one per width; None: all 1.

    Returns:
        0-d float32 (float64 for float64 inputs).
    """
    weights = [1.0] * len(widths) if weights is None else weights
    finite = torch.isfinite(queries).all() & torch.isfinite(labels).all()
    zero = torch.where(finite, 0.0, torch.nan)
    total = sum(((x * zero).sum() for x in (queries, labels)), start=queries.new_zeros(()))
    parts = dict(settings)
    for width, weight in zip(widths, weights, strict=True):
        if width != queries.shape[1]:
            parts["auxiliary"] = None
        else:
            parts["auxiliary"] = settings.get("auxiliary")
        prefixes = queries[:, :width], labels[:, :width]
        total = total + weight * alc_loss(*prefixes, *arguments, **parts).total
    return total
