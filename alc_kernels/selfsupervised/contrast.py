"""Contrast of two views of the same items, with the other items of the batch as negatives."""

from __future__ import annotations

from torch import Tensor

from alc_kernels.losses.functional import softmax_loss
from alc_kernels.positives import Positives
from alc_kernels.selfsupervised.inputs import check_positive, check_views


def view_contrastive_loss(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float = 0.1,
    item_ids: Tensor | None = None,
    symmetric: bool = False,
    backend: str = "auto",
    process_group: object | None = None,
) -> Tensor:
    """Mean over i of ``-log( exp(cos(z_i, z'_i)/τ) / Σ_j exp(cos(z_i, z'_j)/τ) )``.

    The B x B similarities are never stored (:func:`alc_kernels.losses.functional.softmax_loss`).

    Args:
        first, second: (B, d), the views z and z' of B items, one row each, not normalised.
        temperature: τ, above 0.
        item_ids: (B,) integers. Rows of the same item are then no negatives of each other; None:
            every row is an item of its own.
        symmetric: the mean with the views exchanged as well.
        backend, process_group: as in ``alc_kernels.losses.functional``.

    Returns:
        0-d. A batch without a negative gives 0.

    Raises:
        TypeError, ValueError: views of different shapes, a temperature not above 0, and what
            ``softmax_loss`` raises.

    Source: the self-supervised loss of Yao et al., arXiv 2007.12865, which they add to the main
    loss with a weight α. They draw its items uniformly from the catalogue, not as they occur in
    training, so that the tail is seen.
    """
    check_views(first, second)
    check_positive("temperature", temperature)
    same = None if item_ids is None else Positives.from_ids(item_ids, item_ids)
    return softmax_loss(
        first,
        second,
        exclude=same,  # the diagonal is in it too: a pair in both is positive
        temperature=temperature,
        symmetric=symmetric,
        backend=backend,
        process_group=process_group,
    )
