"""What a conversion says of rows that merge, ids that nearly fit, placeholders and leakage."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

from alc_kernels.trainer.data.convert import ConvertOptions, convert
from alc_kernels.trainer.data.inspect import inspect_dataset
from alc_kernels.trainer.data.shapes import PairOptions, ProductTables, find_pairs, find_products
from alc_kernels.trainer.data.shapes.units import near_ids
from alc_kernels.trainer.errors import DataError

Rows = Sequence[Sequence[str]]
PLAIN = [(f"title {i}", f"label {i % 30}") for i in range(90)]
CATALOGUE = [(f"{i:05}", f"product {i}") for i in range(60)]
ZEROS = "would be found in catalogue.csv but for leading zeros ('1', '00001')"


def write(folder: Path, name: str, header: Sequence[str], rows: Rows) -> Path:
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    return folder / name


def pair_notes(folder: Path, rows: Rows, header: Sequence[str] = ("query", "label")) -> list[str]:
    return list(find_pairs(write(folder, "pairs.csv", header, rows)).notes)


def test_titles_with_and_without_a_label_and_with_several(tmp_path: Path) -> None:
    assert len(pair_notes(tmp_path, PLAIN)) == 1  # how it is split, no more
    rows = [*PLAIN, ("title 1", ""), ("title 2", ""), ("title 2", ""), ("title 3", "label 9")]
    notes = pair_notes(tmp_path, rows)
    assert "pairs.csv: 2 titles stand with and without a label; the label counts" in notes
    assert "pairs.csv: 1 title has several labels; each of them is right" in notes
    assert "pairs.csv: rows without a label that repeat an earlier one: 1" in notes


def test_labels_are_compared_within_a_part_where_a_column_tells_it(tmp_path: Path) -> None:
    rows = [(*row, ("train", "test")[i % 2]) for i, row in enumerate(PLAIN)]
    rows += [("title 0", "", "test"), ("title 2", "", "train")]  # only the latter has its label
    notes = pair_notes(tmp_path, rows, ("query", "label", "split"))
    assert "pairs.csv: 1 title stands with and without a label; the label counts" in notes


def tables(folder: Path, offers: Rows, matches: Rows | None = None) -> list[str]:
    catalogue = write(folder, "catalogue.csv", ["product", "label"], CATALOGUE)
    if matches is None:
        table = write(folder, "offers.csv", ["query", "product"], offers)
        return list(find_products(table, ProductTables(catalogue, "product")).notes)
    table = write(folder, "offers.csv", ["offer", "query"], offers)
    path = write(folder, "m.csv", ["offer", "product"], matches)
    return list(find_products(table, ProductTables(catalogue, "offer", "product", path)).notes)


def test_doubled_rows_of_queries_beside_matches(tmp_path: Path) -> None:
    offers = [(f"o{i}", f"title {i}") for i in range(400)]
    matches = [(f"o{i}", f"{i % 60:05}") for i in range(400)]
    assert not any("repeat" in note for note in tables(tmp_path, offers, matches))
    notes = tables(tmp_path, [*offers, offers[7]], matches)
    assert "offers.csv: rows that repeat an id and its text: 1" in notes
    assert not any("with and without" in note for note in notes)


def test_ids_without_their_zeros(tmp_path: Path) -> None:
    offers = [(f"title {i}", f"{i % 50 + 1}") for i in range(200)]
    with pytest.raises(DataError, match=r"expected ids of its products; it has '1', ") as raised:
        tables(tmp_path, offers)
    assert f"catalogue.csv '00000'; 50 ids of offers.csv {ZEROS}" in str(raised.value)
    some = [*offers[:3], *((title, f"{i % 60:05}") for i, (title, _) in enumerate(offers[3:]))]
    notes = tables(tmp_path, some)
    assert f"3 ids of offers.csv {ZEROS}" in notes
    missing = "offers.csv: ids that catalogue.csv does not have: 3"
    assert any(note.startswith(missing) for note in notes)


def test_ids_of_queries_in_matches(tmp_path: Path) -> None:
    offers = [(f"A{i}", f"title {i}") for i in range(200)]
    matches = [(f"a{i}", f"{i % 60:05}") for i in range(200)]
    near = r"ids of m\.csv would be found in offers\.csv but for upper and lower case \('a0', 'A0'"
    with pytest.raises(DataError, match=rf"it has 'a0', offers\.csv 'A0'; 200 {near}"):
        tables(tmp_path, offers, matches)
    notes = tables(tmp_path, offers, [("a0", "00000"), *((a.upper(), b) for a, b in matches)])
    assert (
        "1 id of m.csv would be found in offers.csv but for upper and lower case ('a0', 'A0')"
        in notes
    )


def test_kinds_of_near_ids() -> None:
    known = ["007", "aB", "c d", "12", "0x y"]
    found = near_ids(["7", "0007", "Ab", "cd", "12.0", "XY.0", "z"], "a", known, "b")
    assert found == [
        "2 ids of a would be found in b but for leading zeros ('7', '007')",
        "1 id of a would be found in b but for upper and lower case ('Ab', 'aB')",
        "1 id of a would be found in b but for white space ('cd', 'c d')",
        "1 id of a would be found in b but for a .0 at the end ('12.0', '12')",
        "1 id of a would be found in b but for several of zeros, case, white space and .0 "
        "('XY.0', '0x y')",
    ]
    assert near_ids([], "a", known, "b") == [] and near_ids(["z"], "a", known, "b") == []


@pytest.mark.parametrize(("shared", "told"), [(9, False), (34, True)])
def test_a_placeholder(tmp_path: Path, shared: int, told: bool) -> None:
    offers = [(f"title {i}", "X9" if i < shared else f"{i % 60:05}") for i in range(500)]
    note = f"offers.csv: {shared} titles share the unknown id 'X9': if it is a placeholder, leave"
    assert any(found.startswith(note) for found in tables(tmp_path, offers)) == told
    many = [(f"other {i}", f"{i % 60:05}") for i in range(5000)]
    assert not any("placeholder" in found for found in tables(tmp_path, [*offers, *many]))


def test_queries_that_train_and_test_share_are_told(tmp_path: Path) -> None:
    rows = [(*row, "train") for row in PLAIN]
    rows += [(f"title {i}", f"label {i}", "test") for i in range(88, 94)]
    table = write(tmp_path, "pairs.csv", ["query", "label", "split"], rows)
    made = convert(find_pairs(table), tmp_path / "out", ConvertOptions(validation_share=0.2))
    problems = [p for p in inspect_dataset(made.dataset).problems if "has too" in p]
    assert sum(int(problem.split()[1]) for problem in problems) == 2
    assert [note for note in made.notes if "has too" in note] == problems


def test_shares_and_splits_that_leave_nothing(tmp_path: Path) -> None:
    rows = [(f"title {i}", f"label {i % 30}", f"s{i % 2}") for i in range(48)]
    table = write(tmp_path, "pairs.csv", ["query", "label", "shop"], rows)
    source = find_pairs(table, PairOptions(test_share=0.9))
    with pytest.raises(DataError, match=r"--test-share 0\.9 and --validation-share 0\.5 leave no"):
        convert(source, tmp_path / "out", ConvertOptions(validation_share=0.5))
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=r"'shop', 2 in all, .* \(--test-share sets it, --split-by"):
        find_pairs(table, PairOptions(test_share=0.0001, split_by="shop"))
