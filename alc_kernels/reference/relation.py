"""Positives Y, excluded pairs X and negatives N as dense masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels.positives import Positives
from alc_kernels.reference.similarity import Batch, pick


@dataclass(frozen=True)
class Relation:
    """Dense Y and X. A pair in both is positive."""

    positive: Tensor  # (B, M) bool: Y
    excluded: Tensor  # (B, M) bool: X without Y
    first: Tensor  # (B,) int64: each row's first positive, -1 where none
    first_of_column: Tensor  # (M,) int64: the same for the columns
    valid: Tensor  # 0-d bool: False where a CUDA index was out of range
    # (1, 1) or (B, M): how far rounding may lift a score over the guard; None: not at all
    rounding: Tensor | None = None

    def transpose(self) -> Relation:
        """Rows and columns exchanged."""
        return Relation(
            self.positive.T, self.excluded.T, self.first_of_column, self.first, self.valid,
            None if self.rounding is None else self.rounding.T,
        )  # fmt: skip

    def negatives(self, similarity: Tensor, exclude_above: float | None = None) -> Tensor:
        """(B, M) bool: N = {not Y, not X}, without those above s_first - exclude_above.

        What rounding may have lifted over that counts as above it, so that an exact copy of the
        positive does. The choice is detached. A row without a positive has nothing to compare
        with and keeps all its negatives.
        """
        negative = ~self.positive & ~self.excluded
        if exclude_above is None:
            return negative
        s = similarity.detach()
        guard = pick(s, self.first[:, None]) - exclude_above  # (B, 1)
        if self.rounding is not None:
            guard = guard - self.rounding
        above = (s > guard) & (self.first >= 0)[:, None]
        return negative & ~above


def _as_relation(
    name: str, given: object, shape: tuple[int, int], device: torch.device
) -> tuple[Positives, Tensor]:
    """A Positives of the given shape, and whether its indices were in range (0-d bool)."""
    valid = torch.ones((), dtype=torch.bool, device=device)
    num_queries, num_labels = shape
    if isinstance(given, Tensor):
        integer = not (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool)
        if not integer:
            raise TypeError(f"{name}: expected an integer tensor, got {given.dtype}")
        if given.shape != (num_queries,):
            raise ValueError(
                f"{name}: expected shape ({num_queries},), one label per query, "
                f"got {tuple(given.shape)}"
            )
        if given.device != device:
            raise ValueError(f"{name}: expected device {device}, got {given.device}")
        if given.is_cuda:  # clamped and flagged: raising would make the host wait
            inside = (given >= 0) & (given < num_labels)
            valid = inside.all()
            if num_labels == 0:
                return Positives.from_pairs(given[:0], given[:0], shape), valid
            given = given.clamp(0, num_labels - 1)
        elif given.numel() and not 0 <= int(given.min()) <= int(given.max()) < num_labels:
            bad = int(given.min()) if int(given.min()) < 0 else int(given.max())
            raise IndexError(f"{name}: index {bad} is out of range for {num_labels} labels")
        given = Positives.from_index(given, num_labels)
    if not isinstance(given, Positives):
        raise TypeError(
            f"{name}: expected None, an integer tensor or Positives, got {type(given).__name__}"
        )
    if given.shape != shape:
        raise ValueError(f"{name}: expected shape {shape} (queries, labels), got {given.shape}")
    if given.device is not None and given.device != device:
        raise ValueError(f"{name}: expected device {device}, got {given.device}")
    return given, valid


def resolve(
    batch: Batch, positives: Positives | Tensor | None, exclude: Positives | Tensor | None
) -> Relation:
    """Dense masks from whatever the caller gave.

    Args:
        batch: B queries and M labels.
        positives: None (the diagonal, B == M), (B,) integers or Positives.
        exclude: None, (B,) integers or Positives.

    Raises:
        ValueError, TypeError, IndexError: naming the argument.
    """
    shape = (batch.similarity.shape[0], batch.similarity.shape[1])
    device = batch.similarity.device
    if positives is None:
        if shape[0] != shape[1]:
            raise ValueError(
                f"positives: the default pairs query i with label i and needs as many labels as "
                f"queries, got {shape[0]} queries and {shape[1]} labels; pass positives"
            )
        positives = Positives.diagonal(shape[0])
    given, valid = _as_relation("positives", positives, shape, device)
    y = given.to_dense(device)
    x = torch.zeros_like(y)
    if exclude is not None:
        given_x, valid_x = _as_relation("exclude", exclude, shape, device)
        x, valid = given_x.to_dense(device), valid & valid_x
    firsts = given.first(device), given.transpose().first(device)
    return Relation(y, x & ~y, *firsts, valid, batch.rounding)
