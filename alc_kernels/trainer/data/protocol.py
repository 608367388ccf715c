"""Splits and held-out labels decided by a hash of the text, so that they never move."""

from __future__ import annotations

import csv as csv_module
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from alc_kernels.trainer.data.dataset import Dataset, Split
from alc_kernels.trainer.data.text.lines import decode, line_blocks
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


# PriceRunner's product offers under the project's fixed protocol.
#
# A query is a distinct offer title, a label is a distinct product name, and a title's positives
# are all products it occurs with. Splits and held-out products follow from hashes
# (:mod:`alc_kernels.trainer.data.protocol`), so figures stay comparable over time.


COLUMNS = (
    "product id", "title", "merchant id", "cluster id", "cluster label", "category id",
    "category label",
)  # fmt: skip
DESCRIPTION = (
    "Product offers matched by the price comparison service PriceRunner to its products. "
    "L. Akritidis et al., UCI data set 837."
)


def read_pricerunner(csv: str | Path, *, keep_unmatched: bool = False) -> Dataset:
    """Read ``pricerunner_aggregate.csv``.

    Product names that are equal after lower-casing and collapsing white space are one label,
    named by the first spelling in file order.

    Args:
        csv: the file as published (UCI data set 837), 7 columns; a header is recognised.
        keep_unmatched: keep training titles all of whose products are held out, as queries
            without a label. Off by default: it teaches the very products that test rejects.

    Raises:
        DataError: one line with file, line, found, expected.
    """
    path = Path(csv)
    labels: list[str] = []
    label_of: dict[str, int] = {}
    titles: dict[str, list[int]] = {}
    for title, label in offers(path):
        key = " ".join(label.lower().split())
        if key not in label_of:
            label_of[key] = len(labels)
            labels.append(label)
        row = titles.setdefault(title, [])
        if label_of[key] not in row:
            row.append(label_of[key])
    if not titles:
        raise DataError(f"{path}, line 1: found no offers, expected rows of {', '.join(COLUMNS)}")
    return apply_protocol(
        labels,
        titles,
        keep_unmatched=keep_unmatched,
        name="PriceRunner",
        description=DESCRIPTION,
        generated=False,
    )


def offers(path: Path) -> Iterator[tuple[str, str]]:
    """(title, cluster label) of every row of pricerunner_aggregate.csv, stripped."""
    text = decode(path, b"".join(line_blocks(path)))
    reader = csv_module.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            # UCI's copy has a header, the authors' has none.
            if reader.line_num == 1 and row and row[0].strip().lower() == COLUMNS[0]:
                continue
            yield _title_and_label(path, reader.line_num, row)
    except csv_module.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}, expected comma-separated {len(COLUMNS)} "
            "columns"
        ) from None


def _title_and_label(path: Path, line: int, row: list[str]) -> tuple[str, str]:
    if len(row) != len(COLUMNS):
        raise DataError(
            f"{path}, line {line}: found {len(row)} columns, expected {len(COLUMNS)} "
            f"({', '.join(COLUMNS)})"
        )
    title, label = row[1].strip(), row[4].strip()
    for name, value in (("title", title), ("cluster label", label)):
        if not value or "\n" in value or "\r" in value:
            raise DataError(
                f"{path}, line {line}: found {value[:40]!r} as {name}, expected text on one line"
            )
    return title, label
