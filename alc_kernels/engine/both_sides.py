"""Both sides of a batch made ready at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alc_kernels.engine.interface import accumulation_dtype

NormalizeRows = Callable[[Tensor, torch.dtype, bool], tuple[Tensor, Tensor | None, Tensor]]
Both = tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor]


def poison_unless(acc: torch.dtype, good: Tensor, *others: Tensor | None) -> Tensor:
    """0-d ``acc``: 1 where every 0-d bool holds (None: nothing to check), else NaN."""
    for other in others:
        if other is not None:
            good = good & other
    ones = good.to(acc)
    return ones / ones  # 0 / 0 is NaN


def one_by_one(
    normalize_rows: NormalizeRows,
) -> Callable[[Tensor, Tensor, torch.dtype, bool], Both]:
    """``Backend.normalize_both`` of a backend that has nothing better than its two calls."""

    def normalize_both(
        queries: Tensor, labels: Tensor, dtype: torch.dtype, normalize: bool
    ) -> Both:
        """See ``interface.Backend.normalize_both``."""
        unit_queries, inverse_queries, finite_queries = normalize_rows(queries, dtype, normalize)
        unit_labels, inverse_labels, finite_labels = normalize_rows(labels, dtype, normalize)
        poison = poison_unless(accumulation_dtype(dtype), finite_queries, finite_labels)
        return unit_queries, inverse_queries, unit_labels, inverse_labels, poison

    return normalize_both
