"""What ``ALCLoss.terms`` and the reference return."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LossTerms:
    """One evaluation, taken apart. ``total`` carries the graph, all else is detached.

    The parts are given before their weights; parts that are not used are 0.
    """

    total: Tensor  # 0-d acc
    base: Tensor  # 0-d acc
    pair: Tensor  # 0-d acc
    batch: Tensor  # 0-d acc
    tcm_positive: Tensor  # 0-d acc
    tcm_negative: Tensor  # 0-d acc
    hardest_score: Tensor  # (B,) acc: each row's hardest negative, -inf where there is none
    hardest_index: Tensor  # (B,) int64, -1 where there is none
    active_positives: Tensor  # 0-d int64: positives below positive_margin
    active_negatives: Tensor  # 0-d int64: negatives above negative_margin, within the scope
