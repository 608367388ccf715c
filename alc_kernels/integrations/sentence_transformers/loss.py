"""``ALCRankingLoss``: the fused losses where ``MultipleNegativesRankingLoss`` stood."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from torch import Tensor, nn

from alc_kernels.integrations import equal_pairs
from alc_kernels.losses.alc_loss import DEFAULT_AUXILIARY, DEFAULT_BASE, DEFAULT_THRESHOLD, ALCLoss
from alc_kernels.positives import Positives
from alc_kernels.settings import Auxiliary, Base, ThresholdMargin

# Which label rows of a batch are right for which query: by column, by equal text, by id.


Duplicates = Literal["positive", "exclude"] | None

# The multipliers of splitmix64 (Steele, Lea and Flood, OOPSLA 2014), as signed 64-bit numbers.
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def _mix(x: Tensor) -> Tensor:
    """A well mixed 64-bit number for each int64; products wrap around."""
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return x


def text_keys(features: Mapping[str, Any], column: int) -> Tensor:
    """A 64-bit key of each row's tokens; padding on either side does not change it.

    Args:
        features: what the tokenizer made of a column: ``input_ids`` (B, length) and, where rows
            are padded, ``attention_mask`` of the same shape.
        column: its number, for the error.

    Returns:
        (B,) int64. Different texts share a key with a probability of about 2^-64.

    Raises:
        ValueError: the column is no padded batch of token ids.
    """
    tokens = features.get("input_ids")
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or "cu_seq_lens_q" in features:
        got = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(
            f"column {column}: equal texts are found by their token ids, expected input_ids of "
            f"shape (B, length), got {got}; pass duplicates=None"
        )
    mask = features.get("attention_mask")
    mask = torch.ones_like(tokens) if mask is None else mask.to(tokens.dtype)  # (B, length)
    position = mask.cumsum(dim=1)  # counts tokens only
    return (_mix(tokens * 0x100000001B3 + position) * mask).sum(dim=1)


def batch_relation(
    columns: Sequence[Mapping[str, Any]],
    num_rows: int,
    duplicates: Duplicates,
    ids: Tensor | None,
    device: torch.device,
) -> tuple[Tensor | Positives, Positives | None]:
    """Positives and excluded pairs of a batch of (query, positive, negative, ...) columns.

    The labels are the columns after the first, one below the other. Query i matches row i of the
    second column. A label is *another copy* of that match where its text equals the text of a
    positive of the same query text (``duplicates``), or where the ids of query and label agree
    (``ids``; hard negatives have no id).

    Args:
        columns: the tokenized columns, at least two.
        num_rows: B, the queries.
        duplicates: what copies by text are: ``"positive"``, ``"exclude"`` (neither positive nor
            negative), or None: texts are not compared.
        ids: (B,) integers or None. Equal ids are always positive.
        device: where the embeddings live.

    Returns:
        positives: (B,) label columns, or :class:`Positives` (B, M); and exclude, or None.
    """
    own = torch.arange(num_rows, device=device)
    if duplicates is None and ids is None:
        return own, None
    num_labels = num_rows * (len(columns) - 1)
    rows, cols = [own], [own]  # own positive first: it is the row's first positive
    if ids is not None:
        of_ids = equal_pairs(ids, ids)
        rows.append(of_ids[0])
        cols.append(of_ids[1])
    exclude = None
    if duplicates is not None:
        of_text = _equal_texts(columns, num_rows, device)
        if duplicates == "exclude":
            exclude = Positives.from_pairs(*of_text, (num_rows, num_labels))
        else:
            rows.append(of_text[0])
            cols.append(of_text[1])
    positives = Positives.from_pairs(torch.cat(rows), torch.cat(cols), (num_rows, num_labels))
    return positives, exclude


def _equal_texts(
    columns: Sequence[Mapping[str, Any]], num_rows: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(query, label) pairs: the label's text is that of a positive of the same query text."""
    keys = [text_keys(column, number).to(device) for number, column in enumerate(columns)]
    queries, labels = keys[0], torch.cat(keys[1:])
    query, twin = equal_pairs(queries, queries)  # twin: a row with the same query text
    pair, label = equal_pairs(labels[:num_rows][twin], labels)
    return query[pair], label


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
