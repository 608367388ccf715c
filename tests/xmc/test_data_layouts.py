"""The three layouts in use: the same data in each, every oddity, every fault by file and line."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix, save_npz

from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.data.convert import ConvertOptions, convert
from alc_kernels.trainer.data.layouts import LAYOUTS, find_source
from alc_kernels.trainer.data.source import ReadOptions
from alc_kernels.trainer.errors import DataError

FIXTURES = Path(__file__).parent / "fixtures" / "layouts"
LABELS = [
    "Bosch Kühlschrank KGN36",
    "Sony Kopfhörer WH-1000",
    "Café Crème 500 g",
    "電気ケトル 1.7L",
    "Sony Kopfhörer WH-1000",
    "Never asked for",
]
TEST = ["bosch fridge", "Sony Kopfhörer WH-1000", "unknown thing", "電気ケトル", "crema"]
OPTIONS = ConvertOptions(name="tiny", validation_share=0.3)


@pytest.fixture(params=LAYOUTS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / request.param, tmp_path / request.param))


def copy(tmp_path: Path, layout: str) -> Path:
    return Path(shutil.copytree(FIXTURES / layout, tmp_path / layout))


def read(folder: Path, **options: object) -> Dataset:
    source, _ = find_source(folder, options=ReadOptions(**options))  # type: ignore[arg-type]
    return convert(source, folder.parent / "out", OPTIONS, overwrite=True).dataset


def same(a: Dataset, b: Dataset) -> bool:
    def matrices(data: Dataset) -> list[list[list[float]]]:
        splits = data.splits.values()
        wanted = [m for s in splits for m in (s.relation, s.excluded) if m is not None]
        return [m.toarray().tolist() for m in wanted]

    texts = all(a.splits[name].queries == b.splits[name].queries for name in a.splits)
    return texts and a.labels == b.labels and matrices(a) == matrices(b)


def test_what_the_fixtures_say(folder: Path) -> None:
    data = read(folder)
    assert data.labels == LABELS and data.test.queries == TEST
    # Query 1's own label is in its filter: excluded, no longer right.
    assert data.test.relation.toarray().tolist() == [
        [1, 0, 0, 0, 0, 0], [0] * 6, [0] * 6, [0, 0, 0, 1, 0, 0], [1, 0, 1, 0, 0, 0],
    ]  # fmt: skip
    excluded = data.test.excluded.tocoo()
    assert sorted(zip(excluded.row.tolist(), excluded.col.tolist(), strict=True)) == [
        (1, 1), (1, 4), (4, 5),
    ]  # fmt: skip
    assert len(data.train) + len(data.validation) == 15
    queries = list(data.train.queries)
    row = queries.index("wh-1000 schwarz")  # right and filtered: in training it stays right
    assert data.train.relation[row].indices.tolist() == [1, 4]
    assert data.train.excluded[row].nnz == 0
    row = queries.index("kgn36 bosch")
    assert data.train.excluded[row].indices.tolist() == [5]
    row = queries.index("no answer")  # an empty row stays a query without a label
    assert data.train.relation[row].nnz == 0


def test_all_layouts_give_the_same(tmp_path: Path) -> None:
    made = []
    for layout in LAYOUTS:
        (tmp_path / f"of-{layout}").mkdir()
        made.append(read(copy(tmp_path / f"of-{layout}", layout)))
    assert same(made[0], made[1]) and same(made[0], made[2])


def every_text_file(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix == ".txt"]


def crlf(folder: Path) -> None:
    for path in every_text_file(folder):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def byte_order_marks(folder: Path) -> None:
    for path in every_text_file(folder):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def compress_or_not(folder: Path) -> None:
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        raw = path.read_bytes()
        path.unlink()
        if path.suffix == ".gz":
            path.with_suffix("").write_bytes(gzip.decompress(raw))
        else:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(raw))


def repeat_labels(folder: Path) -> None:
    for path in folder.glob("t*_X_Y.txt"):
        path.write_text(re.sub(r"(\d+:1\.0)\n", r"\1 \1\n", path.read_text()))
    for path in folder.glob("t*.json.gz"):
        lines = []
        for line in gzip.decompress(path.read_bytes()).splitlines():
            made = json.loads(line)
            made["target_ind"] *= 2
            made["target_rel"] *= 2
            lines.append(json.dumps(made))
        path.write_bytes(gzip.compress("\n".join(lines).encode()))  # escaped, last line not ended


def repeat_filter_pairs(folder: Path) -> None:
    for path in folder.glob("*filter*"):
        path.write_bytes(path.read_bytes() * 2)


@pytest.mark.parametrize(
    "oddity", [crlf, byte_order_marks, compress_or_not, repeat_labels, repeat_filter_pairs]
)
def test_oddities_that_change_nothing(folder: Path, oddity: Callable[[Path], None]) -> None:
    plain = read(folder)
    plain_texts = [list(split.queries) for split in plain.splits.values()]
    oddity(folder)
    odd = read(folder)
    assert same(plain, odd) and plain_texts == [list(s.queries) for s in odd.splits.values()]


def test_filters_may_be_empty_or_missing(folder: Path) -> None:
    first, second = sorted(folder.glob("*filter*"))
    first.write_bytes(b"")
    second.unlink()
    data = read(folder)
    test, train = data.test.excluded, data.train.excluded
    assert (test, train).count(None) == 1 and (test if train is None else train).nnz == 0


def test_npz_relations(tmp_path: Path) -> None:
    folder = copy(tmp_path, "lines")
    plain = read(folder)
    for name in ("trn", "tst"):
        rows = (folder / f"{name}_X_Y.txt").read_text().splitlines()[1:]
        at = [(i, int(e.split(":")[0])) for i, row in enumerate(rows) for e in row.split()]
        relation = csr_matrix((np.full(len(at), 2.5), np.array(at).T), (len(rows), 6))
        save_npz(folder / f"Y.{name}.npz", relation)
        (folder / f"{name}_X_Y.txt").unlink()
    assert same(read(folder), plain)


def test_title_and_content(tmp_path: Path) -> None:
    data = read(copy(tmp_path, "json"), text="title+content")
    assert data.labels[0] == LABELS[0]  # an empty description adds nothing
    assert data.labels[1] == f"{LABELS[1]} Description of 1. Second line."


def test_latin_1(tmp_path: Path) -> None:
    folder = copy(tmp_path, "raw")
    for path in folder.glob("*.raw.txt"):
        text = path.read_text("utf-8").replace("電気ケトル", "kettle").replace("コーヒー", "coffee")
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"lbl\.raw\.txt, line 1: found byte 0xfc, expected UTF-8"):
        read(folder, encoding="utf-8")
    assert read(folder, encoding="latin-1").labels[2] == "Café Crème 500 g"
    # Found without being told, and said.
    source, _ = find_source(folder)
    made = convert(source, tmp_path / "out", OPTIONS, overwrite=True)
    assert made.dataset.labels[2] == "Café Crème 500 g"
    assert any("lbl.raw.txt: is not UTF-8, read as cp1252" in note for note in made.notes)


def test_blank_texts(tmp_path: Path) -> None:
    folder = copy(tmp_path, "raw")
    path = folder / "tst.raw.txt"
    path.write_text(path.read_text("utf-8").replace("unknown thing", " "), "utf-8")
    with pytest.raises(DataError, match=r"tst\.raw\.txt, line 3: found a blank text.*--replace-bl"):
        read(folder)
    source, _ = find_source(folder, options=ReadOptions(replace_blank="(untitled)"))
    made = convert(source, tmp_path / "out", OPTIONS, overwrite=True)
    assert made.dataset.test.queries[2] == "(untitled)"
    assert "tst.raw.txt: 1 blank texts replaced" in made.notes


def test_which_layout(tmp_path: Path) -> None:
    for layout in LAYOUTS:
        source, others = find_source(copy(tmp_path, layout))
        assert source.layout == layout and others == []
        assert source.name == layout and len(source.files) in (5, 7)
    both = tmp_path / "both"
    for layout in ("raw", "json"):
        shutil.copytree(FIXTURES / layout, both, dirs_exist_ok=True)
    (both / "filter_labels_text.txt").write_text("0 0\n")  # a name that a README misspells
    source, others = find_source(both)
    assert (source.layout, others) == ("json", ["raw"])
    assert [path.name for path in source.unused] == ["filter_labels_text.txt"]
    assert find_source(both, "raw")[0].layout == "raw"


def test_no_layout_says_what_is_lacking(tmp_path: Path) -> None:
    folder = copy(tmp_path, "json")
    (folder / "lbl.json.gz").unlink()
    with pytest.raises(DataError) as raised:
        find_source(folder)
    text = str(raised.value)
    assert "no known layout; json lacks lbl.json; raw lacks trn.raw.txt or train.raw.txt" in text
    assert "lines lacks trn_X.txt or X.trn.txt" in text and "Y.trn.npz" in text
    assert "found filter_labels_test.txt" in text and "\n" not in text
    with pytest.raises(DataError, match=r"nowhere: not a folder"):
        find_source(tmp_path / "nowhere")


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = next(folder.rglob(name))
        packed = path.suffix == ".gz"
        raw = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        assert old.encode() in raw
        raw = raw.replace(old.encode(), new.encode("utf-8", "surrogateescape"), 1)
        path.write_bytes(gzip.compress(raw) if packed else raw)

    return apply


def cut(name: str, count: int) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = next(folder.rglob(name))
        path.write_bytes(path.read_bytes()[:-count])

    return apply


def npz_instead(content: bytes | csr_matrix) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / "tst_X_Y.txt").unlink()
        if isinstance(content, bytes):
            (folder / "Y.tst.npz").write_bytes(content)
        else:
            save_npz(folder / "Y.tst.npz", content)

    return apply


FAULTS = {
    "json cut": (
        "json",
        cut("trn.json.gz", 30),
        r"trn\.json\.gz: not a sound gzip file",
    ),
    "json line cut": (
        "json",
        replace("tst.json.gz", '"target_ind": [2, 0], "target_rel": [1.0, 1.0]}\n', '"target_'),
        r"tst\.json\.gz, line 5: not JSON \(.* at column \d+\), expected an object with title",
    ),
    "json not UTF-8": (
        "json",
        replace("lbl.json.gz", "Café", "Caf\udce9"),
        r"lbl\.json\.gz, line 3: found byte 0xe9, expected UTF-8 text",
    ),
    "json no object": (
        "json",
        replace("tst.json.gz", '{"uid": "E0"', '[]\n{"uid": "E0"'),
        r"tst\.json\.gz, line 1: found a JSON list, expected an object",
    ),
    "json no title": (
        "json",
        replace("trn.json.gz", '"title": "kessel"', '"titel": "kessel"'),
        r"trn\.json\.gz, line 12: found nothing for 'title', expected text",
    ),
    "json title null": (
        "json",
        replace("lbl.json.gz", '"title": "Never asked for"', '"title": null'),
        r"lbl\.json\.gz, line 6: found None for 'title', expected text",
    ),
    "json surrogate": (
        "json",
        replace("tst.json.gz", "bosch fridge", "\\ud83d fridge"),
        r"tst\.json\.gz, line 1: found a lone surrogate, expected valid Unicode",
    ),
    "json no targets": (
        "json",
        replace("trn.json.gz", '"target_ind": [0, 3]', '"target": [0, 3]'),
        r"trn\.json\.gz, line 2: found nothing for 'target_ind', expected a list",
    ),
    "json target text": (
        "json",
        replace("trn.json.gz", "[0, 3]", '["0", 3]'),
        r"trn\.json\.gz, line 2: found \['0', 3\] for 'target_ind', expected a list of whole",
    ),
    "json target range": (
        "json",
        replace("trn.json.gz", "[0, 3]", "[0, 6]"),
        r"line 2: found label 6 in 'target_ind', expected 0 to 5 \(labels of lbl\.json\.gz\)",
    ),
    "json relevance": (
        "json",
        replace("trn.json.gz", "[1.0, 1.0]", "[1.0]"),
        r"trn\.json\.gz, line 2: found \[1\.0\] for 'target_rel', expected 2 positive numbers",
    ),
    "json relevance zero": (
        "json",
        replace("trn.json.gz", "[1.0, 1.0]", "[1.0, 0]"),
        r"trn\.json\.gz, line 2: found \[1\.0, 0\] for 'target_rel', expected 2 positive",
    ),
    "raw texts cut": (
        "raw",
        replace("trn.raw.txt", "kaffee\n", ""),
        r"trn\.raw\.txt: found 14 texts, expected 15 \(rows of trn_X_Y\.txt; truncated\?\)",
    ),
    "raw texts too many": (
        "raw",
        replace("tst.raw.txt", "crema\n", "crema\nmore\n"),
        r"tst\.raw\.txt: found 6 texts, expected 5 \(rows of tst_X_Y\.txt",
    ),
    "raw text cut in a line": (
        "raw",
        cut("lbl.raw.txt", 3),
        r"lbl\.raw\.txt, line 6: the last line does not end",
    ),
    "raw labels lost": (
        "raw",
        replace("lbl.raw.txt", "Never asked for\n", ""),
        r"trn_X_Y\.txt, line 1: header states 6 columns, expected 5 \(labels of lbl\.raw\.txt\)",
    ),
    "raw rows lost": (
        "raw",
        replace("tst_X_Y.txt", "3:1.0\n", ""),
        r"tst_X_Y\.txt, line 6: found 4 rows after the header, expected 5",
    ),
    "raw labels empty": (
        "raw",
        lambda folder: (folder / "lbl.raw.txt").write_bytes(b"") and None,
        r"lbl\.raw\.txt, line 1: the file is empty, expected label texts",
    ),
    "filter row": (
        "raw",
        replace("filter_labels_test.txt", "4 5", "5 5"),
        r"filter_labels_test\.txt, line 3: found row 5, expected 0 to 4",
    ),
    "filter label": (
        "raw",
        replace("filter_labels_test.txt", "4 5", "4 6"),
        r"filter_labels_test\.txt, line 3: found label 6, expected 0 to 5",
    ),
    "filter no pair": (
        "lines",
        replace("trn_filter_labels.txt", "2 4", "2:4"),
        r"trn_filter_labels\.txt, line 2: found '2:4', expected 'row label'",
    ),
    "features": (
        "lines",
        lambda folder: (folder / "raw/trn_X.txt").write_text("2 9\n0:0.5 3:1e-3\n\n") and None,
        r"trn_X\.txt, line 1: found sparse features \('2 9', then '0:0\.5 3:1e-3'\), expected one "
        "text per line",
    ),
    "npz": (
        "lines",
        npz_instead(b"PK\x03\x04 cut"),
        r"Y\.tst\.npz: not a sparse matrix that scipy saved",
    ),
    "npz columns": (
        "lines",
        npz_instead(csr_matrix((5, 7))),
        r"Y\.tst\.npz: found 7 columns, expected 6 \(labels of Y\.txt\)",
    ),
    "npz negative": (
        "lines",
        npz_instead(csr_matrix(([1.0, -1.0], ([0, 3], [0, 1])), (5, 6))),
        r"Y\.tst\.npz, row 4: found a value that is not positive, expected above 0",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_on_one_line(tmp_path: Path, fault: str) -> None:
    layout, damage, message = FAULTS[fault]
    folder = copy(tmp_path, layout)
    damage(folder)
    with pytest.raises(DataError, match=message) as raised:
        read(folder)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out" / "dataset.json").exists()  # nothing half made is taken for whole


def test_a_title_of_two_numbers_is_a_text(tmp_path: Path) -> None:
    folder = copy(tmp_path, "lines")
    path = folder / "raw/trn_X.txt"
    path.write_text(path.read_text("utf-8").replace("kgn36 bosch", "36 500"), "utf-8")
    data = read(folder)
    assert "36 500" in [*data.train.queries, *data.validation.queries]


def test_a_folder_of_tables_names_one(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("query,label\n")
    (tmp_path / "notes.txt").write_text("none\n")
    with pytest.raises(DataError, match=r"; or name a table, e\.g\. pairs\.csv$"):
        find_source(tmp_path)
