"""What ``ALCLoss.terms`` and the reference return."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LossTerms:
    """One evaluation, taken apart. ``total`` carries the graph, all else is detached.

    The parts are given before their weights; parts that are not used are 0. Values are float32
    (float64 for float64 inputs).

    Attributes:
        total: 0-d, the loss.
        base: 0-d.
        pair: 0-d, ALC's pair part.
        batch: 0-d, ALC's batch part.
        tcm_positive: 0-d, the side of TCM that pulls positives up.
        tcm_negative: 0-d, the side that pushes negatives down.
        hardest_score: (B,) similarity of each row's hardest negative, -inf where there is none.
        hardest_index: (B,) int64, that label, -1 where there is none.
        active_positives: 0-d int64, positives at or below ``positive_margin``.
        active_negatives: 0-d int64, negatives at or above ``negative_margin``, within the scope.
    """

    total: Tensor
    base: Tensor
    pair: Tensor
    batch: Tensor
    tcm_positive: Tensor
    tcm_negative: Tensor
    hardest_score: Tensor
    hardest_index: Tensor
    active_positives: Tensor
    active_negatives: Tensor
