"""One table in every kind of file: the same data folder, byte for byte, and the same matches."""

import csv
import gzip
import io
import json
import zipfile

import pytest
from cli_cases import TINY

from alc_kernels.cli import main

HOSTILE = ['in"ner', "a,b", "a;b", "tab\there", "two\nlines", "two\r\nlines", "a|b", " ends ",
           "a  b", "007", "1e5", "NA", "kühl é", "'", "=", "-"]  # fmt: skip
ROWS = [[f"{HOSTILE[i % 16]} title {i}", f"{HOSTILE[i % 7]} product {i % 30}", f"{i:04}"]
        for i in range(240)]  # fmt: skip
HEADER = ["Title", "Product", "Offer"]


def text(delimiter=",", header=True, **format):
    made = io.StringIO()
    writer = csv.writer(made, delimiter=delimiter, **{"lineterminator": "\n", **format})
    writer.writerows([HEADER, *ROWS] if header else ROWS)
    return made.getvalue()


def save_csv(folder):
    (folder / "t.csv").write_bytes(text().encode())
    return folder / "t.csv", []


def save_german(folder):
    (folder / "t.csv").write_bytes(text(";", lineterminator="\r\n").encode("cp1252"))
    return folder / "t.csv", []


def save_utf16(folder):
    (folder / "t.txt").write_bytes(text("\t").encode("utf-16"))
    return folder / "t.txt", []


def save_given(folder):
    raw = text("^", quoting=csv.QUOTE_ALL).encode("latin-1")
    (folder / "t.csv.gz").write_bytes(gzip.compress(raw))
    return folder / "t.csv.gz", ["--delimiter", "^", "--encoding", "latin-1", "--quoting"]


def save_zip(folder):
    with zipfile.ZipFile(folder / "t.zip", "w") as archive:
        archive.writestr("t.tsv", text("\t"))
    return folder / "t.zip", []


def save_json_lines(folder):
    lines = [json.dumps(dict(zip(HEADER, row, strict=True))) for row in ROWS]
    (folder / "t.jsonl").write_text("\n".join(lines))
    return folder / "t.jsonl", []


def save_parts(folder):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (folder / "t").mkdir()
    for number in range(3):
        rows = ROWS[number * 80 : number * 80 + 80]
        columns = [pa.array([row[i] for row in rows], pa.string_view()) for i in range(3)]
        parquet.write_table(pa.table(columns, HEADER), folder / "t" / f"part-{number}.parquet")
    return folder / "t", []


def save_sheet(folder):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.create_sheet("Offers")
    for row in [HEADER, *ROWS]:
        sheet.append(row)
    for cells in sheet.iter_rows():
        for cell in cells:
            cell.data_type = "s"
    book.save(folder / "t.xlsx")
    return folder / "t.xlsx", ["--sheet", "Offers"]


def save_bare(folder):
    (folder / "t.csv").write_bytes(text(header=False).encode("utf-8-sig"))
    return folder / "t.csv", ["--no-header"]


KINDS = [save_csv, save_german, save_utf16, save_given, save_zip, save_json_lines, save_parts,
         save_sheet, save_bare]  # fmt: skip


def convert(folder, save):
    folder.mkdir()
    path, options = save(folder)
    title, product = ("1", "2") if save is save_bare else ("title", "PRODUCT")
    words = ["data", "convert", path, "--output", folder / "data", "--name", "x"]
    words += ["--query-column", title, "--label-column", product, *options]
    assert main([str(word) for word in words]) == 0
    files = {file.name: file.read_bytes() for file in (folder / "data").iterdir() if file.is_file()}
    files.pop("dataset.json")  # names its source
    return files, path, [title, *options]


def test_every_kind_of_file_is_the_same_data_and_the_same_matches(tmp_path, capsys):
    wanted, _, _ = convert(tmp_path / "first", KINDS[0])
    assert wanted["labels.txt"].count(b"\n") > 30 and b"  " not in b"".join(wanted.values())
    run = tmp_path / "run"
    words = ["train", "--data", tmp_path / "first" / "data", "--output", run, *TINY]
    assert main([str(word) for word in words]) == 0
    matches = set()
    for save in KINDS:
        folder = tmp_path / save.__name__
        files, path, (title, *options) = convert(folder, save)
        assert files == wanted, save.__name__
        out = folder / "out.jsonl"
        words = ["predict", run, path, "--column", title, "--output", out, *options]
        assert main([str(word) for word in words]) == 0
        found = [json.loads(line) for line in out.read_text().splitlines()]
        assert len(found) == len(ROWS)
        plain = [" ".join(row["query"].split()) for row in found]
        assert plain == [" ".join(title.split()) for title, _, _ in ROWS]
        matches.add(tuple((row["label"], row["score"], row["decision"]) for row in found))
    assert len(matches) == 1
    shown = capsys.readouterr()
    assert "read as cp1252" in shown.out and "cells hold line breaks" in shown.out
