"""Losses with the library's call: embeddings, labels, indices_tuple, ref_emb, ref_labels."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.distances import CosineSimilarity, DotProductSimilarity
from pytorch_metric_learning.losses import BaseMetricLossFunction
from pytorch_metric_learning.miners import BaseMiner
from torch import Tensor

from alc_kernels import functional
from alc_kernels.checks import Batch, check_k
from alc_kernels.engine.prepare import check_backend
from alc_kernels.engine.specification import Objective
from alc_kernels.integrations.pytorch_metric_learning.relation import (
    ClassRelation,
    Indices,
    Repeats,
    class_relation,
)
from alc_kernels.losses.alc_loss import DEFAULT_AUXILIARY, DEFAULT_BASE, DEFAULT_THRESHOLD, ALCLoss
from alc_kernels.ops.loss import similarity_loss
from alc_kernels.settings import Auxiliary, Base, Sigmoid, Softmax, ThresholdMargin

# Which of the library's distances the fused losses compute.


def check_distance(owner: object, distance: Any) -> bool:
    """Whether rows are normalised: True for cosine similarity, False for plain products.

    Raises:
        ValueError: any other distance.
    """
    known = isinstance(distance, CosineSimilarity | DotProductSimilarity)
    if not known or distance.power != 1 or distance.p != 2:
        raise ValueError(
            f"{type(owner).__name__}: expected distance CosineSimilarity() or "
            f"DotProductSimilarity(...) with p=2 and power=1, got {distance}"
        )
    return bool(distance.normalize_embeddings)


class _FusedLossFunction(BaseMetricLossFunction):
    """What the losses share: the distance, and the relation of a call."""

    loss: ALCLoss  # computes the value of a call, already reduced
    repeats: Repeats = "nothing"  # what of an index tuple counts as often as it is named

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.normalize = check_distance(self, self.distance)

    def get_default_distance(self) -> CosineSimilarity:
        """Cosine similarity."""
        return CosineSimilarity()

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: Indices,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
    ) -> dict[str, Any]:
        """Called by the library's ``forward``; see the class."""
        relation = class_relation(
            labels, ref_labels, indices_tuple, (embeddings.shape[0], ref_emb.shape[0]),
            ref_emb is embeddings, embeddings.device, self.repeats,
        )  # fmt: skip
        if relation.columns is not None:
            ref_emb = ref_emb[relation.columns]
        found: dict[str, Any] = self._compute(embeddings, ref_emb, relation)
        return found

    def _compute(self, queries: Tensor, labels: Tensor, relation: ClassRelation) -> dict[str, Any]:
        value = self.loss(queries, labels, relation.positives, relation.exclude)
        return {"loss": {"losses": value, "indices": None, "reduction_type": "already_reduced"}}


class FusedLoss(_FusedLossFunction):
    """One value per anchor that has a positive and a negative, for the library's reducers.

    Equal labels (integers, floats or booleans) are positives. Without ``ref_emb`` an anchor is not
    its own positive. Pairs that an ``indices_tuple`` does not name take no part; with one, B x M
    pairs are stored. A pair that it names more than once counts once; only the negatives of a
    decoupled softmax count as often as they are named, as in ``NTXentLoss`` (a reference row is
    then computed as often as an anchor names it). Half embeddings give a float32 loss.

    Where both are defined the values are the library's: ``Softmax(t)`` with
    ``AvgNonZeroReducer()`` is ``SupConLoss(t)``; ``Softmax(t, decoupled=True)`` is
    ``NTXentLoss(t, reducer=PerAnchorReducer())`` where every anchor has a positive;
    ``Triplet(m, num_negatives=1, weight_temperature=None, positive="hardest")`` is
    ``TripletMarginLoss(m, distance=CosineSimilarity(), reducer=MeanReducer())`` on the triplets
    of ``BatchHardMiner``.

    Args:
        base: :class:`alc_kernels.Triplet`, :class:`DynamicTriplet`, :class:`Softmax`,
            :class:`Sigmoid` (over all anchors), or a name as for :class:`alc_kernels.ALCLoss`;
            not symmetric.
        backend, deterministic: as for :class:`alc_kernels.ALCLoss`.
        kwargs: the library's: ``reducer`` (default: mean), ``distance`` (CosineSimilarity or
            DotProductSimilarity), ``embedding_regularizer``, ``collect_stats``.

    Raises:
        ValueError: no base, a symmetric base, or another distance.
    """

    def __init__(
        self,
        base: Base | str = "softmax",
        *,
        backend: str = "auto",
        deterministic: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # holds learnable scalars, checks the rest
        self.settings = ALCLoss(
            base=base, auxiliary=None, threshold=None, normalize=self.normalize, backend=backend,
            deterministic=deterministic,
        )  # fmt: skip
        if self.settings.base is None or getattr(self.settings.base, "symmetric", False):
            raise ValueError(
                f"base={base!r}: expected a base loss with one value per anchor (symmetric=False)"
            )
        if isinstance(self.settings.base, Softmax) and self.settings.base.decoupled:
            self.repeats = "negatives"

    def _compute(self, queries: Tensor, labels: Tensor, relation: ClassRelation) -> dict[str, Any]:
        base = self.settings.current_base()
        objective = Objective(
            base=base,
            normalize=self.normalize,
            reduction="none",
            deterministic=self.settings.deterministic,
        )
        batch = Batch(queries, labels, relation.positives, relation.exclude)
        values = similarity_loss(batch, objective, backend=self.settings.backend).loss  # (B,)
        members = relation.members
        if isinstance(base, Sigmoid):
            members = members.new_ones(()).expand_as(members)
        index = members.nonzero()[:, 0]
        if index.numel() == 0:
            zero: dict[str, Any] = self.zero_losses()
            return zero
        return {
            "loss": {"losses": values[index], "indices": index, "reduction_type": "element"},
        }


class FusedThresholdMarginLoss(_FusedLossFunction):
    """Threshold-consistent margin loss; correct with ``ref_emb``.

    As in the library, a pair counts as often as an ``indices_tuple`` names it.

    Args:
        positive_margin, negative_margin: as for :class:`alc_kernels.ThresholdMargin`. All
            defaults are those of ``ThresholdConsistentMarginLoss``.
        positive_weight, negative_weight, negative_scope, reduction: likewise.
        backend, deterministic, kwargs: as for :class:`FusedLoss`; the value is already reduced.

    Source: arXiv 2307.04047.
    """

    def __init__(
        self,
        positive_margin: float = 0.9,
        negative_margin: float = 0.5,
        positive_weight: float = 1.0,
        negative_weight: float = 1.0,
        negative_scope: str = "all",
        reduction: str = "active",
        *,
        backend: str = "auto",
        deterministic: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.repeats = "pairs"
        threshold = ThresholdMargin(
            positive_margin, negative_margin, positive_weight, negative_weight,
            negative_scope, reduction,  # type: ignore[arg-type]
        )  # fmt: skip
        self.loss = ALCLoss(
            base=None, auxiliary=None, threshold=threshold, normalize=self.normalize,
            backend=backend, deterministic=deterministic,
        )  # fmt: skip


class FusedALCLoss(_FusedLossFunction):
    """:class:`alc_kernels.ALCLoss` with the library's call. Its heads are its parameters.

    Args:
        embedding_dim, base, auxiliary, threshold, base_weight, backend, deterministic: as there.
        kwargs: as for :class:`FusedLoss`; the value is already reduced.
    """

    def __init__(
        self,
        embedding_dim: int | None = None,
        base: Base | str | None = DEFAULT_BASE,
        auxiliary: Auxiliary | None = DEFAULT_AUXILIARY,
        threshold: ThresholdMargin | None = DEFAULT_THRESHOLD,
        base_weight: float = 1.0,
        *,
        backend: str = "auto",
        deterministic: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.loss = ALCLoss(
            embedding_dim, base, auxiliary, threshold, base_weight, self.normalize, backend,
            deterministic,
        )  # fmt: skip


# ``HardestMiner``: each anchor's hardest positive and hardest negatives, as index triplets.


class HardestMiner(BaseMiner):
    """(anchors, positives, negatives) without the matrix of distances.

    Each anchor that has a positive and a negative is paired with its least similar positive and
    its ``num_negatives`` most similar negatives (fewer where there are fewer). With one negative
    the triplets are those of ``BatchHardMiner``.

    Args:
        num_negatives: at least 1.
        backend: as for :class:`alc_kernels.ALCLoss`.
        kwargs: the library's ``distance`` (CosineSimilarity, the default, or
            DotProductSimilarity) and ``collect_stats``, which records ``BatchHardMiner``'s
            similarities of the last batch's hardest pairs: ``hardest_pos_pair``,
            ``hardest_neg_pair``, ``hardest_triplet`` (the smallest lead of the positive) and
            ``easiest_...``, 0 without a triplet.

    Raises:
        ValueError: ``num_negatives`` below 1, or another distance.
    """

    def __init__(self, num_negatives: int = 1, *, backend: str = "auto", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_k(num_negatives)
        check_backend(backend)
        self.num_negatives = num_negatives
        self.backend = backend
        self.normalize = check_distance(self, self.distance)
        self.add_to_recordable_attributes(list_of_names=list(_STATISTICS), is_stat=True)

    def get_default_distance(self) -> CosineSimilarity:
        """Cosine similarity."""
        return CosineSimilarity()

    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Called by the library's ``forward``: (triplets,) int64 each, by anchor."""
        relation = class_relation(
            labels, ref_labels, None, (embeddings.shape[0], ref_emb.shape[0]),
            ref_emb is embeddings, embeddings.device,
        )  # fmt: skip
        given = (embeddings, ref_emb, relation.positives, relation.exclude)
        objective = Objective(normalize=self.normalize, mine=True, gather=True)  # reports the pairs
        found = similarity_loss(Batch(*given), objective, backend=self.backend)
        positive, negative = found.pair_index.unbind(dim=1)  # (B,), -1 without either
        if self.collect_stats:
            scores = (found.rows[:, None] * found.pairs).sum(dim=2)  # (B, 2)
            self._record(scores[(positive >= 0) & (negative >= 0)])
        negatives = negative[:, None]  # (B, k)
        if self.num_negatives > 1:
            negatives = functional.hardest_negatives(
                *given, self.num_negatives, normalize=self.normalize, backend=self.backend
            )[1]
        exists = (negatives >= 0) & (positive >= 0)[:, None]
        anchor, place = torch.nonzero(exists, as_tuple=True)
        return anchor, positive[anchor], negatives[anchor, place]

    def _record(self, scores: Tensor) -> None:
        """Statistics of (anchors, 2) similarities of hardest positives and negatives."""
        if scores.shape[0] == 0:
            return  # reset to 0 by the library
        positive, negative = scores.unbind(dim=1)
        sides = {"pos_pair": positive, "neg_pair": -negative, "triplet": positive - negative}
        values = {}
        for name, ease in sides.items():
            sign = -1 if name == "neg_pair" else 1
            values[f"hardest_{name}"] = sign * ease.min()
            values[f"easiest_{name}"] = sign * ease.max()
        names = list(_STATISTICS)
        found = torch.stack([values[name] for name in names]).tolist()  # the host waits once
        for name, value in zip(names, found, strict=True):
            setattr(self, name, value)


_STATISTICS = tuple(
    f"{end}_{what}"
    for end in ("easiest", "hardest")
    for what in ("triplet", "pos_pair", "neg_pair")
)
