"""Rows for a walk over several prefix widths: one rounding, an inverse norm per width."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels.engine.interface import Backend, accumulation_dtype

SMALL = 1e-24  # elements of a row up to this are those of a zero row


@dataclass(frozen=True)
class PrefixRows:
    """One side's embeddings."""

    rows: Tensor  # (n, d) compute dtype, contiguous: x times a power of two per row
    scales: Tensor | None  # (W, n) acc: what makes a prefix of ``rows`` a unit vector
    power: Tensor | None  # (n,) acc: x / rows; None with ``scales``
    # Per width, as the plain losses have them: unit prefixes (n, w), inverse norms of x (n,)
    units: list[Tensor]
    inverse: list[Tensor | None]
    finite: Tensor  # 0-d bool, all of x

    def exact(self, n: int) -> Tensor:
        """(n, w) acc: the prefixes that a walk compares at width number ``n``, not rounded."""
        prefix = self.rows[:, : self.units[n].shape[1]].to(accumulation_dtype(self.rows.dtype))
        return prefix.contiguous() if self.scales is None else prefix * self.scales[n, :, None]


def prefix_rows(
    backend: Backend, x: Tensor, dtype: torch.dtype, normalize: bool, widths: tuple[int, ...]
) -> PrefixRows:
    """Prepare ``x`` (n, d). The power of two keeps products in range and rounds nothing.

    It gets the norm of the widest prefix into (1, 2]; that of float16 rows their largest element
    into [2^14, 2^15), so that no element of float16 input falls below its range.
    """
    made = [backend.normalize_rows(x[:, :w].contiguous(), dtype, normalize) for w in widths]
    units, inverse = [unit for unit, _, _ in made], [norm for _, norm, _ in made]
    finite = made[-1][2] if widths[-1] == x.shape[1] else torch.isfinite(x).all()
    if not normalize:
        return PrefixRows(x.to(dtype).contiguous(), None, None, units, inverse, finite)
    wide = x.to(accumulation_dtype(x.dtype))
    if torch.float16 in (x.dtype, dtype):
        size = wide.abs().amax(dim=1)
        power = size / (2.0 * torch.frexp(size).mantissa)  # 2^e, size in [2^e, 2^(e+1))
        power = torch.where(size > SMALL, power, 1.0) * 2.0**-14
    else:
        assert inverse[-1] is not None
        length = inverse[-1].to(wide.dtype)
        power = torch.frexp(length).mantissa / length  # 2^e, 1 / length in (2^e, 2^(e+1)]
        power = torch.where(length > 0, power, 1.0)
    rows = (wide / power[:, None]).to(x.dtype).to(dtype).contiguous()
    acc = accumulation_dtype(dtype)
    lengths = torch.stack([norm for norm in inverse if norm is not None])  # (W, n)
    largest = torch.finfo(acc).max
    scales = (lengths * power).to(acc).clamp(max=largest)
    return PrefixRows(rows, scales, power.to(acc), units, inverse, finite)


# The gradient that a backend makes of a dense loss at all prefix widths at once.


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
