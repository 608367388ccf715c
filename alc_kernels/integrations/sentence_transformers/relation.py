"""Which label rows of a batch are right for which query: by column, by equal text, by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from alc_kernels.integrations.pairs import equal_pairs
from alc_kernels.positives import Positives

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
