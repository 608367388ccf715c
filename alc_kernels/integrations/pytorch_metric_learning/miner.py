"""``HardestMiner``: each anchor's hardest positive and hardest negatives, as index triplets."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.miners import BaseMiner
from torch import Tensor

from alc_kernels import functional
from alc_kernels.checks import check_k
from alc_kernels.dispatch import similarity_loss
from alc_kernels.engine.choose import check_backend
from alc_kernels.engine.evaluate import Objective
from alc_kernels.integrations.pytorch_metric_learning.distance import check_distance
from alc_kernels.integrations.pytorch_metric_learning.relation import class_relation


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
        found = similarity_loss(*given, objective, backend=self.backend)
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
