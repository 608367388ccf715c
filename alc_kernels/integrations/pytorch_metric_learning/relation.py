"""The library's labels, reference labels and index tuples as a sparse relation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from alc_kernels.integrations.pairs import equal_pairs
from alc_kernels.positives import Positives

Indices = tuple[Tensor, ...] | None


class ClassRelation(NamedTuple):
    """Which rows of ``ref_emb`` match which rows of ``embeddings``."""

    positives: Positives  # (B, M)
    exclude: Positives | Tensor | None
    members: Tensor  # (B,) bool: rows with at least one positive and one negative


def class_relation(
    labels: Tensor | None, ref_labels: Tensor | None, indices: Indices, shape: tuple[int, int],
    same: bool, device: torch.device,
) -> ClassRelation:  # fmt: skip
    """The relation of one call.

    Args:
        labels: (B,) integers, or None where ``indices`` says all.
        ref_labels: (M,) integers, likewise.
        indices: None, (anchors, positives, negatives), or (anchors, positives, anchors,
            negatives). Pairs that it does not name take no part; B x M of them are then stored.
        shape: (B, M).
        same: the embeddings are compared with themselves: a row is not its own positive.
        device: where the embeddings live.

    Raises:
        ValueError: neither labels nor indices, labels missing on one side, or a tuple of another
            length.
    """
    if indices is not None:
        return _from_indices(indices, shape, device)
    if labels is None or ref_labels is None:
        missing = "labels" if labels is None else "ref_labels"
        raise ValueError(f"{missing}: expected (rows,) integers, or an indices_tuple, got None")
    return _with_itself(labels) if same else _with_reference(labels, ref_labels)


def _with_reference(labels: Tensor, ref_labels: Tensor) -> ClassRelation:
    ranked = torch.sort(ref_labels).values
    count = torch.searchsorted(ranked, labels, right=True) - torch.searchsorted(ranked, labels)
    members = (count > 0) & (count < ref_labels.numel())
    return ClassRelation(Positives.from_ids(labels, ref_labels), None, members)


def _with_itself(labels: Tensor) -> ClassRelation:
    n = labels.numel()
    rows, cols = equal_pairs(labels, labels)
    others = rows != cols
    count = torch.bincount(rows, minlength=n)  # itself included
    positives = Positives.from_pairs(rows[others], cols[others], (n, n))
    own = torch.arange(n, device=labels.device)
    return ClassRelation(positives, own, (count > 1) & (count < n))


def _from_indices(indices: Indices, shape: tuple[int, int], device: torch.device) -> ClassRelation:
    assert indices is not None
    if len(indices) not in (3, 4):
        raise ValueError(
            "indices_tuple: expected (anchors, positives, negatives) or (anchors, positives, "
            f"anchors, negatives), got {len(indices)} tensors"
        )
    triplets = len(indices) == 3
    anchor, positive, other, negative = (
        (indices[0], indices[1], indices[0], indices[2]) if triplets else indices
    )
    is_positive = torch.zeros(shape, dtype=torch.bool, device=device)
    is_negative = torch.zeros_like(is_positive)
    is_positive[anchor, positive] = True
    is_negative[other, negative] = True
    members = is_positive.any(dim=1) & is_negative.any(dim=1)
    unnamed = ~(is_positive | is_negative)
    return ClassRelation(Positives.from_dense(is_positive), Positives.from_dense(unnamed), members)
