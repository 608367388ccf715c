"""The few passes over the similarities that a backend provides.

Everything a loss needs is one *walk* over S = Q K^T, which leaves numbers per row, some
arithmetic on those rows (``alc_kernels.engine.evaluate``, the same for every backend), and one
*gradient* pass. No pass stores S. "acc" below is the accumulation dtype: float64 for float64
inputs, float32 otherwise. What every call makes anew is a plain dataclass and treated as
unchangeable: freezing one costs more than filling it, which small batches feel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

from alc_kernels.positives import Positives


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


Slack = tuple[Tensor, Tensor] | None


@dataclass
class Problem:
    """Prepared embeddings and the relation between them. All tensors on one device."""

    queries: Tensor  # (B, d), compute dtype, contiguous, already normalised and rounded
    labels: Tensor  # (M, d), the same dtype
    positives: Positives  # (B, M); kind may be "empty"
    exclude: Positives  # (B, M); kind may be "empty"
    guard: Tensor | None  # (B,) acc: a negative with s > guard[i] is excluded; None: no guard
    # (B,) and (M,) acc, beside a guard: excluded is s > guard[i] - slack[0][i] * slack[1][j]
    slack: Slack = None
    packed: Tensor | None = None  # what the backend's ``pack``, if it has one, made of the labels

    @cached_property
    def acc(self) -> torch.dtype:
        """Accumulation dtype."""
        return accumulation_dtype(self.queries.dtype)

    def exchanged(self, guard: Tensor | None = None) -> Problem:
        """Labels by queries. ``guard`` is of the labels."""
        positives, exclude = self.positives.transpose(), self.exclude.transpose()
        slack = None if guard is None or self.slack is None else self.slack[::-1]
        return Problem(self.labels, self.queries, positives, exclude, guard, slack)


@dataclass(frozen=True)
class WalkGradient:
    """An offer to make the gradient of the request's softmax or sigmoid loss during the walk.

    A backend may take it up (it then has the similarities at hand, and saves a product) by adding
    to the two tensors what ``dense_gradient`` would add for the same loss, and by setting
    ``RowStatistics.gradient``; or ignore it.
    """

    # (num_positives, num_negatives), (B,) int64 each -> (B,) acc: ``GradientRequest.row_scale``
    row_scale: Callable[[Tensor, Tensor], Tensor]
    grad_queries: Tensor | None  # (B, d) acc, None: not wanted
    grad_labels: Tensor | None  # (M, d) acc
    want_scalars: bool = False
    # What ``row_scale`` would give, where it is known without counting; else None.
    known_scale: Callable[[], Tensor] | None = None
    fresh: bool = False  # the two tensors hold nothing yet: to be written, not added to


@dataclass
class WalkRequest:
    """What the walk should leave per row. What is not asked for costs nothing."""

    top_k: int = 0  # that many hardest negatives per row
    hardest_positive: bool = False
    # log-sum-exp of z = s * inverse_temperature + label_offset over all non-excluded labels
    # ("all") or the negatives only ("negatives"), and the sum of z over the positives
    softmax: Literal["all", "negatives"] | None = None
    inverse_temperature: Tensor | None = None  # 0-d, acc
    label_offset: Tensor | None = None  # (M,), acc
    # sum over non-excluded j of softplus(-y (scale s + bias)), y = +1 positive, -1 negative
    sigmoid: bool = False
    scale: Tensor | None = None  # 0-d, acc
    bias: Tensor | None = None  # 0-d, acc
    # The same for the columns, z = s * inverse_temperature without an offset, from the same pass.
    # A backend may leave it in ``RowStatistics.columns``, or ignore it; never with a guard.
    columns: Literal["all", "negatives"] | None = None
    # threshold sums over positives with s <= positive_margin, negatives with s >= negative_margin
    positive_margin: float | None = None
    negative_margin: float | None = None
    # The backend may leave a list of the pairs within the margins in ``RowStatistics.active``.
    keep_active: bool = False
    gradient: WalkGradient | None = None


@dataclass
class RowStatistics:
    """What a walk found, (B,) acc unless said. Fields not asked for are None."""

    num_positives: Tensor  # (B,) int64, always
    num_negatives: Tensor  # (B,) int64, always: neither positive nor excluded nor above the guard
    top_score: Tensor | None = None  # (B, k), descending, equal scores by smaller label; -inf
    top_index: Tensor | None = None  # (B, k) int64, -1 where missing
    positive_score: Tensor | None = None  # smallest positive similarity, +inf where none
    positive_index: Tensor | None = None  # (B,) int64, ties by smaller label, -1 where none
    log_sum_exp: Tensor | None = None  # -inf over an empty set
    positive_logit_sum: Tensor | None = None  # sum of z over the positives
    sigmoid_sum: Tensor | None = None
    positive_margin_sum: Tensor | None = None  # sum of (positive_margin - s) over active positives
    positive_margin_count: Tensor | None = None  # (B,) int64
    negative_margin_sum: Tensor | None = None  # sum of (s - negative_margin) over active negatives
    negative_margin_count: Tensor | None = None  # (B,) int64
    # These four over all rows, where the backend adds them up: the positives' number, then the
    # negatives', 0 for a side not asked for.
    margin_sums: Tensor | None = None  # (2,) acc
    margin_counts: Tensor | None = None  # (2,) int64
    # The backend's own list of active pairs, for ``GradientRequest.active``; None: it has none.
    active: object | None = None
    # Of the base loss, when the walk has made it (see ``WalkGradient``).
    gradient: GradientResult | None = None
    # Of the exchanged problem (labels as rows): its counts and what ``WalkRequest.columns`` asks
    # for. A backend that leaves it takes up ``GradientRequest.columns``.
    columns: RowStatistics | None = None
    # (B, M) acc beside ``columns``, where ``keep_active`` asks for what the gradient can use and S
    # is small: for ``GradientRequest.similarities``, once. None: not kept.
    similarities: Tensor | None = None


@dataclass(frozen=True)
class GradientRequest:
    """The coefficients G = dL/dS of a gradient pass, as a formula of s and numbers per row.

    kind "softmax":   G = row_scale/T * (exp(z - log_sum_exp) [non-excluded] - [positive]/P)
    kind "decoupled": G = row_scale/T * (negative_scale exp(z - log_sum_exp)  on negatives;
                                          -sigmoid(log_sum_exp - z)/P         on positives)
    kind "sigmoid":   G = row_scale * scale * (-y sigmoid(-y x)),  x = scale s + bias
    and added to it, when the margins are given,
        -positive_margin_scale on positives with s <= positive_margin,
        +negative_margin_scale on negatives with s >= negative_margin.
    P = num_positives, 1/T = inverse_temperature. Rows whose row_scale is 0 contribute exactly 0
    to the first part, whatever their log_sum_exp.
    """

    kind: Literal["softmax", "decoupled", "sigmoid"] | None
    row_scale: Tensor | None = None  # (B,) acc
    num_positives: Tensor | None = None  # (B,) int64
    log_sum_exp: Tensor | None = None  # (B,) acc
    negative_scale: Tensor | None = None  # (B,) acc
    inverse_temperature: Tensor | None = None  # 0-d acc
    label_offset: Tensor | None = None  # (M,) acc
    scale: Tensor | None = None  # 0-d acc
    bias: Tensor | None = None  # 0-d acc
    positive_margin: float | None = None
    positive_margin_scale: Tensor | None = None  # 0-d acc
    negative_margin: float | None = None
    negative_margin_scale: Tensor | None = None  # 0-d acc
    want_scalars: bool = False  # the two sums below, for the temperature, scale and bias gradients
    # ``RowStatistics.active`` of the walk with the same margins: where few pairs are active, the
    # margins' part is the sum over them.
    active: object | None = None
    # A softmax kind of the exchanged problem ((M,) numbers, no offset): its coefficients,
    # transposed, are added to G. Only after a walk that left ``RowStatistics.columns``.
    columns: GradientRequest | None = None
    # ``RowStatistics.similarities`` of that walk; the pass overwrites them.
    similarities: Tensor | None = None
    fresh: bool = False  # as in ``WalkGradient``, of the tensors that ``dense_gradient`` adds to


@dataclass
class GradientResult:
    """Sums per row of the base part's coefficients (without the margins' part), when asked for.

    With ``GradientRequest.columns`` g includes theirs.

    With g = dL/dz (softmax kinds) or dL/dx (sigmoid): weighted_sum = sum_j g_ij s_ij and
    plain_sum = sum_j g_ij, both (B,) acc. (G = g * inverse_temperature, or g * scale.)
    """

    weighted_sum: Tensor | None = None
    plain_sum: Tensor | None = None


# Several prefix widths at once: the product of two prefixes is a partial sum of the full product,
# so one walk over the tiles meets S of every width on its way.


@dataclass
class PrefixProblem:
    """Embeddings compared at several widths: for each w of ``widths``,

    s_ij = (queries[i, :w] . labels[j, :w]) * query_scale[i] * label_scale[j].
    """

    queries: Tensor  # (B, d), compute dtype, contiguous, d >= widths[-1]
    labels: Tensor  # (M, d), the same dtype
    positives: Positives  # (B, M); kind may be "empty"
    exclude: Positives  # (B, M); kind may be "empty"
    widths: tuple[int, ...]  # ascending, each once
    query_scale: Tensor | None  # (W, B) acc inverse norms, 0 for zero rows; None: no scaling
    label_scale: Tensor | None  # (W, M) acc; None with ``query_scale``
    guard: Tensor | None  # (W, B) acc: see ``interface.Problem``
    slack: Slack = None  # (W, B) and (W, M) acc

    @cached_property
    def acc(self) -> torch.dtype:
        """Accumulation dtype."""
        return accumulation_dtype(self.queries.dtype)


@dataclass(frozen=True)
class PrefixSides:
    """One width's rows for the products of its gradient, and where those go."""

    queries: Tensor  # (B, w), compute dtype, normalised
    labels: Tensor  # (M, w)
    grad_queries: Tensor | None  # (B, w) acc, added to; None: not wanted
    grad_labels: Tensor | None  # (M, w) acc


@dataclass(frozen=True)
class PrefixTargets:
    """Where a gradient of all widths at once goes: that by the rows before their norms.

    With G the coefficients of a width and f, q, k its weight and scales, the coordinate c of row i
    gets the sum over the widths w > c of f q_i sum_j G_ij k_j labels[j, c]: one product with the
    sum of the widths' scaled coefficients. The rest of the gradient, -f q_i^2 (sum_j G_ij s_ij)
    queries[i, c], needs the sums of G s alone.
    """

    weights: tuple[float, ...]
    grad_queries: Tensor  # (B, d) acc, added to
    grad_labels: Tensor  # (M, d) acc
    query_dots: Tensor  # (W, B) acc, added to: sum over the labels of G s
    label_dots: Tensor  # (W, M) acc


class Backend(Protocol):
    """A module with these functions is a backend."""

    def normalize_rows(
        self, x: Tensor, dtype: torch.dtype, normalize: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Unit rows, rounded once.

        Args:
            x: (n, d) floating point, any strides.
            dtype: compute dtype of the result. x is normalised in acc, rounded to its own
                dtype, then (if another) to ``dtype``.
            normalize: False only converts.

        Returns:
            rows (n, d) contiguous in ``dtype`` (zeros for a row with norm <= 1e-12); the
            inverse norms (n,) acc, 0 for zero rows, or None; and ``finite``, a 0-d bool tensor:
            every element of x is finite. Large finite rows must not overflow in the norm.
        """
        ...

    def normalize_both(
        self, queries: Tensor, labels: Tensor, dtype: torch.dtype, normalize: bool
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor]:
        """``normalize_rows`` of both sides.

        Returns:
            rows and inverse norms of the queries, then of the labels; and ``poison``, 0-d acc of
            ``dtype``: 1 when every element of both is finite, else NaN.
        """
        ...

    def normalize_rows_backward(
        self, grad: Tensor, x: Tensor, inverse_norm: Tensor | None, upstream: Tensor
    ) -> Tensor:
        """(n, d) gradient of x in x.dtype from ``grad`` (n, d) acc, times ``upstream`` (0-d acc).

        With u = x * inverse_norm in acc: upstream * inverse_norm * (grad - u (u . grad)),
        rounded once; exactly 0 for zero rows. ``inverse_norm`` None: upstream * grad.
        """
        ...

    def score_pairs(self, problem: Problem, index: Tensor) -> Tensor:
        """(B, t) acc: s of row i with label index[i, t]; 0 where the index is -1."""
        ...

    def walk(self, problem: Problem, request: WalkRequest) -> RowStatistics:
        """One pass over the similarities."""
        ...

    def positive_pass(
        self,
        problem: Problem,
        log_sum_exp: Tensor,
        inverse_temperature: Tensor,
        label_offset: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Per row, over its positives: sums of softplus(lse - z) and of sigmoid(lse - z).

        Both (B,) acc; for the decoupled softmax, whose denominator is known only after a walk.
        """
        ...

    def dense_gradient(
        self,
        problem: Problem,
        request: GradientRequest,
        grad_queries: Tensor | None,
        grad_labels: Tensor | None,
    ) -> GradientResult:
        """Add G K to ``grad_queries`` (B, d) acc and G^T Q to ``grad_labels`` (M, d) acc.

        In row chunks of bounded memory. None: that side is not wanted and costs nothing.
        """
        ...

    def prefix_walk(
        self, problem: PrefixProblem, request: WalkRequest, targets: Callable[[], PrefixTargets]
    ) -> list[RowStatistics] | None:
        """One walk; the statistics per width. None: not served, a walk per width follows.

        ``request`` does not ask for ``columns``. Its ``gradient`` is of any width, as row scales
        and what is wanted are those of all; what is made of it is added to what ``targets``
        returns.
        """
        ...

    def prefix_gradient(
        self,
        problem: PrefixProblem,
        requests: list[GradientRequest],
        sides: list[PrefixSides],
        targets: Callable[[], PrefixTargets],
    ) -> bool:
        """``dense_gradient`` of every width from one walk; False: not served.

        Added to ``sides``, or to what ``targets`` returns, or some widths here and some there.
        No request wants sums for scalars, nor asks for ``columns``.
        """
        ...

    def pair_gradient(
        self,
        problem: Problem,
        index: Tensor,
        coefficient: Tensor,
        grad_queries: Tensor | None,
        grad_labels: Tensor | None,
        deterministic: bool,
    ) -> None:
        """Add the gradient of sum_it coefficient[i, t] * s(i, index[i, t]) (index -1: nothing).

        index (B, t) int64, coefficient (B, t) acc. ``deterministic``: bitwise repeatable.
        """
        ...

    def pair_logits(self, problem: Problem, index: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, t) acc: weight . [a; b; |a-b|; a*b] + bias, a = query i, b = label index[i, t].

        weight (4d,) and bias (0-d), acc. 0 where the index is -1. Never stores the 4d features.
        """
        ...

    def pair_logits_backward(
        self,
        problem: Problem,
        index: Tensor,
        weight: Tensor,
        grad: Tensor,
        grad_queries: Tensor | None,
        grad_labels: Tensor | None,
        deterministic: bool,
    ) -> Tensor:
        """Add the embedding gradients for ``grad`` (B, t) acc; return that of weight, (4d,) acc."""
        ...


NormalizeRows = Callable[[Tensor, torch.dtype, bool], tuple[Tensor, Tensor | None, Tensor]]
Both = tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor]


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
        finite = (finite_queries & finite_labels).to(accumulation_dtype(dtype))
        return unit_queries, inverse_queries, unit_labels, inverse_labels, finite / finite

    return normalize_both
