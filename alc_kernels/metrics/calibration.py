"""OPIS: does one threshold serve every group of queries alike?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alc_kernels.metrics.inputs import (
    BoolArray,
    FloatArray,
    IntArray,
    as_count,
    as_groups,
    as_scored,
    check_lengths,
)

if TYPE_CHECKING:
    from alc_kernels.metrics.inputs import ArrayLike

MIN_PER_GROUP = 20  # of either kind: fewer make a rate too coarse to compare
FALSE_ACCEPT_RATES = (1e-1, 1e-2)


def opis(
    scores: ArrayLike, correct: ArrayLike, groups: ArrayLike, num_thresholds: int = 101
) -> float:
    """Operating-point inconsistency score, top-1 form: the variance of utility between groups.

    ``U_g(t)`` is the harmonic mean of sensitivity and specificity, within group g, of "accept a
    query when its score is >= t" (positives: queries whose top-1 label is right).
    ``OPIS = mean over g and t of (U_g(t) - mean_g U_g(t))^2``. Lower is better: 0 means that the
    groups agree at every threshold.

    The thresholds are equally spaced, ends included, between those where the false-accept rate of
    all queries together is 1e-1 and 1e-2: the .9 and .99 quantiles (linearly interpolated) of the
    scores of the wrong queries. U is 0 where sensitivity and specificity are both 0.

    Args:
        scores: (n,) finite top-1 scores.
        correct: (n,) whether the top-1 label is right, booleans or 0/1.
        groups: (n,) group identifiers, integers or strings.
        num_thresholds: at least 2.

    Returns:
        A float in [0, 0.25]. Groups with under 20 right or under 20 wrong queries are left out
        (their queries still count in the overall false-accept rate); NaN if no group is left, 0
        if one is.

    Raises:
        ValueError: empty input, scores not finite, or lengths that disagree.

    Source: after OPIS of arXiv 2307.04047, which compares pairs; this form compares queries.
    """
    checked_scores, checked_correct = as_scored(scores, correct)
    group_ids = as_groups(groups)
    check_lengths("scores", len(checked_scores), "groups", len(group_ids))
    count = as_count(num_thresholds, "num_thresholds", low=2)
    infinite = np.flatnonzero(~np.isfinite(checked_scores))
    if len(infinite):  # no grid can be spaced equally up to infinity
        raise ValueError(f"scores[{infinite[0]}] is infinite: expected finite scores")

    _, group = np.unique(group_ids, return_inverse=True)
    group_sizes = np.bincount(group * 2 + checked_correct, minlength=2 * (group.max() + 1))
    enough = group_sizes.reshape(-1, 2) >= MIN_PER_GROUP  # (groups, 2)
    kept = enough[:, 0] & enough[:, 1]  # (groups,)
    if not kept.any():
        return float("nan")
    member = kept[group]  # (n,)
    renumbered = np.cumsum(kept) - 1
    utility = _utilities(
        checked_scores[member],
        checked_correct[member],
        renumbered[group[member]],
        _threshold_grid(checked_scores[~checked_correct], count),
    )
    return float(np.mean((utility - utility.mean(axis=0)) ** 2))


def _threshold_grid(wrong_scores: FloatArray, count: int) -> FloatArray:
    low, high = np.quantile(wrong_scores, [1.0 - rate for rate in FALSE_ACCEPT_RATES])
    return np.linspace(low, high, count)


def _utilities(
    scores: FloatArray, correct: BoolArray, group: IntArray, thresholds: FloatArray
) -> FloatArray:
    """U_g(t), (G, T), for groups numbered 0..G-1 that all hold both kinds."""
    num_groups, num_bins = int(group.max()) + 1, len(thresholds) + 1
    passed = np.searchsorted(thresholds, scores, side="right")  # thresholds <= score
    cell = (group * 2 + correct) * num_bins + passed
    counts = np.bincount(cell, minlength=2 * num_groups * num_bins)
    counts = counts.reshape(num_groups, 2, num_bins)
    # accepted at threshold j: all that pass more than j thresholds
    accepted = np.cumsum(counts[:, :, ::-1], axis=2)[:, :, ::-1][:, :, 1:]  # (G, 2, T)
    rate = accepted / counts.sum(axis=2, keepdims=True)
    sensitivity, specificity = rate[:, 1], 1.0 - rate[:, 0]  # (G, T)
    total = sensitivity + specificity
    return np.asarray(
        2.0 * sensitivity * specificity / np.where(total > 0.0, total, 1.0), dtype=np.float64
    )
