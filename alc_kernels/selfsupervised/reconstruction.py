"""Masked autoencoder for categorical features: predict the values that a view hides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alc_kernels.losses.functional import softmax_loss
from alc_kernels.selfsupervised.inputs import check_features, check_mask


def masked_reconstruction_loss(
    predictions: Sequence[Tensor],
    tables: Sequence[Tensor],
    features: Tensor,
    masked: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Mean cross-entropy of the hidden values, over all hidden cells (i, f).

    ``-log( exp(p_if · e_fx) / Σ_v exp(p_if · e_fv) )`` for the true value x of feature f of item
    i. The N x V_f logits are never stored (:func:`alc_kernels.losses.functional.softmax_loss`), so
    large vocabularies are no trouble.

    Args:
        predictions: F tensors (N, h): what a decoder makes of the encoded masked view.
        tables: F tensors (V_f, h): one vector per value, V_f at least 2; often the encoder's own
            embeddings without the row for "not shown".
        features: (N, F) integers, the true values, in [0, V_f).
        masked: (N, F) bool, or (1, F) for all rows alike: what was hidden. Visible cells do not
            count.
        backend: as in ``alc_kernels.losses.functional``.

    Returns:
        0-d; 0 if nothing is hidden.

    Raises:
        TypeError, ValueError, IndexError: numbers of features that disagree, a vocabulary of one
            value, a value out of range, and what ``softmax_loss`` raises.

    Source: a masked autoencoder (He et al., arXiv 2111.06377) with the cross-entropy that
    categories ask for; the reconstruction task beside retrieval is one of those in Kolodner et
    al., arXiv 2409.14682.
    """
    features = check_features(features)
    masked = check_mask(masked, features)
    for name, given in (("predictions", predictions), ("tables", tables)):
        if len(given) != features.shape[1]:
            raise ValueError(
                f"{name}: expected one tensor per feature, {features.shape[1]}, got {len(given)}"
            )
    total = torch.zeros((), device=features.device)
    for f, (prediction, table) in enumerate(zip(predictions, tables, strict=True)):
        if table.shape[0] < 2:
            raise ValueError(f"tables[{f}]: expected at least 2 values, got {table.shape[0]}")
        values = softmax_loss(
            prediction,
            table,
            positives=features[:, f].contiguous(),
            temperature=1.0,
            normalize=False,
            reduction="none",
            backend=backend,
        )  # (N,)
        total = total + (values * masked[:, f]).sum()
    return total / masked.sum().clamp_min(1)
