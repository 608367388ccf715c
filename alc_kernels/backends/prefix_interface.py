"""What a backend may provide beside ``interface.Backend`` for losses at several prefix widths.

The product of two prefixes is a partial sum of the full product: one walk over the tiles meets
S of every width on its way. A backend with ``prefix_walk`` gives the statistics of all widths
from it, one with ``prefix_gradient`` the dense gradients of all widths; for the others the passes
of ``interface.Backend`` run once per width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from alc_kernels.backends.interface import (
    GradientRequest,
    RowStatistics,
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


class PrefixBackend(Protocol):
    """The two optional functions of a backend's module."""

    def prefix_walk(
        self, problem: PrefixProblem, request: WalkRequest
    ) -> list[RowStatistics] | None:
        """One walk; the statistics per width. None: this request is not served.

        ``request`` asks for neither ``columns`` nor ``keep_active`` nor ``gradient``.
        """
        ...

    def prefix_gradient(
        self,
        problem: PrefixProblem,
        requests: list[GradientRequest],
        sides: list[PrefixSides],
    ) -> bool:
        """``Backend.dense_gradient`` of every width from one walk; False: not served.

        No request wants sums for scalars, nor asks for ``columns``.
        """
        ...
