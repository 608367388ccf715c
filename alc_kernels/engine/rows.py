"""What each part of a loss makes of a walk: its value per row, and how that reaches the scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from alc_kernels.engine.interface import GradientRequest, RowStatistics, Slack, accumulation_dtype
from alc_kernels.settings import DynamicTriplet, Softmax, ThresholdMargin, Triplet

# What a base loss leaves behind: a value per row and how its gradient reaches the scores.


PositiveSums = tuple[Tensor, Tensor] | None  # what ``Backend.positive_pass`` leaves


@dataclass
class RowLoss:
    """One direction of a base loss.

    Either ``pair_index`` and ``pair_slope`` are given (a sparse gradient: d value_i / d s at a
    few labels per row) or ``dense`` (every pair has one). ``dense`` misses its ``row_scale``,
    which is known once the rows are averaged.
    """

    values: Tensor  # (B,) acc, 0 outside R
    members: Tensor | None  # (B,) bool: the rows that are averaged; None: all
    pair_index: Tensor | None = None  # (B, t) int64, -1: nothing
    pair_slope: Tensor | None = None  # (B, t) acc
    dense: GradientRequest | None = None


def times(factor: float, x: Tensor) -> Tensor:
    """``factor * x``; ``x`` itself for a factor of 1, the usual weight."""
    return x if factor == 1.0 else factor * x


LINEAR = 50.0  # softplus(x) is x from here on, in float64 too
ONE_POSITIVE = ("diagonal", "index")  # relations with exactly one positive in every row


def log_sum_exp_over(one_positive: bool, base: Softmax) -> Literal["all", "negatives"]:
    """Which labels the walk's log-sum-exp takes in.

    With one positive in every row both forms are the same loss. That of the negatives has no
    cancellation: 1 - exp(z_p) / D is sigmoid(lse_N - z_p), however close to 0.
    """
    return "negatives" if base.decoupled or one_positive else "all"


def softmax_rows(
    found: RowStatistics,
    base: Softmax,
    temperature: Tensor,
    label_offset: Tensor | None,
    one_positive: bool,
    positive_sums: PositiveSums,
    full: bool = False,
) -> RowLoss:
    """Mean over a row's positives of -log(exp(z_p) / D_p).

    Args:
        one_positive: every row has exactly one.
        positive_sums: of the decoupled form with several positives.
        full: every row is known to have a positive and a negative.
    """
    assert found.log_sum_exp is not None and found.positive_logit_sum is not None
    negative_scale = None
    of_negatives = log_sum_exp_over(one_positive, base) == "negatives"
    if of_negatives:
        # D_p = exp(z_p) + sum over negatives, so -log(exp(z_p) / D_p) = softplus(lse_N - z_p).
        if one_positive:
            gap = found.log_sum_exp - found.positive_logit_sum
            values = F.softplus(gap, threshold=LINEAR)
            if found.gradient is None:
                negative_scale = gap.sigmoid()
        else:
            count = found.num_positives.clamp(min=1)
            assert positive_sums is not None
            softplus_sum, sigmoid_sum = positive_sums
            values, negative_scale = softplus_sum / count, sigmoid_sum / count
    else:
        values = found.log_sum_exp - found.positive_logit_sum / found.num_positives.clamp(min=1)
    members = None
    if not full:
        members = (found.num_positives > 0) & (found.num_negatives > 0)  # R
        values = torch.where(members, values, 0.0)
    return RowLoss(
        values=values,
        members=members,
        dense=GradientRequest(
            kind="decoupled" if of_negatives else "softmax",
            num_positives=found.num_positives,
            log_sum_exp=found.log_sum_exp,
            negative_scale=negative_scale,
            inverse_temperature=temperature.reciprocal(),
            label_offset=label_offset,
        ),
    )


# Triplet and dynamic triplet: value and slope per row from the mined scores.


def triplet_rows(
    found: RowStatistics,
    base: Triplet | DynamicTriplet,
    positive: tuple[Tensor, Tensor],
    full: bool = False,
) -> RowLoss:
    """Value and slopes of each row's triplets. ``found`` holds the hardest negatives.

    Args:
        positive: (B,) index, -1 where none, and (B,) acc score of the one that leads a row's.
        full: every row is known to have a positive and a negative.
    """
    assert found.top_score is not None and found.top_index is not None
    s_n = found.top_score[:, : base.num_negatives]  # (B, k)
    n = found.top_index[:, : base.num_negatives]
    p, s_p = positive
    exists = n >= 0
    members = None
    valid = exists
    if not full:
        members = (found.num_positives > 0) & (found.num_negatives > 0)  # R
        valid = exists & members[:, None]
    lead = torch.where(valid, s_p[:, None] - s_n, torch.inf)  # (B, k)
    loss, active, pull = _hinge(lead, base)

    if base.weight_temperature is None:
        count = exists.sum(dim=1, keepdim=True).clamp(min=1)
        values = loss.sum(dim=1) / count[:, 0]
        slope_n = pull / count
        slope_p = -slope_n.sum(dim=1)
    else:
        weight = _weights(s_n, active, base.weight_temperature)
        values = (weight * loss).sum(dim=1)
        # w is a softmax of the scores: d value / d s_n = w (1 + (loss - value) / t)
        slope_n = weight * (1.0 + (loss - values[:, None]) / base.weight_temperature)
        # The terms (loss - value) sum to 0 under w, so the positive carries exactly -sum w.
        slope_p = -weight.sum(dim=1)
        if isinstance(base, DynamicTriplet) and base.band_gradient > 0:
            # Nothing active: equal weights, and what there is lies in the band.
            count = exists.sum(dim=1, keepdim=True).clamp(min=1)
            equal = torch.where(active.any(dim=1, keepdim=True), 0.0, pull / count)
            slope_n = slope_n + equal
            slope_p = slope_p - equal.sum(dim=1)
    return RowLoss(
        values=values,
        members=members,
        pair_index=torch.cat([n, p[:, None]], dim=1),
        pair_slope=torch.cat([slope_n, slope_p[:, None]], dim=1),
    )


def _hinge(lead: Tensor, base: Triplet | DynamicTriplet) -> tuple[Tensor, Tensor, Tensor]:
    """(B, k) losses, the mask of active ones, and -d loss / d lead; nothing at a lead of +inf."""
    if isinstance(base, DynamicTriplet):
        active = lead < base.min_margin
        margin = lead.abs().clamp(base.min_margin, base.max_margin)
        pull = active.to(lead.dtype)
        if base.band_gradient > 0:
            in_band = ~active & (lead <= base.max_margin)
            pull = torch.where(in_band, base.band_gradient, pull)
    else:
        active = base.margin - lead > 0
        margin = torch.full_like(lead, base.margin)
        pull = active.to(lead.dtype)
    return torch.where(active, margin - lead, 0.0), active, pull


def _weights(s_n: Tensor, active: Tensor, temperature: float) -> Tensor:
    """Softmax of s / temperature over the active negatives, 0 elsewhere."""
    z = torch.where(active, s_n / temperature, -torch.inf)
    largest = z.amax(dim=1, keepdim=True) if z.shape[1] else z
    e = torch.where(active, (z - largest).exp(), 0.0)
    return e / e.sum(dim=1, keepdim=True).clamp(min=torch.finfo(e.dtype).tiny)


# Pairwise sigmoid loss: value per row from the sum of its pairs.


def sigmoid_rows(found: RowStatistics, scale: Tensor, bias: Tensor) -> RowLoss:
    """Sum over non-excluded labels of softplus(-y (scale s + bias)); every row counts."""
    assert found.sigmoid_sum is not None
    return RowLoss(
        values=found.sigmoid_sum,
        members=None,
        dense=GradientRequest(kind="sigmoid", scale=scale, bias=bias),
    )


# Threshold-consistent margin loss from the walk's sums and counts.


@dataclass
class ThresholdTerms:
    """Both sides of the loss, unweighted, and what their gradients need. Positives come first."""

    values: Tensor  # (2,) acc
    counts: Tensor  # (2,) int64: active pairs
    divisor: Tensor | float  # (2,) int64, or the same for both sides: of a sum, to its value
    settings: ThresholdMargin
    hardest_active: Tensor | None  # (B,) bool with negative_scope="hardest"

    @cached_property
    def share(self) -> Tensor:
        """(2,) acc: of an active pair in its side's value."""
        return torch.ones_like(self.values) / self.divisor

    @property
    def total(self) -> Tensor:
        """0-d acc: the weighted sum of both sides."""
        by_positive, by_negative = self.settings.positive_weight, self.settings.negative_weight
        if by_positive == by_negative:
            return times(by_positive, self.values.sum())
        return times(by_positive, self.values[0]) + times(by_negative, self.values[1])

    @property
    def positive_scale(self) -> Tensor:
        """0-d acc: -d total / d s of an active positive."""
        return times(self.settings.positive_weight, self.share[0])

    @property
    def negative_scale(self) -> Tensor:
        """0-d acc: d total / d s of an active negative."""
        return times(self.settings.negative_weight, self.share[1])


@dataclass
class ThresholdSums:
    """A walk's sums over all rows, of positives and negatives. They add up over parts of a batch.

    ``values`` are the sums of (positive_margin - s) and (s - negative_margin) over active pairs.
    """

    values: Tensor  # (2,) acc
    counts: Tensor  # (2,) int64: active pairs
    hardest_active: Tensor | None  # (B,) bool with negative_scope="hardest"


def threshold_sums(found: RowStatistics, settings: ThresholdMargin) -> ThresholdSums:
    """Sum a walk's numbers per row."""
    hardest_active = None
    if settings.negative_scope == "hardest":
        assert found.top_score is not None and found.top_index is not None
        hardest = found.top_score[:, 0]
        hardest_active = (found.top_index[:, 0] >= 0) & (hardest >= settings.negative_margin)
        over = torch.where(hardest_active, hardest - settings.negative_margin, 0.0)
        active_negatives = hardest_active
    elif found.margin_sums is not None and found.margin_counts is not None:
        return ThresholdSums(found.margin_sums, found.margin_counts, None)
    else:
        assert found.negative_margin_sum is not None and found.negative_margin_count is not None
        over, active_negatives = found.negative_margin_sum, found.negative_margin_count
    assert found.positive_margin_sum is not None and found.positive_margin_count is not None
    return ThresholdSums(
        torch.stack([found.positive_margin_sum.sum(), over.sum()]),
        torch.stack([found.positive_margin_count.sum(), active_negatives.sum()]),
        hardest_active,
    )


def threshold_terms(sums: ThresholdSums, settings: ThresholdMargin, rows: int) -> ThresholdTerms:
    """From the sums of a batch of ``rows`` rows to the two sides of the loss."""
    # An empty set has a sum of 0, so that its count does not matter.
    active = settings.reduction == "active"
    divisor = sums.counts.clamp(min=1) if active else float(max(rows, 1))
    values = sums.values / divisor
    return ThresholdTerms(values, sums.counts, divisor, settings, sums.hardest_active)


def single_positive_slope(
    index: Tensor, score: Tensor, terms: ThresholdTerms
) -> tuple[Tensor, Tensor]:
    """(B, 1) index and slope of the positive side from every row's only positive, (B,) each."""
    active = score <= terms.settings.positive_margin
    return index[:, None], torch.where(active, -terms.positive_scale, 0.0)[:, None]


def hardest_negative_slope(found: RowStatistics, terms: ThresholdTerms) -> tuple[Tensor, Tensor]:
    """(B, 1) index and slope of the negative side over hardest negatives."""
    assert found.top_index is not None and terms.hardest_active is not None
    slope = torch.where(terms.hardest_active, terms.negative_scale, 0.0)
    return found.top_index[:, :1], slope[:, None]


# The pair part of ALC: binary cross-entropy of a linear head, its features never stored.


@dataclass(frozen=True)
class PairHead:
    """Linear(4d, 1) on [a; b; |a-b|; a*b]."""

    weight: Tensor  # (4d,) acc
    bias: Tensor  # 0-d acc


def pair_losses(logits: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 2) cross-entropies and their slopes by the logit; 0 outside ``members`` (B, 1)."""
    # Made on the device: copying [1, -1] from the host would break graph capture.
    sign = 1.0 - 2.0 * torch.arange(2, device=logits.device, dtype=logits.dtype)
    losses = torch.where(members, -F.logsigmoid(sign * logits), 0.0)
    return losses, torch.where(members, -sign * torch.sigmoid(-sign * logits), 0.0)


def pair_share(count: Tensor, dtype: torch.dtype) -> Tensor:
    """1/(2|R|), 0-d; 0 where R is empty."""
    return torch.where(count > 0, 0.5 / count.to(dtype), 0.0)


# The false-negative guard: each row's limit, and what rounding may lift over it.
#
# A negative is excluded with s_ij > s_i,first - exclude_above - eta_ij, eta_ij = ``rounding`` times
# the norms of the two rows: two scores that are equal but for their rounding, as those of an exact
# copy of the positive are, then always fall on the same side, whatever order a backend sums in.


# Of float32 products, whose factors are rounded to TF32 or bfloat16 first.
ROUNDED_FACTORS = {"highest": 0.0, "high": 2.0**-9, "medium": 2.0**-7}


def rounding(width: int, dtype: torch.dtype) -> float:
    """How far two scores that should be equal may lie apart, per unit of both rows' norms.

    2 (d + 4) u of sums over ``width`` = d products with unit roundoff u; more for float32 rows
    where ``torch.get_float32_matmul_precision`` lets their factors be rounded. Products of half
    precision are exact.

    Args:
        dtype: of the rows as they are multiplied.
    """
    unit = torch.finfo(accumulation_dtype(dtype)).eps / 2
    bound = 2 * (width + 4) * unit
    if dtype == torch.float32:
        bound += ROUNDED_FACTORS[torch.get_float32_matmul_precision()]
    return bound


def norms(rows: Tensor) -> Tensor:
    """(n,) acc: lengths of the rows (n, d), whose squares must not overflow."""
    wide = rows.to(accumulation_dtype(rows.dtype))
    size = F.pad(wide.abs(), (0, 1)).amax(dim=1)  # d may be 0
    scaled = wide / torch.where(size > 0, size, 1.0)[:, None]
    return size * torch.linalg.vector_norm(scaled, dim=1)


def slack_of(queries: Tensor, labels: Tensor, normalize: bool) -> Slack:
    """Of a problem's rows: eta_ij as a product. None for unit rows, where it is one number."""
    if normalize:
        return None
    return rounding(queries.shape[1], queries.dtype) * norms(queries), norms(labels)


def limits(
    first: Tensor, score: Tensor, exclude_above: float, queries: Tensor, normalize: bool
) -> Tensor:
    """(B,) acc: what is above it is excluded; rows without a positive have no limit.

    Args:
        first, score: (B,) each row's first positive, -1 for none, and its similarity.
        queries: (B, d) as they are multiplied.
        normalize: unit rows (a zero row counts as one): the limit has their eta in it. Others
            have it in ``slack_of``.
    """
    margin = exclude_above
    if normalize:
        margin += rounding(queries.shape[1], queries.dtype)
    return torch.where(first >= 0, score - margin, torch.inf)
