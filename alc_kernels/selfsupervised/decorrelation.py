"""Canonical-correlation loss: two views agree in every dimension, and dimensions do not repeat."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.selfsupervised.inputs import check_positive, check_views

EPSILON = 1e-8  # added to a variance: a constant column gives 0 and a finite gradient, not NaN


def cca_loss(first: Tensor, second: Tensor, *, decorrelation: float = 1e-3) -> Tensor:
    """``||A - B||² + λ ( ||AᵀA - I||² + ||BᵀB - I||² )``, squared Frobenius norms.

    A and B are the views with each column centred, divided by its standard deviation (of the
    population) and by √N, so that AᵀA (d x d) is the correlation matrix of the columns. Nothing
    of size N x N is formed: no negatives, memory O(N d + d²).

    Args:
        first, second: (N, d), two views of N rows, N at least 2; float16 and bfloat16 are
            computed in float32.
        decorrelation: λ, above 0. The first term is at most 4d, each of the others at most d².
            CCA-SSG searches 1e-4 to 1e-3 in its code, where λ is half of ours, so 2e-4 to 2e-3
            here: the code trains on ``-tr AᵀB + λ (...)``, which is half of this loss at 2 λ, less
            d. It also divides by the standard deviation of the sample (N - 1), so that its
            correlations are (N - 1) / N of these.

    Returns:
        0-d, float32 or float64. 0 for views that are perfectly correlated column by column and
        uncorrelated between columns.

    Raises:
        TypeError, ValueError: views of different shapes, fewer than 2 rows, λ not above 0.

    Source: Zhang et al., "From canonical correlation analysis to self-supervised graph neural
    networks" (CCA-SSG), NeurIPS 2021, arXiv 2106.12484; one of the tasks that Kolodner et al.,
    arXiv 2409.14682, add to embedding-based retrieval.
    """
    check_views(first, second)
    weight = check_positive("decorrelation", decorrelation)
    if first.shape[0] < 2:
        raise ValueError(f"first: expected at least 2 rows, got {first.shape[0]}")
    kind = first.device.type
    with torch.autocast(kind, enabled=False):  # a sum of squares over rows: not in half precision
        a, b = _standardised(first), _standardised(second)
        return (a - b).square().sum() + weight * (_redundancy(a) + _redundancy(b))


def _standardised(view: Tensor) -> Tensor:
    view = view if view.dtype in (torch.float32, torch.float64) else view.float()
    centred = view - view.mean(dim=0)
    variance = centred.square().mean(dim=0)
    return centred / (variance + EPSILON).sqrt() / view.shape[0] ** 0.5  # (N, d)


def _redundancy(view: Tensor) -> Tensor:
    correlation = view.T @ view  # (d, d)
    identity = torch.eye(view.shape[1], dtype=view.dtype, device=view.device)
    return (correlation - identity).square().sum()
