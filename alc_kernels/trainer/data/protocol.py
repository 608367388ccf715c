"""Splits and held-out labels decided by a hash of the text, so that they never move."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from alc_kernels.trainer.data.dataset import Dataset, Split
from alc_kernels.trainer.data.text.sparse import relation_from_rows
from alc_kernels.trainer.errors import DataError

PROTOCOL = (
    "sha1 of a title mod 10: 0-5 train, 6 validation, 7-9 test; labels with sha1 mod 20 < 3 are "
    "held out: no candidates in the open catalogue, never trained on"
)
SHARE_STEPS = 10_000
DROPPED = "; training titles without a label left are dropped"
KEPT = "; training titles without a label left are kept without labels"


def text_hash(text: str) -> int:
    """sha1 of the text's UTF-8 bytes as an integer."""
    return int(hashlib.sha1(text.encode("utf-8")).hexdigest(), 16)


def sha1_of(what: str) -> str:
    """The number that decides the split of ``what``, in words; labels are held out by all of sha1.

    What stays together as products are goes by another part of it, or the two would agree.
    """
    return "sha1" if what in ("queries", "training queries") else "the first 8 bytes of sha1"


def in_share(text: str, share: float) -> bool:
    """Whether a text belongs to a share (0 to 1) of all texts, decided by its hash alone."""
    return text_hash(text) % SHARE_STEPS < round(share * SHARE_STEPS)


def split_of(title: str) -> str:
    """``"train"``, ``"validation"`` or ``"test"``."""
    digit = text_hash(title) % 10
    return "train" if digit < 6 else "validation" if digit == 6 else "test"


def is_held_out(label: str) -> bool:
    """About 15 % of the labels."""
    return text_hash(label) % 20 < 3


def apply_protocol(
    labels: Sequence[str],
    titles: Mapping[str, Sequence[int]],
    *,
    keep_unmatched: bool,
    name: str,
    description: str,
    generated: bool,
) -> Dataset:
    """Turn distinct titles with their label indices into a data set.

    Args:
        labels: distinct label texts.
        titles: title -> its labels, in the order the queries shall have.
        keep_unmatched: keep training titles all of whose labels are held out, without labels.
        name, description, generated: as in :class:`Dataset`.

    Raises:
        DataError: a split comes out empty (too few titles).
    """
    held_out = np.fromiter((is_held_out(label) for label in labels), np.bool_, len(labels))
    queries: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    rows: dict[str, list[list[int]]] = {"train": [], "validation": [], "test": []}
    for title, row in titles.items():
        split = split_of(title)
        kept = [label for label in row if not held_out[label]] if split == "train" else list(row)
        if kept or keep_unmatched:
            queries[split].append(title)
            rows[split].append(kept)
    for split, texts in queries.items():
        if not texts:
            raise DataError(
                f"{name}: {len(titles)} titles leave none for {split}, expected enough for a "
                "train, validation and test split (6:1:3)"
            )
    splits = {
        split: Split(queries[split], relation_from_rows(rows[split], len(labels)))
        for split in queries
    }
    protocol = PROTOCOL + (KEPT if keep_unmatched else DROPPED)
    return Dataset(name, list(labels), splits, held_out, description, generated, protocol)
