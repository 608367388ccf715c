"""The false-negative guard: each row's limit, and what rounding may lift over it.

A negative is excluded with s_ij > s_i,first - exclude_above - eta_ij, eta_ij = ``rounding`` times
the norms of the two rows: two scores that are equal but for their rounding, as those of an exact
copy of the positive are, then always fall on the same side, whatever order a backend sums in.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from alc_kernels.engine.interface import Slack, accumulation_dtype

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
    size = functional.pad(wide.abs(), (0, 1)).amax(dim=1)  # d may be 0
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
