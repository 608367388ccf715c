"""Hostile but valid tables in each shape: convert, train, predict, and the same rows come back."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from alc_kernels.cli import main
from alc_kernels.trainer.data import load_dataset
from alc_kernels.trainer.data.tables import normalize_text

TINY = ["--epochs", "1", "--batch-size", "64", "--embedding-dim", "16", "--hidden-dim", "16",
        "--ngram-buckets", "1024", "--evaluate-every", "0", "--loss", "base"]  # fmt: skip
PIECES = [
    *("\n", "\r\n", "\t", '"', '""', ",", ";", "|", "'", "\\", "=1+1", "\u2028", "\xa0", "  "),
    *("電話", "é", "e\u0301", "\U0001f600", "\u200f", "#N/A", "null", "007", "1e5", "x" * 3000),
]


def hostile(draw: random.Random, start: str) -> str:
    return start + "".join(draw.choices(PIECES, k=draw.randrange(4)))


def write(path: Path, header: list[str], rows: list[tuple[str, ...]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same 400 offers of 70 products as pairs, beside a catalogue, and with matches."""
    folder, draw = tmp_path_factory.mktemp("tables"), random.Random(5)
    products = [(hostile(draw, f"p{i} "), hostile(draw, f"product {i} ")) for i in range(90)]
    offers = []
    for i in range(400):
        own = draw.choice(products[:70])[0] if i % 8 else draw.choice(["", "nowhere"])
        offers.append(
            (hostile(draw, f"o{i} "), hostile(draw, f"title {i} "), own, hostile(draw, ""))
        )
    names = dict(products)
    write(folder / "catalogue.csv", ["id", "name"], products)
    write(folder / "offers.csv", ["offer", "title", "id", "shop"], offers)
    pairs = [(a, b, names.get(c, ""), c, d) for a, b, c, d in offers]
    write(folder / "pairs.csv", ["offer", "title", "name", "id", "shop"], pairs)
    matches = [(a, c) for a, _, c, _ in offers if c]
    write(folder / "matches.csv", ["offer", "id"], matches)
    return folder


def words_of(shape: str, folder: Path) -> list[str]:
    catalogue = ["--catalogue", str(folder / "catalogue.csv")]
    return {
        "pairs": [str(folder / "pairs.csv"), "--label-id-column", "id"],
        "offers": [str(folder / "offers.csv"), *catalogue, "--id-column", "id"],
        "matches": [str(folder / "offers.csv"), *catalogue, "--id-column", "offer",
                    "--catalogue-id-column", "id", "--matches", str(folder / "matches.csv")],
    }[shape]  # fmt: skip


@pytest.mark.parametrize("shape", ["pairs", "offers", "matches"])
def test_the_same_rows_come_back(tables: Path, tmp_path: Path, shape: str) -> None:
    data, run, out = tmp_path / "data", tmp_path / "run", tmp_path / "matched.csv"
    words = ["data", "convert", *words_of(shape, tables), "--query-column", "title"]
    words += ["--label-column", "name", "--output", str(data), "--split-by", "query"]
    keep = ["--query-id-column", "offer", "--keep-columns", "shop"]
    assert main([*words, *keep]) == 0
    assert main(["train", "--data", str(data), "--output", str(run), *TINY]) == 0
    words = ["predict", str(run), str(tables / "offers.csv"), "--column", "title"]
    assert main([*words, *keep, "--output", str(out)]) == 0

    with (tables / "offers.csv").open(encoding="utf-8", newline="") as file:
        offers = list(csv.DictReader(file))
    with out.open(encoding="utf-8", newline="") as file:
        matched = list(csv.DictReader(file))
    assert [(row["query_id"], row["query"], row["shop"]) for row in matched] == [
        # A break inside a cell is one however the file writes it.
        tuple(row[key].replace("\r\n", "\n") for key in ("offer", "title", "shop"))
        for row in offers
    ]
    with (tables / "catalogue.csv").open(encoding="utf-8", newline="") as file:
        names = {
            normalize_text(row["id"]): normalize_text(row["name"]) for row in csv.DictReader(file)
        }
    assert all(names[row["label_id"]] == row["label"] for row in matched)
    assert len({row["label_id"] for row in matched}) > 5
    # The data folder holds each of them once, in one part.
    read, place = load_dataset(data), {}
    for name, split in read.splits.items():
        for row, own in enumerate(split.ids or ()):
            assert own not in place
            place[own] = name, split.queries[row], split.columns[row]["shop"], split.groups[row]
    for row in offers:
        own, title, product, shop = (
            normalize_text(row[key]) for key in ("offer", "title", "id", "shop")
        )
        assert place[own][1:] == (title, shop, product)
    assert len(place) == 400 and read.num_labels == (70 if shape == "pairs" else 90)
