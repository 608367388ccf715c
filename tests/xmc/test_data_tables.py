"""Text tables as people have them: delimiter, encoding, quotes, line ends, compression, faults."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zipfile
from pathlib import Path

import pytest

from alc_kernels.trainer.data.tables import (
    Changes,
    TableOptions,
    is_table,
    normalize_text,
    open_table,
)
from alc_kernels.trainer.data.tables.table import Pass, Table
from alc_kernels.trainer.errors import DataError, counted

ROWS = [["kühl, 60; l", "Fridge 60"], ['nova "8"', "Nova 8"], ["two\nlines", "TV|55"], ["", "x\ty"]]
WANTED = [["kühl, 60; l", "Fridge 60"], ['nova "8"', "Nova 8"], ["two lines", "TV|55"], ["", "x y"]]


def text_of(rows: list[list[str]], delimiter: str = ",", end: str = "\n") -> str:
    made = io.StringIO()
    writer = csv.writer(made, delimiter=delimiter, lineterminator=end)
    writer.writerows([["Query", " label "], *rows])
    return made.getvalue()


def cells(table: Table, *columns: str) -> list[list[str]]:
    places = [table.find(column, "--column") for column in columns or table.columns]
    return [row for _, row in table.rows(places)]


def write(path: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt"])
def test_delimiter_and_line_ends_are_found(
    tmp_path: Path, name: str, delimiter: str, end: str
) -> None:
    table = open_table(write(tmp_path / name, text_of(ROWS, delimiter, end)))
    assert table.columns == ("Query", "label") and table.unit == "line"
    assert cells(table) == WANTED and cells(table, "LABEL") == [[b] for _, b in WANTED]
    said = [note for note in table.notes if "columns parted by" in note]
    usual = {"t.csv": ",", "t.tsv": "\t", "t.txt": "\t"}[name]
    assert len(said) == (delimiter != usual)


@pytest.mark.parametrize(
    ("encoding", "note"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-16", "read as UTF-16, by its byte order mark"),
        ("utf-16-le", "read as UTF-16, by its zero bytes"),
        ("utf-16-be", "read as UTF-16, by its zero bytes"),
        ("utf-32", "read as UTF-32, by its byte order mark"),
        ("cp1252", "is not UTF-8, read as cp1252"),
    ],
)
def test_encoding_is_found_and_said(tmp_path: Path, encoding: str, note: str | None) -> None:
    path = write(tmp_path / "t.csv", text_of(ROWS), encoding)
    table = open_table(path)
    assert cells(table) == WANTED
    assert [n for n in table.notes if "read as cp" in n or "read as UTF" in n] == (
        [n for n in table.notes if note in n] if note else []
    )
    assert note is None or any(note in n for n in table.notes)
    given = open_table(path, TableOptions(encoding=encoding))
    assert cells(given) == WANTED and not any("read as UTF" in n for n in given.notes)


def test_an_encoding_that_no_rule_finds_can_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", text_of([["žluťoučký", "ąę"], *ROWS[1:]]), "cp1250")
    table = open_table(path, TableOptions(encoding="cp1250"))
    assert cells(table)[0] == ["žluťoučký", "ąę"]
    with pytest.raises(DataError, match=r"t\.csv, line 2: found byte 0x9d.*--encoding names"):
        open_table(path)
    with pytest.raises(DataError, match=r"t\.csv, line 2: found byte 0x9e, expected ASCII text"):
        cells(open_table(path, TableOptions(encoding="ascii")))
    with pytest.raises(DataError, match=r"t\.csv: is not UTF-16 \(.*BOM"):
        cells(open_table(path, TableOptions(encoding="utf-16")))
    with pytest.raises(ValueError, match="'utf-9' is no text encoding"):
        TableOptions(encoding="utf-9")
    with pytest.raises(ValueError, match="is no text encoding"):
        TableOptions(encoding="rot13")


def test_a_damaged_utf8_file_is_not_taken_for_another_encoding(tmp_path: Path) -> None:
    raw = "query,label\nKühl,ä\nGrün,ö\n".encode()
    path = write(tmp_path / "t.csv", raw.replace("ö".encode(), b"\xc3"))
    with pytest.raises(DataError, match=r"t\.csv, line 3: found byte 0xc3, expected UTF-8 text as"):
        open_table(path)
    # a letter beyond the first blocks still decides
    body = "query,label\n" + "abc,def\n" * 300_000 + "Käse,x\n"
    table = open_table(write(tmp_path / "t.csv", body, "latin-1"))
    assert table.notes and cells(table)[-1] == ["Käse", "x"]


@pytest.mark.parametrize("ending", [".gz", ".zip", ".zst"])
@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl"])
def test_compressed(tmp_path: Path, kind: str, ending: str) -> None:
    text = {
        ".csv": text_of(ROWS),
        ".tsv": text_of(ROWS, "\t"),
        ".jsonl": '{"Query": "a b", "label": 7}\n',
    }[kind].encode()
    path = tmp_path / f"t{kind}{ending}"
    if ending == ".gz":
        made = gzip.compress(text[:20]) + gzip.compress(text[20:])
    elif ending == ".zst":
        zstandard = pytest.importorskip("zstandard")
        pack = zstandard.ZstdCompressor().compress
        made = pack(text[:20]) + pack(text[20:])
    else:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/", "")
            archive.writestr(f"folder/t{kind}", text)
            archive.writestr("__MACOSX/t", "x")
        made = file.getvalue()
    write(path, made)
    assert is_table(path)
    wanted = [["a b", "7"]] if kind == ".jsonl" else WANTED
    assert cells(open_table(path)) == wanted
    if ending == ".zip":  # an archive that does not say what it holds
        assert cells(open_table(path.rename(tmp_path / "t.zip"))) == wanted
        path = tmp_path / "t.zip"
    for cut in (made[: len(made) // 2], made[:-6], b"something else"):
        write(path, cut)
        with pytest.raises(DataError, match=r"not a sound (gzip|zip|zstandard) file") as raised:
            cells(open_table(path))
        assert "\n" not in str(raised.value)


def test_an_archive_of_several_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    with pytest.raises(DataError, match=r"holds 2 files \(a\.csv, b\.csv\), expected one"):
        open_table(tmp_path / "t.csv.zip")


def test_quotes_that_are_plain_characters(tmp_path: Path) -> None:
    """Titles with inch marks, as tab-separated exports have them: 180 rows, not 120."""
    lines = []
    for i in range(60):
        lines += [f'"Nova {i}\tl{i}', f"plain {i}\tm{i}", f'TV 55"\tn{i}"']
    path = write(tmp_path / "t.tsv", "query\tlabel\n" + "\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"t\.tsv, line 2: .*--no-quoting"):
        cells(open_table(path))
    made = cells(open_table(path, TableOptions(quoting=False)))
    assert made == [line.split("\t") for line in lines]


MERGED = 'query\tlabel\n"foo\tl1\nbar"\tl2\nbaz\tl3\n'


def test_a_cell_that_seems_to_have_swallowed_rows_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv", MERGED)
    with pytest.raises(
        DataError, match=r"t\.tsv, line 2: a quote opens a cell that ends on line 3, .*--quoting if"
    ):
        cells(open_table(path))
    assert cells(open_table(path, TableOptions(quoting=False)))[0] == ['"foo', "l1"]
    assert cells(open_table(path, TableOptions(quoting=True)))[0] == ["foo l1 bar", "l2"]
    # The same cell in a file whose quotes evidently enclose cells.
    for proof in ('"a\tb"\tl0\n', '"5"" a"\tl0\n'):
        write(path, MERGED.replace("\n", "\n" + proof, 1))
        assert cells(open_table(path))[1] == ["foo l1 bar", "l2"]
    write(path, MERGED.replace("query", '"query"'))
    assert cells(open_table(path))[0] == ["foo l1 bar", "l2"]
    write(path, 'query\tlabel\n"foo\tl1\n"\tl2\n')
    assert cells(open_table(path)) == [["foo l1", "l2"]]
    # No line of it would be a row by itself: it needs no proof.
    write(path, 'query\tlabel\n"foo\nbar"\tl2\n')
    assert cells(open_table(path)) == [["foo bar", "l2"]]


def test_a_quote_that_opens_a_cell_without_end(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "query,label\na,b\n" + '"c,d\n' + "e,f\n" * 5000)
    with pytest.raises(DataError, match=r"t\.csv, line 3: a quote opens .* 1000 lines \(--no-q"):
        cells(open_table(path))
    with pytest.raises(DataError, match=r"t\.csv, line 3: a quote opens a cell that never ends"):
        cells(open_table(path, TableOptions(quoting=True)))
    long = "line\n" * 3000
    path = write(tmp_path / "t.csv", text_of([[long, "x"]]))
    assert cells(open_table(path, TableOptions(quoting=True))) == [[normalize_text(long), "x"]]


def test_cells_of_any_length_and_rows_without_text(tmp_path: Path) -> None:
    long = "x" * 400_000
    path = write(tmp_path / "t.csv", f"a,b\n\n1,{long}\n   \n,\n2,y")
    table = open_table(path)
    assert list(table.rows([1])) == [(3, [long]), (6, ["y"])]
    assert table.notes == [f"{path}: 1 row without any text, left out"]
    one = open_table(write(tmp_path / "one.csv", 'title\na\n""\n\n b\n'))
    assert list(one.rows([0])) == [(2, ["a"]), (3, [""]), (5, ["b"])]


def test_files_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a;b;3\nc;d;4\n")
    table = open_table(path, TableOptions(header=False))
    assert table.columns == ("1", "2", "3")
    assert list(table.rows([table.find("3", "--column"), 0])) == [(1, ["3", "a"]), (2, ["4", "c"])]
    with pytest.raises(DataError, match=r"found columns 1, 2, 3, expected 'title' \(--column"):
        table.find("title", "--column")
    # a column's number does as well where no column has it as its name
    named = open_table(write(tmp_path / "n.csv", "2,x,y\na,b,c\n"))
    assert [named.find(name, "-") for name in ("2", "3", "x")] == [0, 2, 1]


def test_columns_are_found_without_case_and_never_guessed(tmp_path: Path) -> None:
    table = open_table(write(tmp_path / "t.csv", "\ufeff Title ,title,SKU,sku,Price,Titel\n"))
    assert table.find("Title", "-") == 0 and table.find("title ", "-") == 1
    assert table.find("price", "-") == 4 and table.has("PRICE") and not table.has("prices")
    with pytest.raises(DataError, match="found 2 columns 'TITLE', number 1 and 2, expected one"):
        table.find("TITLE", "--query-column")
    with pytest.raises(DataError, match=r"\(--query-column names it\); did you mean Price\?$"):
        table.find("prise", "--query-column")
    with pytest.raises(
        DataError, match=r"\(--query-column names it\); --no-header if the first line is a row$"
    ):
        table.find("product", "--query-column")


FAULTS = {
    "empty": ("t.csv", "", r"line 1: the file is empty, expected a header"),
    "blank": ("t.csv", "\n \n", r"line 1: the file is empty, expected a header"),
    "ragged": ("t.csv", "a,b\n1,2\n1\n", r"line 3: found 1 column, expected 2 \(a, b\)"),
    "too many": ("t.csv", "a,b\n1,2,3\n", r"line 2: found 3 columns, expected 2 \(a, b\)"),
    "ragged behind quotes": (
        "t.csv", 'a,b\n"1\n2",3\n"4\n5"\n',
        r"line 4: found 1 column, expected 2 .*--no-quoting",
    ),
    "quote inside": ("t.csv", 'a,b\n"1" x,2\n', r"line 2: a quote ends inside a cell, .*--no-quot"),
    "no end": ("t.csv", 'a,b\n1,"2\n3', r"line 2: a quote opens a cell that never ends"),
    "tie": ("t.csv", "a;b,c\n1;2,3\n", r"line 1: .* parted by comma or semicolon, .*--delimiter"),
    "binary": ("t.csv", b"a,b\n" * 9 + b"\x00\x01\n", r"line 10: found a zero byte"),
    "gzip": ("t.csv", gzip.compress(b"a,b"), r"is a \.gz file by its content"),
    "excel": ("t.csv", b"PK\x03\x04abcdefgh", r"is a \.zip or \.xlsx file by its content"),
    "old excel": ("t.csv", b"\xd0\xcf\x11\xe0abcdefgh", r"is a \.xls file by its content"),
    "parquet": ("t.csv", b"PAR1abcdefgh", r"is a \.parquet file by its content"),
    "kind": ("t.xls", "x", r"expected a file that ends in one of \.csv, .*; save it as \.xlsx"),
    "json": ("t.jsonl", '{"a": 1}\n{"a": \n', r"line 2: not JSON \(.* at column \d+\)"),
    "json list": ("t.jsonl", '[{"a": 1}]\n', r"line 1: found no JSON object"),
    "json nested": ("t.jsonl", '{"a": 1}\n{"a": {"b": 1}}', r"line 2: found an object for 'a'"),
    "json array": ("t.ndjson", '{"a": [1]}', r"line 1: found a list for 'a'"),
    "json twice": ("t.jsonl", '{"a": 1, "a": 2}', r"line 1: found the key 'a' twice"),
    "json NaN": ("t.jsonl", '{"a": NaN}', r"line 1: found NaN, which is no JSON"),
    "json surrogate": ("t.jsonl", '{"a": "\\ud800"}', r"line 1: found a lone surrogate in 'a'"),
    "json empty": ("t.jsonl", "\n", r"line 1: the file is empty"),
    "not parquet": ("t.parquet", "PAR1", r"t\.parquet: not a sound Parquet file"),
    "packed": ("t.parquet.gz", b"x", r"is compressed on the outside"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_with_its_place(tmp_path: Path, fault: str) -> None:
    name, content, message = FAULTS[fault]
    if "parquet" in name:
        pytest.importorskip("pyarrow")
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=message) as raised:
        cells(open_table(path))
    assert "\n" not in str(raised.value) and name in str(raised.value)


def test_options_that_a_kind_does_not_have_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", '{"a": 1}\n')
    for options, flag in (
        (TableOptions(delimiter="tab"), "--delimiter"),
        (TableOptions(header=False), "--no-header"),
        (TableOptions(quoting=False), "--no-quoting"),
        (TableOptions(sheet="x"), "--sheet"),
    ):
        with pytest.raises(DataError, match=f"is no table that {flag} applies to"):
            open_table(path, options)
    with pytest.raises(ValueError, match="'xx': expected one character"):
        TableOptions(delimiter="xx")
    assert TableOptions(delimiter="Semicolon").delimiter == ";"
    assert TableOptions(delimiter="^").delimiter == "^"
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        open_table(tmp_path / "gone.csv")
    with pytest.raises(DataError, match="found a list, expected a path or a data frame"):
        open_table([1])


def test_a_delimiter_is_found_in_spite_of_others_in_the_cells(tmp_path: Path) -> None:
    cases = {
        "name;price\na, b;1,5\nc, d;2,5\n": [["a, b", "1,5"], ["c, d", "2,5"]],
        'name,sizes\n"a;b",1;2\nc,3;4\n': [["a;b", "1;2"], ["c", "3;4"]],
        "sep=|\nname|x\na|b\n": [["a", "b"]],
        "title\na; b\nc\n": [["a; b"], ["c"]],
        "a;b,c\n1;2\n3;4\n": [["1", "2"], ["3", "4"]],
    }
    for text, wanted in cases.items():
        assert cells(open_table(write(tmp_path / "t.csv", text))) == wanted
    with pytest.raises(DataError, match=r"line 2: found 2 columns, expected 1"):
        cells(open_table(write(tmp_path / "t.csv", "title\na, b\n")))
    tab = TableOptions(delimiter="tab")
    assert cells(open_table(tmp_path / "t.csv", tab)) == [["a, b"]]


def test_json_lines_show_values_as_written(tmp_path: Path) -> None:
    text = (
        '{"id": 12345678901234567890, "p": 1.50, "ok": true, "t": "a\\nb"}\r\n\n'
        '{"p": null, "t": "ä", "more": {"x": [1]}}\n{"id": 1e5}'
    )
    table = open_table(write(tmp_path / "t.jsonl", text))
    assert table.columns == ("id", "p", "ok", "t", "more") and table.unit == "line"
    assert list(table.rows([0, 1, 2, 3])) == [
        (1, ["12345678901234567890", "1.50", "true", "a b"]),
        (3, ["", "", "", "ä"]),
        (4, ["1e5", "", "", ""]),
    ]
    assert any("1 line has no 'id', read as empty" in note for note in table.notes)


def test_texts_are_normalised_in_one_way() -> None:
    for raw in ("a b", " a  b ", "a\nb", "a\r\nb", "a\rb", "a\u2028b", "a\u00a0b", "\ta \x85 b\n"):
        assert normalize_text(raw) == "a b"
    assert normalize_text(" \n") == ""


def test_how_many_texts_became_one(tmp_path: Path) -> None:
    from alc_kernels.trainer.data.text.texts import Digests

    raw = ["a b", "a\nb", "a  b", "a\nb", "c", " c", "d\ne", ""]
    path = write(tmp_path / "t.csv", text_of([[text, "x"] for text in raw]))
    changes, table = Changes(), open_table(path)
    texts = [cell for _, (cell,) in table.rows([0], changes)]
    assert texts == ["a b", "a b", "a b", "a b", "c", "c", "d e", ""]
    assert changes.became_one(0, Digests(texts).array()) == 3
    assert changes.became_one(1, Digests(texts).array()) == 0
    assert [note.partition(": ")[2].partition(" cells")[0] for note in table.notes] == ["3", "in 2"]


@pytest.mark.parametrize(
    ("name", "package"),
    [("t.csv.zst", "zstandard"), ("t.xlsx", "openpyxl"), ("t.parquet", "pyarrow"), ("", "pyarrow")],
)
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    source = write(tmp_path / name, b"x") if name else object()
    with pytest.raises(
        DataError, match=rf"needs the package {package}: pip install 'alc-k.*tables"
    ):
        open_table(source)


def test_labels_are_known_by_their_normalised_texts() -> None:
    """A data folder made by hand may have more blanks than a catalogue that was read."""
    from types import SimpleNamespace

    import numpy as np

    from alc_kernels.trainer.evaluation.matching import known_labels
    from alc_kernels.trainer.training.training_set import TrainingSet

    trained = TrainingSet.__new__(TrainingSet)
    trained.dataset = SimpleNamespace(labels=["tv  55", "fridge\u00a060"], label_ids=None)
    model = SimpleNamespace(label_side=object())
    checkpoint = SimpleNamespace(model=model, parts={"data": trained._labels})
    np.testing.assert_array_equal(
        known_labels(checkpoint, ["fridge 60", "tv 55", "new"]), [1, 0, -1]
    )


def test_a_cr_inside_a_cell_is_a_line_break(tmp_path: Path) -> None:
    for name, text in (
        ("lf.csv", 'query,label\nnova\rphone,"a\rb"\n"x","c\nd"\n'),
        ("cr.csv", 'query,label\rnova\nphone,"a\nb"\r"x","c\rd"\r'),
    ):
        table = open_table(write(tmp_path / name, text))
        raw = [cells for _, cells in table._cells([0, 1], Pass())]
        assert raw == [["nova\nphone", "a\nb"], ["x", "c\nd"]]
        assert cells(table) == [["nova phone", "a b"], ["x", "c d"]]
        assert table.notes == [f"{tmp_path / name}: 3 cells hold line breaks, read as blanks"]


def test_an_encoding_that_the_file_has_not_is_told_from_the_one_it_has(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "query,label\nkühl,b\n")
    with pytest.raises(
        DataError, match=r"is not UTF-16 \(it reads as UTF-8: leave out --encoding\)"
    ):
        open_table(path, TableOptions(encoding="utf-16"))
    with pytest.raises(DataError, match=r"0xc3, expected ASCII text \(it reads as UTF-8: leave"):
        cells(open_table(path, TableOptions(encoding="ascii")))


ABOVE = "the header must be the first row: remove the rows above the header"


@pytest.mark.parametrize("title", ["Offers 2024\n", "Offers 2024,,\n", "Offers\nof May\n"])
def test_a_title_above_the_header_is_told(tmp_path: Path, title: str) -> None:
    path = write(tmp_path / "t.csv", f"{title}query,label,price\na,b,1\nc,d,2\n")
    table = open_table(path)
    with pytest.raises(DataError, match=ABOVE):
        table.find("query", "--query-column")
    if ",," not in title:
        with pytest.raises(DataError, match=f"found 3 columns, expected 1 .*{ABOVE}"):
            list(table.rows([0]))


def test_one_column_of_titles_with_a_delimiter_has_no_title_above(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "name\nkettle\nred, blue\nlamp\n")
    with pytest.raises(DataError, match="found 2 columns, expected 1") as raised:
        list(open_table(path).rows([0]))
    assert ABOVE not in str(raised.value)


def test_a_count_of_one_is_in_the_singular() -> None:
    assert counted(1, "queries without a label") == "1 query without a label"
    assert counted(1, "cells hold", "cell holds") == "1 cell holds"
    assert counted(1200, "rows") == "1,200 rows" and counted(0, "rows") == "0 rows"
