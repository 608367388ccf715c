"""alc predict with tables: ids and columns stay with their titles, from any input to any output."""

import csv
import io
import json
import os
import sys

import numpy as np
import pytest

from alc_kernels.cli import main
from alc_kernels.trainer.data import load_dataset, save_dataset

pandas = pytest.importorskip("pandas")
pytest.importorskip("openpyxl")
pytest.importorskip("pyarrow")

TITLES = [
    "plain kettle", "two\nlines", "", "=1+2", 'in"ner, comma', "NA", "-5 % off", "tab\there",
    "é\u2028😀", "x" * 5000, "  around  ", "007",
]  # fmt: skip
FRAME = {
    "offer": [f"{n:04}" for n in range(len(TITLES))],
    "title": TITLES,
    "price": ["1,50", "", "NA", "0", "1e5", "x", "true", "a\nb", "'", '"', "-", "+1"],
    "label": list("abcdefghijkl"),
}


def predict(*words, code=0):
    assert main(["predict", *map(str, words)]) == code


def refused(capsys, *words):
    capsys.readouterr()
    predict(*words, code=2)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def as_text(path):
    if path.suffix == ".jsonl":
        return pandas.read_json(path, lines=True, dtype=False)
    if path.suffix == ".parquet":
        return pandas.read_parquet(path)
    read = pandas.read_excel if path.suffix == ".xlsx" else pandas.read_csv
    return read(path, dtype=str, keep_default_na=False)


def write_frame(path):
    frame = pandas.DataFrame(FRAME)
    if path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    elif path.suffix == ".xlsx":
        from openpyxl import Workbook
        from openpyxl.cell import WriteOnlyCell

        book = Workbook(write_only=True)
        sheet = book.create_sheet()
        for row in [list(frame.columns), *frame.to_numpy().tolist()]:
            cells = [WriteOnlyCell(sheet, value) for value in row]
            for cell in cells:
                cell.data_type = "s"  # to_excel would make a formula of =1+2
            sheet.append(cells)
        book.save(path)
    else:
        frame.to_csv(path, index=False, sep=";" if path.stem == "semicolon" else ",")
    return path


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("t.csv", "o.xlsx"), ("semicolon.csv", "o.parquet"), ("t.parquet", "o.csv"),
        ("t.jsonl", "o.csv"), ("t.xlsx", "o.jsonl"),
    ],
)  # fmt: skip
def test_ids_and_columns_stay_with_their_titles(made, tmp_path, source, output):
    titles, out = write_frame(tmp_path / source), tmp_path / output
    predict(made / "run", titles, "--column", "TITLE", "--query-id-column", "offer",
            "--keep-columns", "price,label", "--k", 2, "--output", out)  # fmt: skip
    back = as_text(out)
    assert list(back.columns) == ["query_id", "query", "rank", "label", "score", "decision",
                                  "price", "input_label"]  # fmt: skip
    first = back[back["rank"].astype(int) == 1]
    assert list(first["query_id"]) == FRAME["offer"]
    assert list(first["query"]) == TITLES
    assert list(first["price"]) == FRAME["price"]
    assert list(first["input_label"]) == FRAME["label"]
    # Two rows per title, one for a blank one; each with the columns of its title.
    assert len(back) == 2 * len(TITLES) - 1
    pairs = dict(zip(FRAME["offer"], FRAME["price"], strict=True))
    assert all(pairs[i] == price for i, price in zip(back["query_id"], back["price"], strict=True))


def test_all_columns_and_a_row_without_any_text(made, tmp_path):
    titles = tmp_path / "t.csv"
    titles.write_text("query,a,b,a\nkettle,1,2,3\n,,,\nlamp,4,5,6\n", encoding="utf-8")
    out = tmp_path / "o.csv"
    predict(made / "run", titles, "--keep-columns", "all", "--output", out)
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["query", "rank", "label", "score", "decision", "a", "b", "input_a"]
    assert [[row[0], *row[5:]] for row in rows[1:]] == [
        ["kettle", "1", "2", "3"], ["", "", "", ""], ["lamp", "4", "5", "6"],
    ]  # fmt: skip
    assert rows[2][:5] == ["", "1", "", "", "review"]


def test_the_column_of_titles_is_found_or_asked_for(made, tmp_path, capsys):
    one = tmp_path / "one.csv"
    one.write_text("Titel\nkettle\n", encoding="utf-8")
    predict(made / "run", one)
    assert capsys.readouterr().out.splitlines()[1].startswith("kettle,1,")
    named = tmp_path / "named.tsv"
    named.write_text("id\tQuery\n1\tkettle\n", encoding="utf-8")
    predict(made / "run", named)
    assert capsys.readouterr().out.splitlines()[1].startswith("kettle,1,")
    several = tmp_path / "several.csv"
    several.write_text("id,titel\n1,kettle\n", encoding="utf-8")
    line = refused(capsys, made / "run", several)
    assert "several.csv" in line and "expected --column to name one of id, titel" in line
    predict(made / "run", several, "--query-id-column", "id")  # the other one is left
    assert capsys.readouterr().out.splitlines()[1].startswith("1,kettle,1,")
    bare = tmp_path / "bare.csv"
    bare.write_text("1,kettle\n2,lamp\n", encoding="utf-8")
    predict(made / "run", bare, "--no-header", "--column", "2", "--keep-columns", "1")
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert [(row[0], row[5]) for row in rows] == [("query", "1"), ("kettle", "1"), ("lamp", "2")]
    assert "did you mean titel?" in refused(capsys, made / "run", several, "--column", "title")
    line = refused(capsys, made / "run", several, "--column", "titel", "--keep-columns", "preis")
    assert "--keep-columns names it" in line


def test_lines_of_text_take_no_options_of_tables(made, tmp_path, capsys):
    titles = tmp_path / "t.txt"
    titles.write_bytes("Wasserkocher für Tee\n".encode("cp1252"))
    predict(made / "run", titles, "--encoding", "cp1252")
    assert capsys.readouterr().out.splitlines()[1].startswith("Wasserkocher für Tee,")
    line = refused(capsys, made / "run", titles, "--delimiter", "tab")
    assert "only --encoding has an effect; --column NAME reads a table" in line
    titles.write_text("id\tquery\n1\tkettle\n\n2\tlamp\n")
    for option, name in (("--keep-columns", "all"), ("--query-id-column", "id")):
        for source in (titles, "-"):
            line = refused(capsys, made / "run", source, option, name)
            assert f"has a title per line, no columns for {option} (--column NAME or" in line
        for table in (["--column", "query"], ["--delimiter", "tab"]):
            predict(made / "run", titles, option, name, *table)
            assert "2 titles: " in capsys.readouterr().err
    line = refused(capsys, made / "run", titles, "--catalogue-column", "label")
    assert "--catalogue-column needs --catalogue FILE" in line


def test_a_title_with_a_cr_comes_back_with_a_line_break(made, tmp_path, capsys):
    titles = tmp_path / "t.csv"
    titles.write_bytes(b'query,price\nnova\rphone,"1\r2"\nkettle,3\n')
    predict(made / "run", titles, "--keep-columns", "all")
    shown = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(shown.out, newline="")))
    assert [(row["query"], row["price"]) for row in rows] == [("nova\nphone", "1\n2"),
                                                             ("kettle", "3")]  # fmt: skip
    assert "2 cells hold line breaks" in shown.err


def test_standard_input_is_a_table_with_a_column(made, tmp_path, capsys, monkeypatch):
    table = write_frame(tmp_path / "semicolon.csv").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(table)))
    predict(
        made / "run", "-", "--column", "title", "--query-id-column", "offer", "--format", "jsonl"
    )
    shown = capsys.readouterr()
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert [(row["query_id"], row["query"]) for row in rows] == [
        *zip(FRAME["offer"], TITLES, strict=True)
    ]
    assert f"{len(TITLES)} titles" in shown.err


def test_a_catalogue_is_a_table_with_ids(made, tmp_path, capsys):
    names = list(load_dataset(made / "data").labels)[:4]
    catalogue, titles = tmp_path / "cat.csv", tmp_path / "t.txt"
    rows = [["sku", "name", "price"], *([f"S{n}", name, n] for n, name in enumerate(names))]
    rows += [["S9", "Qqq 1", ""], ["S9b", "qqq  2", ""], ["S8", "Qqq 1", ""]]
    text = io.StringIO()
    csv.writer(text, delimiter=";").writerows(rows)
    catalogue.write_text(text.getvalue(), encoding="utf-8")
    titles.write_text(f"{names[2]}\nqqq 1\n\n", encoding="utf-8")
    out = tmp_path / "o.csv"
    words = [made / "run", titles, "--catalogue", catalogue, "--catalogue-column", "name",
             "--catalogue-id-column", "sku", "--k", 9, "--output", out]  # fmt: skip
    predict(*words)
    back = as_text(out)
    assert list(back.columns) == ["query", "rank", "label_id", "label", "score", "decision"]
    ids = dict(zip(back["label"], back["label_id"], strict=True))
    assert ids == {**{name: f"S{n}" for n, name in enumerate(names)}, "Qqq 1": "S9\tS8",
                   "qqq 2": "S9b", "": ""}  # fmt: skip
    shown = capsys.readouterr()
    assert "6 labels of cat.csv, 4 of them in the run's data and 2 new" in shown.out
    assert (
        "the catalogue is not the one of validation: 33.3 % of its labels are not in" in shown.out
    )
    assert "above 50 % no threshold is certified for it: nothing is accepted" in shown.out
    assert "cat.csv: 1 label stands there more than once, each counts once, with all its ids" in (
        shown.err
    )

    line = refused(capsys, *words[:4])
    assert "cat.csv" in line and "--catalogue-column to name one of sku, name, price" in line
    catalogue.write_text("sku,label\n1,a\n1,b\n", encoding="utf-8")
    line = refused(capsys, *words[:4], "--catalogue-id-column", "sku")
    assert "line 3: found the id '1', which line 2 has with another label" in line
    catalogue.write_text("sku,label\n1,a\n2,\n", encoding="utf-8")
    assert "line 3: found a blank label" in refused(capsys, *words[:4])
    catalogue.write_text("sku,label\n", encoding="utf-8")
    assert "found no label" in refused(capsys, *words[:4])


def test_how_a_catalogue_is_read_beside_the_titles(made, tmp_path, capsys):
    lines, table = tmp_path / "t.txt", tmp_path / "t.csv"
    lines.write_text("kettle\n")
    table.write_text("1~kettle\n")
    catalogue, sheets = tmp_path / "c.csv", tmp_path / "c.xlsx"
    catalogue.write_text("7~kettle\n8~lamp\n")
    with pandas.ExcelWriter(sheets) as book:
        pandas.DataFrame({"x": [1]}).to_excel(book, sheet_name="first", index=False)
        pandas.DataFrame({"label": ["kettle"], "id": ["K"]}).to_excel(
            book, sheet_name="second", index=False
        )
    bare = ["--delimiter", "~", "--no-header"]
    ids = ["--catalogue-column", "2", "--catalogue-id-column", "1"]
    for words in (
        [lines, "--catalogue", catalogue, *ids, *bare],
        [table, "--column", "2", "--catalogue", catalogue, *ids, *bare],
        [lines, "--catalogue", sheets, "--catalogue-id-column", "id", "--sheet", "second"],
        [table, "--column", "2", *bare, "--catalogue", tmp_path / "c.txt"],
    ):
        (tmp_path / "c.txt").write_text("kettle\n")
        capsys.readouterr()
        predict(made / "run", *words)
        row = capsys.readouterr().out.splitlines()[1].split(",")
        assert row[0] == "kettle" and "kettle" in row[2:4]
        assert row[2] in ("7", "K", "kettle")


def test_ids_of_the_data_reach_the_output(made, tmp_path):
    """Labels of a data folder that has ids, in a run on it."""
    import dataclasses
    import shutil

    from alc_kernels.trainer.evaluation import data_fingerprint

    dataset = load_dataset(made / "data")
    ids = [f"P{n}" for n in range(dataset.num_labels)]
    ids[3] = ""
    save_dataset(dataclasses.replace(dataset, label_ids=ids), tmp_path / "data")
    shutil.copytree(made / "run", tmp_path / "run")
    again = load_dataset(tmp_path / "data")
    if data_fingerprint(again) != data_fingerprint(dataset):
        pytest.skip("the fingerprint tells data with ids from data without")
    out = tmp_path / "o.jsonl"
    predict(tmp_path / "run", made / "data" / "test.raw.txt", "--data", tmp_path / "data",
            "--output", out)  # fmt: skip
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    number = {text: place for place, text in enumerate(dataset.labels)}
    assert all(row["label_id"] == ids[number[row["label"]]] for row in rows)
    assert len({row["label_id"] for row in rows}) > 10


def test_inputs_are_not_written_over(made, tmp_path, capsys):
    titles, catalogue = tmp_path / "t.csv", tmp_path / "c.csv"
    titles.write_text("query\nkettle\n")
    catalogue.write_text("label\nkettle\n")
    os.link(titles, tmp_path / "hard.csv")
    words = [made / "run", titles, "--catalogue", catalogue]
    for name in ("t.csv", "c.csv", "hard.csv"):
        line = refused(capsys, *words, "--output", tmp_path / name)
        assert f"{name}: is read by this command" in line
    # The data folder that the run recorded, though --data does not name it.
    line = refused(capsys, made / "run", titles, "--output", made / "data" / "matches.csv")
    assert "data/matches.csv: is inside of" in line
    assert titles.read_text() == "query\nkettle\n" and catalogue.read_text() == "label\nkettle\n"


def test_interrupted_leaves_the_former_file(made, tmp_path, capsys, monkeypatch):
    from alc_kernels.matching import matcher, ranking

    out = tmp_path / "o.csv"
    out.write_text("former")
    monkeypatch.setattr(matcher, "TITLES_PER_PASS", 5)
    calls = []

    def interrupted(*_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return np.zeros((5, 1), np.float32), np.zeros((5, 1), np.int64)

    monkeypatch.setattr(ranking.ExactIndex, "search", interrupted)
    predict(made / "run", made / "data" / "test.raw.txt", "--output", out, code=130)
    assert out.read_text() == "former" and [p.name for p in tmp_path.iterdir()] == ["o.csv"]
    assert capsys.readouterr().err.endswith("interrupted\n")
