"""The data set folder: what is written is read back, and every fault is named with its line."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alc_kernels.trainer.data import Dataset, Split, load_dataset, save_dataset
from alc_kernels.trainer.data.beside import Columns
from alc_kernels.trainer.data.text.sparse import relation_from_rows
from alc_kernels.trainer.errors import DataError

LABELS = ["Velmora Nova 8 64GB", "Krellmann Kühlschrank 60cm", "Osakura 55QX80A", "Ibexon 電話"]


def make_dataset() -> Dataset:
    def split(
        queries: list[str], rows: list[list[int]], excluded: list[list[int]] | None = None
    ) -> Split:
        left_out = None if excluded is None else relation_from_rows(excluded, len(LABELS))
        return Split(queries, relation_from_rows(rows, len(LABELS)), left_out)

    return Dataset(
        name="tiny",
        labels=LABELS,
        splits={
            "train": split(["nova 8", "kühl 60", "no label"], [[0, 1], [1], []]),
            "validation": split(["a\u2028b", "55qx\tx"], [[2], [3]]),
            "test": split(["電話", "nova"], [[3, 0], []], [[1], [0, 3]]),
        },
        held_out=np.array([False, False, True, True]),
        description="für den Test",
        generated=True,
        protocol="by hand",
        propensity=(0.6, 2.6),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_dataset(make_dataset(), tmp_path / "data")
    return tmp_path / "data"


def test_round_trip_keeps_everything(folder: Path) -> None:
    made, read = make_dataset(), load_dataset(folder)
    assert (read.name, read.labels, read.description) == (made.name, made.labels, made.description)
    assert (read.generated, read.protocol) == (True, "by hand")
    np.testing.assert_array_equal(read.held_out, made.held_out)
    for name, split in made.splits.items():
        assert read.splits[name].queries == split.queries  # separators other than LF survive
        np.testing.assert_array_equal(
            read.splits[name].relation.toarray(), split.relation.toarray()
        )
    assert read.propensity == (0.6, 2.6) and read.folder == folder
    assert read.train.excluded is None
    assert read.test.excluded is not None
    assert read.test.excluded.toarray().tolist() == [[0, 1, 0, 0], [1, 0, 0, 1]]


def test_excluded_pairs_follow_into_the_catalogues(folder: Path) -> None:
    made = load_dataset(folder).catalogues()
    assert list(made) == ["open", "closed"]
    assert made["open"].excluded["test"].toarray().tolist() == [[0, 1], [1, 0]]
    assert made["closed"].excluded["test"].toarray().tolist() == [[0, 1, 0, 0], [1, 0, 0, 1]]
    assert made["open"].excluded["train"].shape == (3, 2)
    assert made["open"].excluded["train"].nnz == 0
    (folder / "held_out.txt").write_bytes(b"")
    (folder / "dataset.json").write_text('{"name": "tiny"}\n')
    assert list(load_dataset(folder).catalogues()) == ["closed"]


def test_a_filter_may_be_empty_or_missing(folder: Path) -> None:
    (folder / "dataset.json").write_text('{"name": "tiny"}\n')
    (folder / "test_filter.txt").write_bytes(b"")
    read = load_dataset(folder)
    assert read.test.excluded is not None and read.test.excluded.nnz == 0
    assert read.propensity == (0.55, 1.5)
    (folder / "test_filter.txt").unlink()
    assert load_dataset(folder).test.excluded is None


def test_open_catalogue_leaves_held_out_labels_out(folder: Path) -> None:
    catalogue = load_dataset(folder).open_catalogue()
    assert catalogue.label_ids.tolist() == [0, 1]
    assert catalogue.texts == LABELS[:2]
    assert catalogue.relations["test"].toarray().tolist() == [[1, 0], [0, 0]]
    assert catalogue.relations["validation"].nnz == 0
    closed = load_dataset(folder).closed_catalogue()
    assert closed.relations["test"].toarray().tolist() == [[1, 0, 0, 1], [0, 0, 0, 0]]


def test_crlf_byte_order_mark_values_and_duplicates_are_understood(folder: Path) -> None:
    for file in folder.glob("*.txt"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    labels = folder / "labels.txt"
    labels.write_bytes(b"\xef\xbb\xbf" + labels.read_bytes())
    relation = folder / "train_X_Y.txt"
    relation.write_text("3 4\n1:0.5 0:2e0 1:1\n1:1.0\n\n")
    (folder / "dataset.json").write_text('{"name": "tiny"}\n')
    read = load_dataset(folder)
    assert read.labels == LABELS
    assert read.train.queries == make_dataset().train.queries
    assert read.train.relation.toarray().tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_text(change(path.read_text("utf-8")), "utf-8")

    return apply


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


FAULTS = {
    "missing file": (lambda f: (f / "test.raw.txt").unlink(), r"test\.raw\.txt: no such file"),
    "no dataset.json": (lambda f: (f / "dataset.json").unlink(), r"dataset\.json: no such file"),
    "a folder in its place": (
        lambda f: [(f / "labels.txt").unlink(), (f / "labels.txt").mkdir()],
        r"labels\.txt: cannot be read",
    ),
    "not JSON": (write("dataset.json", b'{\n"name": oops}\n'), r"dataset\.json, line 2: not JSON"),
    "JSON of another kind": (write("dataset.json", b"[1]\n"), r"found a JSON list, expected"),
    "wrong type in JSON": (
        write("dataset.json", b'{"name": "x", "generated": "no"}\n'),
        r"dataset\.json: found 'no' for 'generated', expected bool",
    ),
    "no name": (write("dataset.json", b"{}\n"), r"found nothing for 'name', expected str"),
    "newer format": (
        write("dataset.json", b'{"name": "x", "format": 9}\n'),
        r"found format 9, expected 1",
    ),
    "not UTF-8": (
        write("labels.txt", b"a\nb\xff\nc\nd\n"),
        r"labels\.txt, line 2: found byte 0xff, expected UTF-8",
    ),
    "UTF-16": (write("labels.txt", "a\nb\n".encode("utf-16")), r"labels\.txt, line 1: found byte"),
    "empty labels": (write("labels.txt", b""), r"labels\.txt, line 1: the file is empty"),
    "blank label": (
        write("labels.txt", b"a\n \nc\nd\n"),
        r"labels\.txt, line 2: found a blank line, expected label texts",
    ),
    "cut in a line": (
        write("labels.txt", b"a\nb\nc\nd"),
        r"labels\.txt, line 4: the last line does not end",
    ),
    "cut between lines": (
        edit("train_X_Y.txt", lambda text: "".join(text.splitlines(True)[:-1])),
        r"train_X_Y\.txt, line 4: found 2 rows after the header, expected 3",
    ),
    "rows too many": (
        edit("train_X_Y.txt", lambda text: text + "0:1\n"),
        r"train_X_Y\.txt, line 5: found 4 rows after the header, expected 3",
    ),
    "a lost query": (
        write("train.raw.txt", b"one\ntwo\n"),
        r"train_X_Y\.txt, line 1: header states 3 rows, expected 2 \(lines of train\.raw\.txt\)",
    ),
    "wrong columns": (
        edit("test_X_Y.txt", lambda text: text.replace("2 4", "2 5")),
        r"test_X_Y\.txt, line 1: header states 5 columns, expected 4 \(lines of labels\.txt\)",
    ),
    "no header": (
        write("test_X_Y.txt", b"3:1 0:1\n\n"),
        r"test_X_Y\.txt, line 1: found '3:1 0:1', expected a header",
    ),
    "label out of range": (
        write("test_X_Y.txt", b"2 4\n3:1\n4:1\n"),
        r"test_X_Y\.txt, line 3: found label 4, expected 0 to 3",
    ),
    "negative label": (write("test_X_Y.txt", b"2 4\n-1:1\n\n"), r"line 2: found '-1:1', expected"),
    "not a number": (write("test_X_Y.txt", b"2 4\n\nx:1\n"), r"line 3: found 'x:1', expected"),
    "no value": (write("test_X_Y.txt", b"2 4\n1\n\n"), r"line 2: found '1', expected label:value"),
    "value NaN": (write("test_X_Y.txt", b"2 4\n1:nan\n\n"), r"line 2: found '1:nan', expected"),
    "value zero": (write("test_X_Y.txt", b"2 4\n1:0\n\n"), r"line 2: found '1:0', expected"),
    "held out of range": (
        write("held_out.txt", b"2\n7\n"),
        r"held_out\.txt, line 2: found label 7, expected 0 to 3",
    ),
    "held out not a number": (
        write("held_out.txt", b"two\n"),
        r"held_out\.txt, line 1: found 'two', expected a label index",
    ),
    "all held out": (write("held_out.txt", b"0\n1\n2\n3\n"), r"held_out\.txt: found all 4 labels"),
    "trained on held out": (
        write("held_out.txt", b"1\n2\n3\n"),
        r"train_X_Y\.txt, line 2: found label 1, which held_out\.txt lists",
    ),
    "filter row out of range": (
        write("test_filter.txt", b"0 1\n2 0\n"),
        r"test_filter\.txt, line 2: found row 2, expected 0 to 1",
    ),
    "filter label out of range": (
        write("test_filter.txt", b"0 4\n"),
        r"test_filter\.txt, line 1: found label 4, expected 0 to 3",
    ),
    "filter without label": (
        write("test_filter.txt", b"0 1\n1\n"),
        r"test_filter\.txt, line 2: found '1', expected 'row label'",
    ),
    "right and excluded": (
        write("test_filter.txt", b"0 3\n"),
        r"test_filter\.txt: found the pair of row 0 and label 3, which test_X_Y\.txt has",
    ),
    "propensity of three": (
        write("dataset.json", b'{"name": "x", "propensity": [1, 2, 3]}\n'),
        r"dataset\.json: found \[1, 2, 3\] for 'propensity', expected two numbers",
    ),
    "negative propensity": (
        write("dataset.json", b'{"name": "x", "propensity": [-1, 2]}\n'),
        r"found \[-1, 2\] for 'propensity', expected two numbers",
    ),
    "queries and rows lost together": (
        lambda f: [
            write("test.raw.txt", "電話\n".encode())(f),
            write("test_X_Y.txt", b"1 4\n3:1 0:1\n")(f),
            write("test_filter.txt", b"0 1\n")(f),
        ],
        r"dataset\.json: states 2 for 'test', found 1 in the files",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_on_one_line(folder: Path, fault: str) -> None:
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(DataError, match=message) as raised:
        load_dataset(folder)
    assert "\n" not in str(raised.value)


def test_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: not a folder"):
        load_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["two\nlines", "", "  ", "ends in\r"])
def test_a_text_that_could_not_be_read_back_is_not_written(tmp_path: Path, text: str) -> None:
    made = make_dataset()
    splits = dict(made.splits) | {"test": Split(["ok", text], made.test.relation)}
    bad = Dataset("bad", LABELS, splits, made.held_out)
    with pytest.raises(DataError, match=r"test\.raw\.txt, line 2: found"):
        save_dataset(bad, tmp_path)
    assert not list(tmp_path.iterdir())


def test_dataset_json_states_the_counts(folder: Path) -> None:
    counts = json.loads((folder / "dataset.json").read_text("utf-8"))["counts"]
    assert counts["labels"] == 4 and counts["held_out"] == 2
    assert counts["train"] == 3 and counts["train_pairs"] == 3 and counts["train_unmatched"] == 1


def test_a_data_set_without_queries_is_refused() -> None:
    made = make_dataset()
    splits = dict(made.splits) | {"validation": Split([], relation_from_rows([], 4))}
    with pytest.raises(DataError, match=re.escape("validation: found 0 queries")):
        Dataset("empty", LABELS, splits, made.held_out)


def test_training_on_held_out_labels_is_refused_in_memory_too() -> None:
    made = make_dataset()
    held_out = np.array([False, True, True, True])
    with pytest.raises(DataError, match=r"held-out label 1 \('Krellmann"):
        Dataset("leaky", LABELS, made.splits, held_out)


# -- ids, columns and products beside the texts --


def make_with_ids() -> Dataset:
    made = make_dataset()
    splits = {}
    for name, split in made.splits.items():
        count = len(split)
        rows = [{"shop": f"s{row}", "price €": ""} for row in range(count)]
        splits[name] = dataclasses.replace(
            split,
            ids=[f"{name}-{row}" if row else "" for row in range(count)],
            columns=Columns.of(rows),
            groups=["7", "gone", ""][:count],
        )
    return dataclasses.replace(
        made, splits=splits, label_ids=["7", "8\t9", "", "A 1"], _catalogues={}
    )


def test_ids_columns_and_groups_come_back(tmp_path: Path) -> None:
    made = make_with_ids()
    save_dataset(made, tmp_path)
    read = load_dataset(tmp_path)
    assert read.label_ids == made.label_ids and read.ids_of_label(1) == ("8", "9")
    assert read.ids_of_label(2) == () and read.ids_of_label(3) == ("A 1",)
    for name, split in made.splits.items():
        found = read.splits[name]
        assert (found.ids, found.groups) == (split.ids, split.groups)
        assert found.columns is not None and found.columns.names == ("shop", "price €")
        assert list(found.columns) == list(split.columns) == found.columns[0 : len(split)]
        assert found.columns[1] == {"shop": "s1", "price €": ""}
    assert copy.deepcopy(read).train.ids == made.train.ids
    assert pickle.loads(pickle.dumps(read.train.ids)) == made.train.ids
    # Queries without a label go by the product that is not in the catalogue.
    assert read.train.group_numbers().tolist() == [0, 1, -1]
    assert read.test.group_numbers().tolist() == [0, 4]
    save_dataset(make_dataset(), tmp_path)  # leaves nothing of it
    assert load_dataset(tmp_path).label_ids is None
    assert not list(tmp_path.glob("*.ids.txt")) and not list(tmp_path.glob("*.jsonl"))


BESIDE = {
    "short ids": ("test.ids.txt", b"a\n", r"test\.ids\.txt: found 1 lines, expected 2 \(lines of"),
    "short label ids": ("labels.ids.txt", b"a\nb\n", r"labels\.ids\.txt: found 2 lines, expec.* 4"),
    "id twice": (
        "labels.ids.txt", b"a\nb\tc\n\nc\n", r"ids\.txt, line 4: found an id that line 2 has as",
    ),
    "no JSON": (
        "test.columns.jsonl", b'{"shop": "a", "price \xe2\x82\xac": ""}\n{"shop\n',
        r"columns\.jsonl, line 2: found '{\"shop', expected a JSON object with texts of shop, pri",
    ),
    "other columns": (
        "test.columns.jsonl", b'{"shop": "a"}\n{"size": "a"}\n', r"line 2: .* with texts of shop$",
    ),
    "a number": ("test.columns.jsonl", b'{"a": 1}\n{"a": "1"}\n', r"line 1: .* with texts by col"),
    "missing": ("train.groups.txt", None, r"train\.groups\.txt: no such file, expected it \(data"),
    "cut": ("test.groups.txt", b"a\nb", r"groups\.txt, line 2: the last line does not end"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BESIDE)
def test_a_fault_beside_the_texts_is_named(tmp_path: Path, fault: str) -> None:
    name, content, message = BESIDE[fault]
    save_dataset(make_with_ids(), tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        load_dataset(tmp_path)
    assert "\n" not in str(raised.value)


def test_sizes_beside_must_agree() -> None:
    made = make_with_ids()
    with pytest.raises(DataError, match="found 1 label_ids, expected 4"):
        dataclasses.replace(made, label_ids=["a"], _catalogues={})
    test = dataclasses.replace(made.test, groups=["a"])
    with pytest.raises(DataError, match="test: found 1 groups, expected 2"):
        dataclasses.replace(made, splits={**made.splits, "test": test}, _catalogues={})
