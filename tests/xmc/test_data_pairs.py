"""One's own pairs: CSV and Parquet, with and without splits, every fault by file and line."""

from __future__ import annotations

import csv
import gzip
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.data.convert import ConvertOptions, convert
from alc_kernels.trainer.data.protocol import text_hash
from alc_kernels.trainer.data.shapes import PairOptions, find_pairs
from alc_kernels.trainer.data.text.texts import Digests, group, member
from alc_kernels.trainer.errors import DataError

SPLIT = """query,label,split
kühl 60,Fridge 60,train
"nova 8, 64gb",Nova 8,train
kühl 60,Kühlschrank,train
 kühl 60 ,Fridge 60,train
nothing,,train
tv,TV 55,validation
電話,Nova 8,test
"two
lines",TV 55,test
kühl 60,Fridge 60,test
none,,test
"""


def read(path: Path, options: PairOptions | None = None) -> Dataset:
    source = find_pairs(path, options)
    return convert(source, path.parent / "out", ConvertOptions(validation_share=0.2)).dataset


def rows(data: Dataset, split: str) -> dict[str, list[str]]:
    part = data.splits[split]
    return {
        query: [data.labels[label] for label in part.relation[row].indices]
        for row, query in enumerate(part.queries)
    }


def check_split(data: Dataset) -> None:
    assert data.labels == ["Fridge 60", "Nova 8", "Kühlschrank", "TV 55"]
    assert rows(data, "train") == {
        "kühl 60": ["Fridge 60", "Kühlschrank"], "nova 8, 64gb": ["Nova 8"], "nothing": [],
    }  # fmt: skip
    assert rows(data, "validation") == {"tv": ["TV 55"]}
    assert rows(data, "test") == {
        "電話": ["Nova 8"], "two lines": ["TV 55"], "kühl 60": ["Fridge 60"], "none": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("pairs.csv", lambda text: text.encode()),
        ("pairs.csv", lambda text: text.removesuffix("\n").encode()),
        ("pairs.csv", lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()),
        ("pairs.csv.gz", lambda text: gzip.compress(text.encode())),
        ("pairs.tsv", lambda text: text.replace(",", "\t").replace("8\t 64gb", "8, 64gb").encode()),
        ("pairs.csv", lambda text: text.replace("\n", ",x\n").replace("two,x", "two").encode()),
    ],
)
def test_csv(tmp_path: Path, name: str, change) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / name).write_bytes(change(SPLIT))
    data = read(tmp_path / name)
    check_split(data)
    assert data.name == "pairs" and data.protocol == "train and test as in the source"


def test_parquet_and_columns_by_name(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    _, *cells = csv.reader(io.StringIO(SPLIT))
    columns = {"title": 0, "product": 1, "part": 2}
    table = {name: [row[at] or None for row in cells] for name, at in columns.items()}
    made = pyarrow.table({**table, "price": list(range(len(cells)))})
    made = made.set_column(1, "product", made["product"].dictionary_encode())
    parquet.write_table(made, tmp_path / "pairs.parquet", row_group_size=3)
    check_split(read(tmp_path / "pairs.parquet", PairOptions("title", "product", "part")))


def test_without_a_split_column_hashes_decide(tmp_path: Path) -> None:
    queries = [f"query {i}" for i in range(300)]
    text = "query,label\n" + "".join(f"{q},label {i % 7}\n" for i, q in enumerate(queries))
    (tmp_path / "pairs.csv").write_text(text)
    data = read(tmp_path / "pairs.csv", PairOptions(test_share=0.4))
    assert data.test.queries == [q for q in queries if text_hash(q) % 10_000 >= 6000]
    assert data.validation.queries == [q for q in queries if text_hash(q) % 10_000 < 2000]
    assert sum(data.counts()[name] for name in data.splits) == 300
    assert data.protocol == (
        "test: queries with sha1 mod 10000 >= 6000; "
        "validation: training queries with sha1 mod 10000 < 2000"
    )


FAULTS = {
    "empty": ("", r"pairs\.csv, line 1: the file is empty, expected a header"),
    "header only": ("query,label\n", r"pairs\.csv: found no rows below the header"),
    "no query column": (
        "title,label\na,b\n",
        r"columns title, label, expected 'query' \(--query-c",
    ),
    "no label column": ("query,product\na,b\n", r"expected 'label' \(--label-column names it\)"),
    "no query": ("query,label\na,b\n ,c\n", r"pairs\.csv, line 3: found no query, expected text"),
    "no labels": ("query,label\na,\nb, \n", r"pairs\.csv: column 'label' is empty in every row"),
    "short row": (
        'query,label\n"a\nb",c\nd\n',
        r"pairs\.csv, line 4: found 1 column, expected 2 \(query, label\)",
    ),
    "unknown split": (
        "query,label,split\na,b,train\na,b,fold 1\n",
        r"pairs\.csv, line 3: found 'fold 1' as split, expected one of train, validation, test",
    ),
    "no test": (
        "query,label,split\na,b,train\n",
        r"pairs\.csv: found no rows of test, expected some: column 'split' never says it",
    ),
    "few rows": (
        "query,label\na,b\n",
        r"found no rows of (train|test), expected some: split by queries, 1 in all",
    ),
    "open quote": ('query,label\n"a,b\nc,d\n', r"pairs\.csv, line 2: a quote opens a cell that"),
    "cut": ("query,label\na,b\nc", r"pairs\.csv, line 3: found 1 column, expected 2"),
    "cut quote": ('query,label\na,b\nc,"d', r"pairs\.csv, line 3: a quote opens a cell that never"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_on_one_line(tmp_path: Path, fault: str) -> None:
    text, message = FAULTS[fault]
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(DataError, match=message) as raised:
        read(tmp_path / "pairs.csv")
    assert "\n" not in str(raised.value)


def test_encoding_and_endings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pairs.xls").touch()
    with pytest.raises(DataError, match=r"pairs\.xls: expected a file that ends in one of \.csv"):
        read(tmp_path / "pairs.xls")
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1 cut")
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=r"pairs\.parquet: not a sound Parquet file"):
        read(tmp_path / "pairs.parquet")
    with pytest.raises(DataError, match=r"gone\.parquet: no such file"):
        read(tmp_path / "gone.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'alc-kernels\[tables\]'"):
        read(tmp_path / "pairs.parquet")


def test_what_a_split_may_be_called_and_texts_that_become_one(tmp_path: Path) -> None:
    rows = (("a b", "x", "Train"), ("a\nb", "y", "TRN"), ("a  b", "x", "test "),
            ("c", "x\ny", "val"), ("d", "x y", "validation"), ("e", "x  y", "Test"))  # fmt: skip
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("query", "label", "split"), *rows])
    source = find_pairs(tmp_path / "pairs.csv")
    made = convert(source, tmp_path / "out")
    assert list(made.dataset.labels) == ["x", "y", "x y"]
    assert list(made.dataset.train.queries) == ["a b"]
    assert list(made.dataset.test.queries) == ["a b", "e"]
    assert any("2 queries differed from others in white space alone" in n for n in made.notes)
    assert any("2 labels differed from others in white space alone" in n for n in made.notes)


def test_parquet_columns_must_hold_text(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"query": ["a"], "label": [[3]]}), tmp_path / "pairs.pq")
    with pytest.raises(DataError, match=r"pairs\.pq: column 'label' holds list<.*, expected text"):
        read(tmp_path / "pairs.pq")
    table = pyarrow.table({"query": ["a", None], "label": ["b", "c"]})
    parquet.write_table(table, tmp_path / "pairs.pq")
    with pytest.raises(DataError, match=r"pairs\.pq, row 2: found no query"):
        read(tmp_path / "pairs.pq")


@given(st.lists(st.sampled_from("abcdef"), max_size=20), st.lists(st.sampled_from("abcdef")))
@settings(max_examples=80, deadline=None)
def test_groups_are_those_of_the_texts(texts: list[str], others: list[str]) -> None:
    numbers, firsts = group(Digests(texts).array())
    distinct = list(dict.fromkeys(texts))
    assert numbers.tolist() == [distinct.index(text) for text in texts]
    assert firsts.tolist() == [texts.index(text) for text in distinct]
    found = member(Digests(texts).array(), Digests(others).array())
    np.testing.assert_array_equal(found, [text in others for text in texts])
