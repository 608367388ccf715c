"""Mutual information between categorical features, counted on a training set.

    I(A; B) = Σ_ab p(a, b) log( p(a, b) / (p(a) p(b)) )        in nats

with the relative frequencies of the rows as probabilities (the plug-in estimate): exact for the
rows given, and for few rows and large vocabularies too large as an estimate of the source, by
about (V_A - 1)(V_B - 1) / 2N nats (Miller, "Note on the bias of information estimates", 1955).
Only pairs of values that occur are counted, so memory is O(N) and never V_A × V_B.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.selfsupervised.inputs import check_features


def mutual_information(features: Tensor) -> Tensor:
    """Mutual information of every pair of features.

    Args:
        features: (N, F) integers at least 0, N at least 1: one value of each feature per row.
            Take the rows of the training set; each item once, or as often as it is trained on.

    Returns:
        (F, F) float64 in nats, symmetric, at least 0; the diagonal holds the entropies.

    Raises:
        TypeError: not an integer tensor.
        ValueError: another number of dimensions, no rows, or a negative value.
    """
    features = check_features(features)
    if features.shape[0] == 0:
        raise ValueError("features: expected at least one row, got none")
    if bool((features < 0).any()):
        raise ValueError("features: expected values of at least 0, got a negative one")
    dense = [torch.unique(column, return_inverse=True)[1] for column in features.unbind(1)]
    single = torch.stack([_entropy_of(column) for column in dense])  # (F,)
    result = torch.diag(single)
    for a, column in enumerate(dense):
        for b in range(a):
            pair = column * (int(dense[b].max()) + 1) + dense[b]  # N values at most: no overflow
            shared = single[a] + single[b] - _entropy_of(pair)
            result[a, b] = result[b, a] = shared.clamp_min(0)  # rounding only
    return result


def entropy(features: Tensor) -> Tensor:
    """Entropy of each feature, (F,) float64 in nats; arguments as :func:`mutual_information`."""
    return mutual_information(features).diagonal().clone()


def _entropy_of(values: Tensor) -> Tensor:
    """H = log N - Σ_v n_v log(n_v) / N of the values (N,)."""
    counts = torch.unique(values, return_counts=True)[1].double()
    total = counts.sum()
    return total.log() - (counts * counts.log()).sum() / total
