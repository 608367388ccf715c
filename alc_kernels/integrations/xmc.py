"""Criteria for the training code of NGAME, DEXA, PRIME and ViXML.

First step, one line: :class:`SimilarityCriterion` has their call, ``criterion(output, target,
mask)`` with a stored (B, M) similarity matrix, and computes base loss and TCM in plain PyTorch.
Second step: :class:`EmbeddingCriterion` takes the embeddings instead. The matrix is then never
stored, and ALC's auxiliary parts, which need the embeddings, become possible.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from alc_kernels.losses.alc_loss import DEFAULT_AUXILIARY, DEFAULT_BASE, DEFAULT_THRESHOLD, ALCLoss
from alc_kernels.positives import Positives
from alc_kernels.reference.batch import Batch, Relation, pick
from alc_kernels.reference.mining import largest, threshold_parts
from alc_kernels.reference.total import base_value
from alc_kernels.settings import Auxiliary, Base, DynamicTriplet, ThresholdMargin, Triplet

Choice = Literal["diagonal", "random"]


class SimilarityCriterion(nn.Module):
    """base_weight L_base + L_TCM of a stored similarity matrix.

    Plain PyTorch, as memory hungry as what it replaces. ALC's auxiliary parts need embeddings:
    see :class:`EmbeddingCriterion`.

    Args:
        base: a base loss, its name, or None, as for :class:`alc_kernels.ALCLoss`.
            ``DynamicTriplet(0.1, 0.3, num_negatives=k)`` has the value and the gradient of PRIME
            and ViXML with their ``custom`` reduction (ViXML "aggressive"), as published;
            ``Triplet(0.3, num_negatives=k)`` those of DEXA, times k. With equal margins, and with
            PRIME's ``margin_min=0``, the margin is fixed: ``Triplet``. Not "aggressive":
            ``weight_temperature=None``. (NGAME gives inactive negatives a share of the weights;
            ours are DEXA's.)
        threshold: :class:`alc_kernels.ThresholdMargin` or None.
        base_weight: weight of the base term. 1/k is the value of NGAME and DEXA, whose ``mean``
            divides the weighted sum by k; a threshold loss at weight 1 then outweighs it, so give
            it the same factor, or leave both at 1 (AdamW steps alike, up to its epsilon).
        positive: which positive a row's triplets use: ``"diagonal"`` (NGAME, DEXA) or one drawn
            at ``"random"`` in each call (PRIME, ViXML).
        num_violators: return (loss, mean number of active negatives per row), as ViXML expects;
            for triplets.

    Raises:
        ValueError, TypeError: a setting is off.
    """

    def __init__(
        self,
        base: Base | str | None = DEFAULT_BASE,
        threshold: ThresholdMargin | None = DEFAULT_THRESHOLD,
        base_weight: float = 1.0,
        *,
        positive: Choice = "diagonal",
        num_violators: bool = False,
    ) -> None:
        super().__init__()
        _check_choice(positive)
        # checks the settings and holds learnable scalars
        self.settings = ALCLoss(
            base=base, auxiliary=None, threshold=threshold, base_weight=base_weight
        )
        self.positive = positive
        self.num_violators = num_violators
        if num_violators and not isinstance(self.settings.base, Triplet | DynamicTriplet):
            raise ValueError(f"num_violators: expected a triplet base, got base={base!r}")

    def forward(
        self, output: Tensor, target: Tensor, mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The loss, 0-d float32 (float64 for float64).

        Args:
            output: (B, M) similarities, any floating dtype.
            target: (B, M), 1 (or True) where label j is right for query i.
            mask: (B, M) bool or None; where False a pair is neither positive nor negative.
        """
        _check_matrices(output, target, mask, self.positive)
        with torch.autocast(output.device.type, enabled=False):
            s = output if output.dtype == torch.float64 else output.float()
            relation = _relation(target, mask, self.positive)
            batch = Batch(s, s, s, torch.isfinite(s).all(), (s, s.new_zeros(())))
            loss = self._value(batch, relation)
            return (loss, self._violators(s, relation)) if self.num_violators else loss

    def _value(self, batch: Batch, relation: Relation) -> Tensor:
        settings = self.settings
        loss = batch.attach(batch.similarity.new_zeros(()))
        base = settings.current_base()
        if base is not None:
            loss = loss + settings.base_weight * base_value(
                batch, relation, base, exclude_above=None, label_offset=None, row_weight=None
            )
        if settings.threshold is not None:
            positive, negative, _, _ = threshold_parts(batch, relation, settings.threshold)
            loss = loss + settings.threshold.positive_weight * positive
            loss = loss + settings.threshold.negative_weight * negative
        return loss

    def on_embeddings(
        self,
        embedding_dim: int | None = None,
        auxiliary: Auxiliary | None = DEFAULT_AUXILIARY,
        *,
        backend: str = "auto",
        deterministic: bool = False,
    ) -> EmbeddingCriterion:
        """The same settings for embeddings, with ALC's auxiliary parts.

        Args:
            embedding_dim, auxiliary, backend, deterministic: as for :class:`EmbeddingCriterion`.
        """
        settings = self.settings
        return EmbeddingCriterion(
            embedding_dim, settings.base, auxiliary, settings.threshold, settings.base_weight,
            positive=self.positive, backend=backend, deterministic=deterministic,
        )  # fmt: skip

    @torch.no_grad()
    def _violators(self, s: Tensor, relation: Relation) -> Tensor:
        """Mean over rows of the negatives that have a loss, among the hardest."""
        base = self.settings.base
        assert isinstance(base, Triplet | DynamicTriplet)
        margin = base.margin if isinstance(base, Triplet) else base.min_margin
        hardest = largest(s, relation.negatives(s), base.num_negatives)  # (B, k)
        lead = pick(s, relation.first[:, None]) - pick(s, hardest)
        active = (lead < margin) & (hardest >= 0) & (relation.first >= 0)[:, None]
        return active.sum(dim=1).to(s.dtype).mean()


class EmbeddingCriterion(nn.Module):
    """:class:`alc_kernels.ALCLoss` with a 0/1 target: queries, labels, target, mask.

    Args:
        embedding_dim, base, auxiliary, threshold, base_weight, backend, deterministic: as for
            :class:`alc_kernels.ALCLoss`. Give the parameters (the heads) to the optimizer.
        positive: as for :class:`SimilarityCriterion`.
    """

    def __init__(
        self,
        embedding_dim: int | None = None,
        base: Base | str | None = DEFAULT_BASE,
        auxiliary: Auxiliary | None = DEFAULT_AUXILIARY,
        threshold: ThresholdMargin | None = DEFAULT_THRESHOLD,
        base_weight: float = 1.0,
        *,
        positive: Choice = "diagonal",
        backend: str = "auto",
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        _check_choice(positive)
        self.positive = positive
        self.loss = ALCLoss(
            embedding_dim, base, auxiliary, threshold, base_weight, True, backend, deterministic
        )

    def forward(
        self,
        queries: Tensor,
        labels: Tensor,
        target: Tensor | Positives,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The loss, 0-d.

        Args:
            queries: (B, d).
            labels: (M, d).
            target: (B, M), 1 (or True) where label j is right for query i; or
                :class:`alc_kernels.Positives`, which stores no matrix at all (``positive`` does
                not apply: its first positive is the one it says).
            mask: (B, M) bool or None; where False a pair is neither positive nor negative.
        """
        exclude = None if mask is None else Positives.from_dense(~mask.to(queries.device))
        if isinstance(target, Positives):  # a pair in both is positive
            loss: Tensor = self.loss(queries, labels, target, exclude)
            return loss
        shape = (queries.shape[0], labels.shape[0])
        if tuple(target.shape) != shape:
            raise ValueError(f"target: expected shape {shape}, got {tuple(target.shape)}")
        right = target.to(queries.device) > 0  # (B, M)
        if mask is not None:
            right = right & mask.to(queries.device)
        rows, cols = right.nonzero(as_tuple=True)
        # the first pair given is the row's first positive
        if self.positive == "random":
            order = torch.randperm(rows.numel(), device=rows.device)
        else:
            order = torch.argsort((rows != cols).to(torch.int8), stable=True)
        positives = Positives.from_pairs(rows[order], cols[order], shape)
        loss = self.loss(queries, labels, positives, exclude)
        return loss


def _relation(target: Tensor, mask: Tensor | None, choice: Choice) -> Relation:
    positive = target > 0  # (B, M)
    excluded = torch.zeros_like(positive)
    if mask is not None:
        positive, excluded = positive & mask, ~mask
    first = _first(positive, choice)
    valid = torch.ones((), dtype=torch.bool, device=target.device)
    return Relation(positive, excluded, first, _first(positive.T, choice), valid)


def _first(positive: Tensor, choice: Choice) -> Tensor:
    """(B,): the positive that a row's triplets use, -1 without any; on the diagonal if it is."""
    weight = positive.to(torch.float32)
    if choice == "random":
        weight = weight * (1.0 + torch.rand_like(weight))  # the largest of equals, at random
    else:
        weight.diagonal().mul_(2.0)
    if positive.shape[1] == 0:
        return torch.full(positive.shape[:1], -1, device=positive.device)
    best, index = weight.max(dim=1)
    return torch.where(best > 0, index, -1)


def _check_choice(positive: str) -> None:
    if positive not in ("diagonal", "random"):
        raise ValueError(f"positive={positive!r}: expected 'diagonal' or 'random'")


def _check_matrices(output: Tensor, target: Tensor, mask: Tensor | None, choice: str) -> None:
    if output.dim() != 2 or not output.is_floating_point():
        raise ValueError(
            f"output: expected similarities (B, M), got {output.dtype}, {tuple(output.shape)}"
        )
    for name, x in (("target", target), ("mask", mask)):
        if x is not None and x.shape != output.shape:
            raise ValueError(
                f"{name}: expected shape {tuple(output.shape)} as output, got {tuple(x.shape)}"
            )
        if x is not None and x.device != output.device:
            raise ValueError(f"{name}: expected device {output.device} as output, got {x.device}")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask: expected booleans, got {mask.dtype}")
