"""The library's labels, reference labels and index tuples as a sparse relation."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from alc_kernels.integrations import equal_pairs
from alc_kernels.positives import Positives

Indices = tuple[Tensor, ...] | None
_NAN = 0x7FF8_0000_0000_0000  # as float64 it and the larger integers are NaN
# What of an index tuple counts as often as it is named; everything else counts once.
Repeats = Literal["nothing", "negatives", "pairs"]


class ClassRelation(NamedTuple):
    """Which rows of ``ref_emb`` match which rows of ``embeddings``."""

    positives: Positives  # (B, M)
    exclude: Positives | Tensor | None
    members: Tensor  # (B,) bool: rows with at least one positive and one negative
    # (M,) int64: the row of ``ref_emb`` that each column shows, where a tuple names pairs more than
    # once; None: as they are.
    columns: Tensor | None = None


def class_relation(
    labels: Tensor | None, ref_labels: Tensor | None, indices: Indices, shape: tuple[int, int],
    same: bool, device: torch.device, repeats: Repeats = "nothing",
) -> ClassRelation:  # fmt: skip
    """The relation of one call.

    Args:
        labels: (B,) integers, floats or booleans, or None where ``indices`` says all.
        ref_labels: (M,), likewise.
        indices: None, (anchors, positives, negatives), or (anchors, positives, anchors,
            negatives). Pairs that it does not name take no part; B x M of them are then stored.
        shape: (B, M).
        same: the embeddings are compared with themselves: a row is not its own positive.
        device: where the embeddings live.
        repeats: with ``indices``, what counts as often as it is named.

    Raises:
        ValueError: neither labels nor indices, labels missing on one side, or a tuple of another
            length.
    """
    if indices is not None:
        return _from_indices(indices, shape, device, repeats)
    if labels is None or ref_labels is None:
        missing = "labels" if labels is None else "ref_labels"
        raise ValueError(f"{missing}: expected (rows,) labels, or an indices_tuple, got None")
    if same:
        return _with_itself(_as_ids(labels, labels)[0])
    return _with_reference(*_as_ids(labels, ref_labels))


def _as_ids(labels: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """int64 of both, equal where the labels are equal."""
    both = labels, others
    if not any(x.is_floating_point() for x in both):
        return labels.to(torch.int64), others.to(torch.int64)
    common = torch.promote_types(labels.dtype, others.dtype)
    ids = []
    for side, x in enumerate(both):
        wide = x.to(common).to(torch.float64) + 0.0  # -0.0 is 0.0
        # A NaN equals nothing, so each gets bits of its own that no number has.
        nans = _NAN + 2 * torch.arange(x.numel(), device=x.device) + side
        ids.append(torch.where(wide.isnan(), nans, wide.view(torch.int64)))
    return ids[0], ids[1]


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


def _from_indices(
    indices: Indices, shape: tuple[int, int], device: torch.device, repeats: Repeats
) -> ClassRelation:
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
    columns = None
    if repeats != "nothing":
        positives = is_positive.to(torch.int64)
        if repeats == "pairs":
            positives = _count(anchor, positive, shape, device)
        negatives = _count(other, negative, shape, device)
        columns = _repeated_columns(positives + negatives)
    if columns is not None:
        # A column is one of its row's copies: an anchor's positives come first, then its negatives.
        column, copy = columns
        of_positive, of_all = positives[:, column], (positives + negatives)[:, column]
        is_positive, is_negative = copy < of_positive, (copy >= of_positive) & (copy < of_all)
    unnamed = ~(is_positive | is_negative)
    relation = Positives.from_dense(is_positive), Positives.from_dense(unnamed)
    return ClassRelation(*relation, members, None if columns is None else columns[0])


def _count(rows: Tensor, cols: Tensor, shape: tuple[int, int], device: torch.device) -> Tensor:
    """(B, M) int64: how often each pair is listed."""
    count = torch.zeros(shape, dtype=torch.int64, device=device)
    return count.index_put_((rows, cols), count.new_ones(()), accumulate=True)


def _repeated_columns(count: Tensor) -> tuple[Tensor, Tensor] | None:
    """Every column as often as the row that names it most often does; None: once each.

    Returns:
        (columns,) int64 each: the column, and which of its copies this is.
    """
    most = count.amax(dim=0).clamp(min=1) if count.numel() else count.new_ones(count.shape[1])
    total = int(most.sum())
    if total == most.numel():
        return None
    column = torch.repeat_interleave(most, output_size=total)
    start = most.cumsum(0) - most
    return column, torch.arange(total, device=count.device) - start[column]
