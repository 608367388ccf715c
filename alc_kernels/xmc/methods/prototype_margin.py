"""PRIME's regulariser: a prototype must serve a query better than the label's text does."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from alc_kernels import Positives
from alc_kernels.losses.functional import hardest_negatives
from alc_kernels.xmc.parallel.processes import ALONE, Processes
from alc_kernels.xmc.parallel.rows import all_rows, sum_of

CHUNK = 2**24  # similarities at a time


def prototype_margin_loss(
    queries: Tensor,
    text: Tensor,
    prototypes: Tensor,
    positives: Positives,
    exclude: Positives | None = None,
    *,
    margin: float = 0.1,
    num_negatives: int = 100,
    exclude_above: float | None = None,
    backend: str = "auto",
    processes: Processes = ALONE,
) -> Tensor:
    """Half of: mean max(0, t_p - s_p + margin) + mean max(0, s_n - t_n + margin), 0-d float32.

    s are a query's similarities with prototypes and t those with texts; p is its first positive,
    n runs over the ``num_negatives`` hardest negatives among the prototypes. Each mean is over
    the terms above 0 and 0 where there are none.

    Source: the authors' code of PRIME (github.com/kunaldahiya/prime), ``RegLoss``, where an empty
    mean is NaN.

    Args:
        queries: (B, d) of unit length (or zero), like the two others.
        text, prototypes: (M, d) two vectors of each label.
        positives, exclude: B x M.
        margin: in units of similarity.
        processes: with several, vectors are this one's and relations have columns for all labels.
    """
    if processes.size > 1:
        counts = processes.counts(len(text))
        text = all_rows(text, processes, counts)
        prototypes = all_rows(prototypes, processes, counts)
    scores, index = hardest_negatives(
        queries, prototypes, positives, exclude, num_negatives,
        normalize=False, exclude_above=exclude_above, backend=backend,
    )  # (B, k), (B, k)  # fmt: skip
    first = positives.first(queries.device)[:, None]  # (B, 1)
    good = first >= 0
    own = (queries * prototypes[first.clamp(min=0)[:, 0]]).sum(1, keepdim=True).float()
    at_text = similarities_at(queries, text, torch.cat([first, index], 1).clamp(min=0))
    shortfall = torch.where(good, at_text[:, :1] - own + margin, 0.0)
    excess = torch.where(index >= 0, scores - at_text[:, 1:] + margin, 0.0)
    return (_mean_above_zero(shortfall, processes) + _mean_above_zero(excess, processes)) / 2


def similarities_at(queries: Tensor, labels: Tensor, index: Tensor) -> Tensor:
    """(B, k) float32: inner products of queries (B, d) with labels (M, d) at ``index`` (B, k).

    In chunks of rows that are computed again in the backward pass: a plain matrix product is
    faster than gathering (B, k, d), and B x M is never held.
    """
    rows = max(1, CHUNK // max(1, len(labels)))
    if len(queries) <= rows:
        return _at(queries, labels, index)
    parts = [
        checkpoint(_at, *part, use_reentrant=False)
        for part in zip(
            queries.split(rows), [labels] * -(-len(queries) // rows), index.split(rows), strict=True
        )
    ]
    return torch.cat(parts)


def _at(queries: Tensor, labels: Tensor, index: Tensor) -> Tensor:
    return (queries @ labels.T).gather(1, index).float()


def _mean_above_zero(values: Tensor, processes: Processes) -> Tensor:
    active = values > 0
    total = sum_of(torch.where(active, values, 0.0).sum(), processes)
    return total / sum_of(active.sum(), processes).clamp(min=1)
