"""PriceRunner's product offers under the project's fixed protocol.

A query is a distinct offer title, a label is a distinct product name, and a title's positives
are all products it occurs with. Splits and held-out products follow from hashes
(:mod:`alc_kernels.trainer.data.protocol`), so figures stay comparable over time.
"""

from __future__ import annotations

import csv as csv_module
import io
from collections.abc import Iterator
from pathlib import Path

from alc_kernels.trainer.data.dataset import Dataset
from alc_kernels.trainer.data.protocol import apply_protocol
from alc_kernels.trainer.data.text.lines import decode, read_bytes
from alc_kernels.trainer.errors import DataError

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
    text = decode(path, read_bytes(path))
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
