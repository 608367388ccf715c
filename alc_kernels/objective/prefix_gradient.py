"""The gradient that a backend makes of a dense loss at all prefix widths at once."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.backends.interface import accumulation_dtype
from alc_kernels.objective.prefix_rows import PrefixRows


class JoinedGradient:
    """One side's, by ``PrefixRows.rows`` before their norms: see ``PrefixTargets``."""

    def __init__(self, side: PrefixRows, widths: tuple[int, ...]) -> None:
        self._side, self._widths = side, widths
        self._made: tuple[Tensor, Tensor] | None = None

    def targets(self) -> tuple[Tensor, Tensor]:
        """((n, d), (W, n)) acc: what a backend adds to."""
        if self._made is None:
            rows = self._side.rows
            zeros = torch.zeros(
                rows.shape, dtype=accumulation_dtype(rows.dtype), device=rows.device
            )
            self._made = zeros, zeros.new_zeros(len(self._widths), rows.shape[0])
        return self._made

    def by_embeddings(self, weights: tuple[float, ...]) -> Tensor | None:
        """(n, d) acc: by the embeddings as given; None where nothing was taken up."""
        if self._made is None:
            return None
        grad, dots = self._made
        scales, power = self._side.scales, self._side.power
        if scales is None or power is None:
            return grad
        factor = torch.tensor(weights, dtype=dots.dtype, device=dots.device)[:, None]
        along = factor * scales * scales * dots  # (W, n), of each width
        along = along.flip(0).cumsum(dim=0).flip(0)  # of all widths that have a coordinate
        steps = zip((0, *self._widths), self._widths, strict=False)
        for n, (start, stop) in enumerate(steps):
            part = self._side.rows[:, start:stop].to(grad.dtype)
            grad[:, start:stop].addcmul_(part, along[n, :, None], value=-1.0)
        return grad.div_(power[:, None])
