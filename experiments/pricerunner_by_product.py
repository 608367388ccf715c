"""PriceRunner with the products of the test unseen in training: three training sizes.

    python experiments/pricerunner_by_product.py pricerunner_aggregate.csv OUTPUT_FOLDER

Writes OUTPUT_FOLDER/500, 1500 and 5000 (titles trained on), data folders for alc train, each beside
the table of pairs that it was converted from. A title's labels are the lower-cased names of its
products, its key is the smallest of them, and sha1 of the key decides: six tenths of the products
train, one tenth validates, three tenths test. The first offer is left out: the figures of record
were taken with the file's first row read as a header, which the published file does not have. The
data set is not part of this project: UCI data set 837, free for scientific use.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from alc_kernels.cli import main as alc
from alc_kernels.trainer.data.protocol import offers, text_hash

SIZES = (500, 1500, 5000)
SPLITS = ("train",) * 6 + ("validation",) + ("test",) * 3  # by the last digit of the key's hash
Pair = tuple[str, str, str]  # query, label, split


def titles_of(path: Path) -> dict[str, list[str]]:
    """Title -> its labels, ascending; titles in ascending order of their hash."""
    labels: dict[str, set[str]] = {}
    for title, label in islice(offers(path), 1, None):
        labels.setdefault(" ".join(title.split()), set()).add(" ".join(label.lower().split()))
    order = sorted(labels, key=lambda title: text_hash("o" + title))
    return {title: sorted(labels[title]) for title in order}


def pairs_of(titles: dict[str, list[str]], size: int) -> Iterator[Pair]:
    """The pairs for ``size`` titles to train on; validation shrinks with them, test does not."""
    trained = 0
    for title, labels in titles.items():
        split = SPLITS[text_hash("p" + labels[0]) % 10]
        if split == "train":
            trained += 1
            kept = trained <= size
        else:
            share = min(1.0, size / SIZES[-1])
            kept = split == "test" or text_hash("v" + title) % 2000 < 2000 * share
        if kept:
            yield from ((title, label, split) for label in labels)


def write_table(path: Path, pairs: Iterable[Pair]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("query", "label", "split"))
        rows.writerows(pairs)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="PriceRunner by product, in three sizes.")
    parser.add_argument("csv", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args(words)
    arguments.output.mkdir(parents=True, exist_ok=True)
    titles = titles_of(arguments.csv)
    for size in SIZES:
        table = arguments.output / f"{size}.csv"
        write_table(table, pairs_of(titles, size))
        words = ["data", "convert", str(table), "--output", str(arguments.output / str(size))]
        code = alc([*words, "--name", f"PriceRunner by product, {size}", "--overwrite",
                    "--hold-out-share", "0.15"])  # fmt: skip
        if code:
            raise SystemExit(code)


if __name__ == "__main__":
    main()
