"""What a backend may provide beside ``interface.Backend`` for losses at several prefix widths.

The product of two prefixes is a partial sum of the full product: one walk over the tiles meets
S of every width on its way. A backend with ``prefix_walk`` gives the statistics of all widths
from it, one with ``prefix_gradient`` the dense gradients of all widths, one with
``prefix_walk_gradient`` both at once; for the others the passes of ``interface.Backend`` run once
per width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from alc_kernels.backends.interface import (
    GradientRequest,
    RowStatistics,
    Slack,
    WalkGradient,
    WalkRequest,
    accumulation_dtype,
)
from alc_kernels.positives import Positives


@dataclass(frozen=True)
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

    @property
    def item_bytes(self) -> int:
        """Of an element in acc."""
        return accumulation_dtype(self.queries.dtype).itemsize


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


class PrefixBackend(Protocol):
    """The optional functions of a backend's module."""

    def prefix_walk(
        self, problem: PrefixProblem, request: WalkRequest
    ) -> list[RowStatistics] | None:
        """One walk; the statistics per width. None: this request is not served.

        ``request`` asks for neither ``columns`` nor ``gradient``.
        """
        ...

    def prefix_walk_gradient(
        self,
        problem: PrefixProblem,
        request: WalkRequest,
        offer: WalkGradient,
        targets: Callable[[], PrefixTargets],
    ) -> list[RowStatistics] | None:
        """The same, taking up ``offer`` at every width; None: not served.

        ``offer``: of any width, as row scales and what is wanted are those of all. ``targets`` is
        called where something will be added to them.
        """
        ...

    def prefix_gradient(
        self,
        problem: PrefixProblem,
        requests: list[GradientRequest],
        sides: list[PrefixSides],
        targets: Callable[[], PrefixTargets],
    ) -> bool:
        """``Backend.dense_gradient`` of every width from one walk; False: not served.

        Added to ``sides``, or to what ``targets`` returns, or some widths here and some there.

        No request wants sums for scalars, nor asks for ``columns``.
        """
        ...
