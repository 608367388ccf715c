"""``ALCRankingLoss``: the fused losses where ``MultipleNegativesRankingLoss`` stood."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from torch import Tensor, nn

from alc_kernels.alc_loss import DEFAULT_AUXILIARY, DEFAULT_BASE, DEFAULT_THRESHOLD, ALCLoss
from alc_kernels.integrations.sentence_transformers.relation import Duplicates, batch_relation
from alc_kernels.positives import Positives
from alc_kernels.settings import Auxiliary, Base, ThresholdMargin

Relation = tuple[Tensor | Positives, Positives | None]

_CITATION = """
@misc{almagro2025finegrained,
    title={Fine-grained auxiliary learning for real-world product recommendation},
    author={Mario Almagro and Diego Ortego and David Jimenez},
    year={2025},
    eprint={2510.04551},
    archivePrefix={arXiv}
}
"""


class ALCRankingLoss(nn.Module):
    """:class:`alc_kernels.ALCLoss` on (query, positive), (query, positive, negative, ...) columns.

    The first column holds the queries; the others, one below the other, the labels. Query i
    matches row i of the second column; every other label is a negative, hard negatives of other
    rows included.

    The auxiliary heads are parameters of this module: ``SentenceTransformerTrainer`` trains them
    with the model. They are not needed afterwards, and not part of the saved model. (With several
    processes the trainer wraps the model only: each process has the loss of its own batch and
    trains its own heads, and the model's gradients are averaged.)

    Args:
        model: the model to train.
        base, auxiliary, threshold, base_weight, normalize, backend, deterministic: as for
            :class:`alc_kernels.ALCLoss`. ``base=Softmax(temperature=0.05)`` with
            ``auxiliary=None, threshold=None, duplicates=None`` is MultipleNegativesRankingLoss at
            its defaults.
        duplicates: what a label is whose text equals that of another positive of the same query
            text: ``"positive"``, ``"exclude"`` (neither positive nor negative), or None: a
            negative, as in MultipleNegativesRankingLoss. Texts are compared by their token ids.
        ids_from_labels: the data's ``label`` column holds integer ids; rows with equal ids match
            each other's positives. Without it a label column is an error.
        matryoshka_dims: the widths of a surrounding ``MatryoshkaLoss``: each gets its own heads.
            Not needed with ``auxiliary=None``.
        exclude_above: false-negative guard: negatives that score more than the query's positive
            less ``exclude_above`` are left out.

    Raises:
        ValueError: heads are wanted, but the model's width is unknown; ``duplicates`` is none of
            the above; and what :class:`alc_kernels.ALCLoss` raises.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        base: Base | str | None = DEFAULT_BASE,
        auxiliary: Auxiliary | None = DEFAULT_AUXILIARY,
        threshold: ThresholdMargin | None = DEFAULT_THRESHOLD,
        base_weight: float = 1.0,
        *,
        normalize: bool = True,
        duplicates: Duplicates = "positive",
        ids_from_labels: bool = False,
        matryoshka_dims: Sequence[int] | None = None,
        exclude_above: float | None = None,
        backend: str = "auto",
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        if duplicates not in ("positive", "exclude", None):
            raise ValueError(f"duplicates={duplicates!r}: expected 'positive', 'exclude' or None")
        self.model = model
        self.duplicates = duplicates
        self.ids_from_labels = ids_from_labels
        self.exclude_above = exclude_above
        width = model.get_embedding_dimension()
        if auxiliary is not None and width is None:
            raise ValueError(
                "model: get_embedding_dimension() is None, but the auxiliary heads need the "
                "embeddings' width; pass auxiliary=None"
            )
        widths = [None] if auxiliary is None else sorted({width, *(matryoshka_dims or ())})
        shared = (base, auxiliary, threshold, base_weight, normalize, backend, deterministic)
        # by width: the heads' shapes depend on it
        self.losses = nn.ModuleDict({str(w): ALCLoss(w, *shared) for w in widths})

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> Tensor:
        """The loss, 0-d.

        Args:
            sentence_features: the tokenized columns, as the library's collator makes them.
            labels: (B,) integer ids with ``ids_from_labels``, else None.

        Raises:
            ValueError: fewer than two columns, or labels that do not fit ``ids_from_labels``.
        """
        columns = list(sentence_features)
        self._check(columns, labels)
        keys = columns_of_tokens(columns)  # modules may change the features' masks
        return self.loss_from_embeddings(embed_columns(self.model, columns), keys, labels)

    def loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        columns: Sequence[dict[str, Any]],
        ids: Tensor | None = None,
    ) -> Tensor:
        """The loss of embedded columns.

        Args:
            embeddings: (B, d) of each column.
            columns: the tokenized columns, to compare texts.
            ids: (B,) integers, or None.
        """
        queries, labels = embeddings[0], torch.cat(list(embeddings[1:]))  # (B, d), (M, d)
        if ids is not None:
            ids = ids.to(queries.device)
        positives, exclude = batch_relation(
            columns, queries.shape[0], self.duplicates, ids, queries.device
        )
        loss = self._loss_for(queries.shape[1])
        value: Tensor = loss(queries, labels, positives, exclude, exclude_above=self.exclude_above)
        return value

    def _loss_for(self, width: int) -> nn.Module:
        name = "None" if "None" in self.losses else str(width)
        if name not in self.losses:
            raise ValueError(
                f"embeddings of width {width}: there are heads for {', '.join(self.losses)} only; "
                "pass matryoshka_dims= with every width that MatryoshkaLoss uses"
            )
        loss = self.losses[name]
        return loss.train(self.model.training)  # dropout of the heads goes with the model's

    def _check(self, columns: Sequence[dict[str, Tensor]], labels: Tensor | None) -> None:
        if len(columns) < 2:
            raise ValueError(
                f"columns: expected (query, positive) or (query, positive, negative, ...), "
                f"got {len(columns)}"
            )
        if labels is None and self.ids_from_labels:
            raise ValueError("labels: ids_from_labels=True needs a label column of integer ids")
        if labels is not None and not self.ids_from_labels:
            raise ValueError(
                "labels: the data has a label column, which has no meaning here; remove it, or "
                "pass ids_from_labels=True if equal values mark rows that match"
            )
        if labels is not None and (labels.is_floating_point() or labels.dim() != 1):
            raise ValueError(
                f"labels: expected integer ids (B,), got {labels.dtype}, {tuple(labels.shape)}"
            )

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        loss = next(iter(self.losses.values()))
        return {
            "base": repr(loss.base),
            "auxiliary": repr(loss.auxiliary),
            "threshold": repr(loss.threshold),
            "base_weight": loss.base_weight,
            "normalize": loss.normalize,
            "duplicates": self.duplicates,
            "ids_from_labels": self.ids_from_labels,
            "exclude_above": self.exclude_above,
        }

    @property
    def citation(self) -> str:
        """BibTeX of the paper, for the model card."""
        return _CITATION


def columns_of_tokens(columns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What tells texts apart, kept from changes that the model makes to its features."""
    names = ("input_ids", "attention_mask", "cu_seq_lens_q")
    kept = []
    for column in columns:
        found = {name: column[name] for name in names if name in column}
        if isinstance(found.get("attention_mask"), Tensor):
            found["attention_mask"] = found["attention_mask"].clone()
        kept.append(found)
    return kept
