"""The three shapes of product data: what is in the tables is in the data folder, row by row."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alc_kernels.trainer.data import Dataset, load_dataset
from alc_kernels.trainer.data.convert import Converted, ConvertOptions, convert
from alc_kernels.trainer.data.shapes import PairOptions, ProductTables, find_pairs, find_products
from alc_kernels.trainer.data.tables import normalize_text
from alc_kernels.trainer.errors import DataError

Rows = Sequence[Sequence[str]]


def write(path: Path, header: Sequence[str], rows: Rows) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        # Quoted names show that quotes enclose cells, whatever these hold.
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(header)
        writer.writerows(rows)
    return path


PRODUCTS = [(f"p{i}", f"Product {i}") for i in range(60)]


def offers(count: int = 900) -> list[tuple[str, str, str, str]]:
    """(id, title, product, shop): of products 0 to 39, every ninth of one that is nowhere."""
    made = []
    for i in range(count):
        product = f"x{i % 5}" if i % 9 == 0 else "" if i % 10 == 7 else f"p{i * 7 % 40}"
        made.append((f"o{i}", f"title {i} of {product or 'nothing'}", product, f"shop {i % 3}"))
    return made


def offers_and_catalogue(folder: Path, rows: Rows, **options: object) -> Converted:
    table = write(folder / "offers.csv", ["offer", "query", "product", "shop"], rows)
    catalogue = write(folder / "catalogue.csv", ["product", "label"], PRODUCTS)
    source = find_products(table, ProductTables(catalogue, "product"), PairOptions(**options))  # type: ignore[arg-type]
    return convert(source, folder / "offers", overwrite=True)


def with_matches(folder: Path, rows: Rows, **options: object) -> Converted:
    table = write(
        folder / "offers.csv", ["offer", "query", "shop"], [(a, b, d) for a, b, _, d in rows]
    )
    catalogue = write(folder / "catalogue.csv", ["product", "label"], PRODUCTS)
    matches = write(folder / "m.csv", ["a", "b"], [(row[0], row[2]) for row in rows if row[2]])
    products = ProductTables(catalogue, "offer", "product", matches)
    return convert(
        find_products(table, products, PairOptions(**options)),  # type: ignore[arg-type]
        folder / "matches",
        overwrite=True,
    )


def pairs(folder: Path, rows: Rows, **options: object) -> Converted:
    texts = dict(PRODUCTS)
    made = [(a, b, texts.get(c, ""), c, d) for a, b, c, d in rows]
    table = write(folder / "pairs.csv", ["offer", "query", "label", "product", "shop"], made)
    options = {"label_id_column": "product", **options}
    source = find_pairs(table, PairOptions(**options))  # type: ignore[arg-type]
    return convert(source, folder / "pairs", overwrite=True)


SHAPES = {"pairs": pairs, "offers": offers_and_catalogue, "matches": with_matches}
KEPT = {"query_id_column": "offer", "keep_columns": ("shop",)}


def rows_of(data: Dataset) -> dict[str, tuple[str, ...]]:
    """id -> (split, title, ids of its labels, product, shop)."""
    made = {}
    for name, split in data.splits.items():
        assert split.ids is not None and split.columns is not None and split.groups is not None
        for row, query in enumerate(split.queries):
            labels = split.relation[row].indices
            ids = [one for label in labels for one in data.ids_of_label(label)]
            shop = split.columns[row]["shop"]
            assert split.ids[row] not in made
            made[split.ids[row]] = (name, query, " ".join(ids), split.groups[row], shop)
    return made


@pytest.mark.parametrize("shape", SHAPES)
def test_every_row_comes_back_with_its_ids_and_columns(tmp_path: Path, shape: str) -> None:
    rows = offers()
    made = SHAPES[shape](tmp_path, rows, **KEPT)
    data = load_dataset(tmp_path / shape)
    found = rows_of(data)
    assert len(found) == len(rows) and rows_of(made.dataset) == found
    for own, title, product, shop in rows:
        right = product if product.startswith("p") else ""
        assert found[own][1:] == (title, right, product, shop)
    named = {product: text for product, text in PRODUCTS if product in {row[2] for row in rows}}
    texts = dict(PRODUCTS) if shape != "pairs" else named
    assert set(data.labels) == set(texts.values())
    for label, text in enumerate(data.labels):
        (own,) = data.ids_of_label(label)
        assert texts[own] == text
    # Candidates everywhere, also those that no query names.
    assert len(named) == 36 and len(data.closed_catalogue()) == (36 if shape == "pairs" else 60)


def test_the_shapes_agree(tmp_path: Path) -> None:
    made = {name: shape(tmp_path, offers(), **KEPT) for name, shape in SHAPES.items()}
    by_id = rows_of(made["offers"].dataset)
    assert by_id == rows_of(made["matches"].dataset)
    notes = "\n".join(made["offers"].notes)
    assert "offers.csv: ids that catalogue.csv does not have: 5, the first 'x0'" in notes
    assert "catalogue.csv: labels that no query names: 24 of 60" in notes
    assert "split by products, since products have several queries (--split-by" in notes
    assert "split by products, whose queries stay together; test: products" in (
        made["offers"].dataset.protocol
    )


def test_data_frames(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    rows, header = offers(), ("offer", "query", "product", "shop")
    table = pyarrow.table(dict(zip(header, zip(*rows, strict=True), strict=True)))
    catalogue = pyarrow.table({"product": list(range(60)), "label": [b for _, b in PRODUCTS]})
    numbers = pyarrow.array([row[2].removeprefix("p") or None for row in rows])
    table = table.set_column(2, "product", numbers)
    source = find_products(table, ProductTables(catalogue, "product"), PairOptions(**KEPT))  # type: ignore[arg-type]
    made = convert(source, tmp_path / "frames")
    found = rows_of(made.dataset)
    for own, title, product, shop in rows:
        number = product.removeprefix("p")
        assert found[own][1:] == (title, number if number.isdigit() else "", number, shop)
    assert any("queries: ids that catalogue does not have: 5, the first" in n for n in made.notes)


def test_queries_of_a_product_stay_together_and_shares_are_of_all(tmp_path: Path) -> None:
    rows = [(f"o{i}", f"title {i}", f"p{i % 60}", "") for i in range(6000)]
    for shape in SHAPES.values():
        made = shape(tmp_path, rows, test_share=0.3).dataset
        parts: dict[str, set[str]] = {}
        for name, split in made.splits.items():
            for product in split.groups or ():
                parts.setdefault(product, set()).add(name)
        assert len(parts) == 60 and all(len(names) == 1 for names in parts.values())
        assert len(made.test) + len(made.validation) + len(made.train) == 6000
        assert 0.1 < len(made.test) / 6000 < 0.5  # 60 products: three standard deviations


@pytest.mark.parametrize("split_by", ["label", "query", "shop"])
def test_shares_are_what_was_asked_for(tmp_path: Path, split_by: str) -> None:
    rows = [(f"title {i}", f"Product {i % 4000}", f"shop {i // 2}") for i in range(8000)]
    table = write(tmp_path / "pairs.csv", ["query", "label", "shop"], rows)
    source = find_pairs(table, PairOptions(test_share=0.25, split_by=split_by))
    data = convert(source, tmp_path / "out", ConvertOptions(validation_share=0.15)).dataset
    noise = 4 * np.sqrt(0.25 / 4000)
    assert len(data.test) / 8000 == pytest.approx(0.25, abs=noise)
    assert len(data.validation) / 8000 == pytest.approx(0.15, abs=noise)
    assert len(data.train) / 8000 == pytest.approx(0.6, abs=noise)
    what = {"label": "products", "query": "queries", "shop": "values of 'shop'"}[split_by]
    number = "sha1" if split_by == "query" else "the first 8 bytes of sha1"
    assert f"test: {what} with {number} mod 10000 >= 7500" in data.protocol
    place = {query: name for name, split in data.splits.items() for query in split.queries}
    key = {"label": 1, "query": 0, "shop": 2}[split_by]
    together: dict[str, set[str]] = {}
    for row in rows:
        together.setdefault(row[key], set()).add(place[row[0]])
    assert all(len(names) == 1 for names in together.values())


@pytest.mark.parametrize("split_by", ["label", "query"])
def test_held_out_labels_are_a_share_of_every_part(tmp_path: Path, split_by: str) -> None:
    """Validation chooses the threshold for test: both miss the same share of products."""
    rows = [(f"title {i}", f"Product {i % 2000}") for i in range(8000)]
    table = write(tmp_path / "pairs.csv", ["query", "label"], rows)
    options = ConvertOptions(hold_out_share=0.2, validation_share=0.2)
    source = find_pairs(table, PairOptions(split_by=split_by))
    data = convert(source, tmp_path / "out", options).dataset
    for split in (data.validation, data.test):
        missing = data.held_out[split.relation.indices].mean()
        assert missing == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / 400))


def test_more_rows_do_not_move_the_others(tmp_path: Path) -> None:
    few, many = offers(500), offers(900)
    before = rows_of(offers_and_catalogue(tmp_path, few, **KEPT).dataset)
    after = rows_of(offers_and_catalogue(tmp_path, many, **KEPT).dataset)
    assert {own: after[own] for own in before} == before


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), min_size=1, max_size=40),
    st.integers(1, 13),
)
def test_groups_hang_together(links: list[tuple[int, int]], texts: int) -> None:
    """Against a plain flood fill; a group goes by the smallest hash of its keys."""
    from alc_kernels.trainer.data.protocol import text_hash
    from alc_kernels.trainer.data.shapes.units import Hashes, Links, steps_together

    links = [(text % texts, key) for text, key in links]
    own, keys = Hashes(), Hashes()
    for text in range(texts):
        own.add(f"text {text}")
    for _, key in links:
        keys.add(f"key {key}")
    arrays = [np.array(side, np.int64) for side in zip(*links, strict=True)]
    found = steps_together(texts, own.arrays(), Links(*arrays, *keys.arrays()))
    for text in range(texts):
        reached = {text}
        while True:
            mine = {key for other, key in links if other in reached}
            grown = reached | {other for other, key in links if key in mine}
            if grown == reached:
                break
            reached = grown
        names = [f"key {key}" for key in mine] or [f"text {text}"]
        # The order is that of the first eight bytes of sha1: of twenty, so of the whole.
        assert found[text] == min(map(text_hash, names)) % 10_000


def auto(tmp_path: Path, rows: Rows) -> str:
    table = write(tmp_path / "pairs.csv", ["query", "label"], rows)
    notes = convert(find_pairs(table), tmp_path / "out", overwrite=True).notes
    return next(note for note in notes if note.startswith("split by"))


def test_what_stays_together_by_default(tmp_path: Path) -> None:
    rows = [(f"q{i}", f"l{i % 100}") for i in range(600)]
    assert auto(tmp_path, rows).startswith("split by products, since products have several")
    single = [(f"q{i}", f"l{i}") for i in range(600)]
    assert auto(tmp_path, single).startswith("split by queries, since hardly any product")
    classes = [(f"q{i}", f"l{i % 9}") for i in range(600)]
    assert auto(tmp_path, classes).startswith("split by queries, since there are fewer than 20")
    chain = rows + [(f"q{i}", f"l{(i + 1) % 100}") for i in range(600)]
    assert "since 100% of the queries hang together by the labels they share" in auto(
        tmp_path, chain
    )
    star = [(f"q{i}", "l0" if i % 2 else f"l{i % 100}") for i in range(600)]
    assert auto(tmp_path, star).startswith("split by products")  # one product is large, no chain


def test_validation_is_carved_by_product_where_train_and_test_are_given(tmp_path: Path) -> None:
    rows = [(f"q{i}", f"l{i % 100}", ("Train", "TEST")[i % 3 == 0]) for i in range(1200)]
    table = write(tmp_path / "pairs.csv", ["query", "label", "Split"], rows)
    data = convert(find_pairs(table), tmp_path / "out").dataset
    assert list(data.test.queries) == [f"q{i}" for i in range(0, 1200, 3)]
    assert set(data.validation.groups or ()).isdisjoint(data.train.groups or ())
    assert data.protocol == (
        "train and test as in the source; validation: products with the first 8 bytes of sha1 "
        "mod 10000 < 1000"
    )


@pytest.mark.parametrize(
    "names",
    [("Train", "VAL", "Test "), ("training", "valid", "testing"), (" train", "Dev", "test"),
     ("TRN", "validation", "tst"), ("train", "development", "test")],
)  # fmt: skip
def test_names_of_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    rows = [(f"q{i}", f"l{i}", names[i]) for i in range(3)]
    table = write(tmp_path / "pairs.csv", ["query", "label", "split"], rows)
    data = convert(find_pairs(table), tmp_path / "out").dataset
    assert [list(split.queries) for split in data.splits.values()] == [["q0"], ["q1"], ["q2"]]


def test_equal_texts(tmp_path: Path) -> None:
    rows = [
        ("1", "tv  55", "TV 55", "7", "a"), ("2", "tv 55", "TV 55", "7", "b"),
        ("3", "tv 55", "TV\n55", "8", "a"), ("1", "tv 55", "", "9", "a"),
        ("4", "mixer", "", "7", "a"), ("5", "kettle", "", "", "a"), ("6", "jug", "", "9", "c"),
    ] + [(f"x{i}", f"other {i}", f"Other {i}", f"o{i}", "") for i in range(40)]  # fmt: skip
    table = write(tmp_path / "pairs.csv", ["id", "query", "label", "product", "shop"], rows)
    options = PairOptions(
        query_id_column="ID", label_id_column="product", keep_columns=("shop",), split_by="query"
    )
    made = convert(find_pairs(table, options), tmp_path / "out")
    data, found = made.dataset, rows_of(made.dataset)
    assert data.labels.__len__() == 41 and data.ids_of_label(0) == ("7", "8")
    # Three offers of one text have the labels that any has; rows that agree in all are one.
    assert [found[own][2] for own in "123"] == ["7 8"] * 3
    assert [found[own][4] for own in "123"] == ["a", "b", "a"]
    assert len({found[own][0] for own in "123"}) == 1  # in one split
    assert found["4"][2:4] == ("7 8", "7")  # an id whose text another row has
    assert found["5"][2:4] == ("", "") and found["6"][2:4] == ("", "9")
    numbers = {own: number for split in data.splits.values() for own, number in
               zip(split.ids or (), split.group_numbers(), strict=True)}  # fmt: skip
    assert numbers["1"] == numbers["4"] == 0 and numbers["5"] == -1 and numbers["6"] >= 41
    notes = "\n".join(made.notes)
    assert "1 query differed from others in white space alone" in notes
    assert "1 label differed from others in white space alone" in notes


FAULTS = {
    "catalogue: two texts": (
        [("p1", "A"), ("p2", "B"), ("p1", "C")], [("o", "t", "p1", "")], {},
        r"catalogue\.csv, line 4: found id 'p1' with 'C', expected 'A' as in line 2",
    ),
    "catalogue: no id": (
        [("p1", "A"), (" ", "B")], [("o", "t", "p1", "")], {},
        r"catalogue\.csv, line 3: found no id in column 'product', expected text",
    ),
    "catalogue: no text": (
        [("p1", "")], [("o", "t", "p1", "")], {},
        r"catalogue\.csv, line 2: found no label in column 'label'",
    ),
    "catalogue: empty": ([], [("o", "t", "p1", "")], {}, r"catalogue\.csv: found no rows below"),
    "no id fits": (
        [("p1", "A")], [("o", "t", "q1", "")], {},
        r"offers\.csv: found no id of catalogue\.csv in column 'product', expected ids of its",
    ),
    "query id: two texts": (
        [("p1", "A")], [("o", "t", "p1", ""), ("x", "v", "p1", ""), ("o", "u", "p1", "")],
        {"query_id_column": "offer"},
        r"offers\.csv, line 4: found id 'o' with 'u', expected 't' as in line 2 \(an id names one "
        r"query; --keep-columns",
    ),
    "no such column": (
        [("p1", "A")], [("o", "t", "p1", "")], {"keep_columns": ("shops",)},
        r"expected 'shops' \(--keep-columns names it\); did you mean shop",
    ),
    "split by nothing": (
        [("p1", "A")], [("o", "t", "p1", "")], {"split_by": "brand"},
        r"expected 'brand' \(--split-by names it\)",
    ),
    "few values": (
        [("p1", "A")], [("o", "t", "p1", "s"), ("o2", "u", "p1", "s")], {"split_by": "shop"},
        r"found no rows of (train|test), expected some: split by values of 'shop', 1 in a",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_on_one_line(tmp_path: Path, fault: str) -> None:
    products, rows, options, message = FAULTS[fault]
    table = write(tmp_path / "offers.csv", ["offer", "query", "product", "shop"], rows)
    catalogue = write(tmp_path / "catalogue.csv", ["product", "label"], products)
    with pytest.raises(DataError, match=message) as raised:
        find_products(table, ProductTables(catalogue, "product"), PairOptions(**options))  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


MATCHES = {
    "three columns": (
        ["a", "b", "c"], [("o1", "p1", "")], None,
        r"m\.csv: found 3 columns, expected 2, .* \(--match-columns QUERY,PRODUCT",
    ),
    "named": (["a", "b", "c"], [("", "o1", "p1")], ("b", "c"), None),
    "empty": (["a", "b"], [], None, r"m\.csv: found no rows below the header"),
    "no id": (["a", "b"], [("o1", "p1"), ("o1", "")], None, r"m\.csv, line 3: found no id in c"),
    "swapped": (["a", "b"], [("p1", "o1")], None, r"found no id of offers\.csv in column 'a'"),
    "no product": (["a", "b"], [("o1", "p9")], None, r"found no id of catalogue\.csv in"),
}  # fmt: skip


@pytest.mark.parametrize("case", MATCHES)
def test_tables_of_matches(tmp_path: Path, case: str) -> None:
    header, rows, columns, message = MATCHES[case]
    queries = [(f"o{i}", f"title {i}") for i in range(40)]
    table = write(tmp_path / "offers.csv", ["offer", "query"], queries)
    catalogue = write(tmp_path / "catalogue.csv", ["product", "label"], [("p1", "A"), ("p2", "B")])
    matches = write(tmp_path / "m.csv", header, rows)
    products = ProductTables(catalogue, "offer", "product", matches, columns)
    if message is None:
        data = convert(find_products(table, products), tmp_path / "out").dataset
        assert sum(int(split.relation.nnz) for split in data.splits.values()) == 1
        return
    with pytest.raises(DataError, match=message):
        find_products(table, products)


def test_two_labels_of_an_id_are_refused(tmp_path: Path) -> None:
    rows = [("a", "A", "1"), ("b", "", "1"), ("c", "C", "2"), ("d", "B", "1")]
    table = write(tmp_path / "pairs.csv", ["query", "label", "id"], rows)
    with pytest.raises(
        DataError, match=r"line 5: found label id '1' with 'B', expected 'A' as in l"
    ):
        find_pairs(table, PairOptions(label_id_column="id"))


def test_parts_that_are_too_small_are_told(tmp_path: Path) -> None:
    rows = [(f"q{i}", f"l{i % 100}") for i in range(500)]
    table = write(tmp_path / "pairs.csv", ["query", "label"], rows)
    source = find_pairs(table, PairOptions(test_share=0.4, split_by="query"))
    made = convert(source, tmp_path / "out", ConvertOptions(hold_out_share=0.1))
    count = len(made.dataset.validation)
    share = np.ceil(100 * 10 / count) / 100
    assert f"validation: {count} queries, at least 100 are needed to choose a threshold " in (
        "\n".join(made.notes)
    )
    assert f"(--validation-share {share:.2f} would give about that many)" in "\n".join(made.notes)
    assert not any(note.startswith("test:") for note in made.notes)
    assert any(
        "queries without a right answer in the open catalogue, at l" in n for n in made.notes
    )


def test_inspect_tells_what_the_split_asks(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:  # type: ignore[type-arg]
    from alc_kernels.cli import main

    for split_by, known in (("label", 0), ("query", 36)):
        offers_and_catalogue(tmp_path, offers(), split_by=split_by, **KEPT)
        assert main(["data", "inspect", str(tmp_path / "offers")]) == 0
        shown = capsys.readouterr().out
        assert f"labels asked for in test that have training queries: {known} of " in shown
        assert "beside the texts: ids of labels, ids of queries, products of queries, shop" in shown
    assert main(["data", "inspect", str(tmp_path / "offers"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["asked"]["test"] == {"labels": 36, "trained": 36}


CELLS = st.text(
    st.characters(exclude_categories=["Cs"])
    | st.sampled_from(list("\n\r\t \"',;|=\\\u2028\xa0\x00")),
    max_size=12,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_hostile_cells_come_back(tmp_path: Path, data: st.DataObject) -> None:
    """Valid rows of any text, in each shape, against what normalising makes of them."""

    def cell(start: str) -> str:
        return start + data.draw(CELLS)

    count = data.draw(st.integers(30, 40))
    # The bar keeps titles apart: with "t1" and "0" beside "t10", one title would name two products.
    rows = [(f"o{i} {cell('')}", cell(f"t{i}|"), f"p{i % 10}", cell("")) for i in range(count)]
    shape = data.draw(st.sampled_from(sorted(SHAPES)))
    rows = [tuple(text.replace("\x00", "") for text in row) for row in rows]  # CSV has no NUL
    rows += [(f"plain {i}", f"plain title {i}", f"p{i % 10}", "") for i in range(60)]  # every part
    found = rows_of(SHAPES[shape](tmp_path, rows, **KEPT, split_by="query").dataset)
    for own, title, product, shop in rows:
        expected = (normalize_text(title), product, product, normalize_text(shop))
        assert found[normalize_text(own)][1:] == expected
    assert len(found) == len(rows)
