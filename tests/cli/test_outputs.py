"""What commands write: by the ending, whole or not at all, never over an input, readable back."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alc_kernels.cli.arguments import FORMATS, check_place, table_target
from alc_kernels.cli.matching.tables import table_writer
from alc_kernels.trainer.errors import BadInput
from alc_kernels.whole import whole_file, write_whole

pandas = pytest.importorskip("pandas")
pytest.importorskip("openpyxl")
pytest.importorskip("pyarrow")
pytest.importorskip("zstandard")

COLUMNS = {"query": str, "rank": int, "score": float, "label": str}
ENDINGS = ("csv", "csv.gz", "csv.zst", "tsv", "tsv.gz", "jsonl", "jsonl.zst", "parquet", "xlsx")
HOSTILE = [
    "a\rb", "a\r\nb", "a\nb", "\r", "=1+2", "+1", "-1", "@x", "#N/A", "NA", "null", "nan", "", " ",
    " around ", '"', '"open', 'in"ner', "a,b", "a\tb", "a;b", "'", "\\", "\\n", "line\u2028sep",
    "\x85", "\x0b\x0c\x1c", "_x000D_", "007", "1e5", "TRUE", "2024-01-01", "\ufeffmark", "é", "😀",
    "http://x.y", "{=1}", "x" * 200_000, "{}", "None",
]  # fmt: skip
NOT_IN_XLSX = {"\x0b\x0c\x1c", "_x000D_", "x" * 200_000}


def write(path: Path, rows: list) -> Path:
    with table_writer(table_target(path), COLUMNS) as write_row:
        for row in rows:
            write_row(row)
    return path


def read(path: Path):
    """The file with pandas, as the page on predictions says."""
    as_text = {"dtype": str, "keep_default_na": False}
    if ".csv" in path.name or ".tsv" in path.name:
        return pandas.read_csv(path, sep="\t" if ".tsv" in path.name else ",", **as_text)
    if path.suffix == ".xlsx":
        return pandas.read_excel(path, **as_text)
    if path.suffix == ".parquet":
        return pandas.read_parquet(path)
    return pandas.read_json(path, lines=True, dtype=False)


@pytest.mark.parametrize("ending", ENDINGS)
def test_hostile_titles_come_back_from_every_format(ending: str, tmp_path: Path) -> None:
    texts = [t for t in HOSTILE if ending != "xlsx" or t not in NOT_IN_XLSX]
    rows = [[text, place, place / 8, text[::-1]] for place, text in enumerate(texts)]
    rows.append(["nothing found", 1, None, ""])
    path = write(tmp_path / f"out.{ending}", rows)
    back = read(path)
    if ending == "xlsx":
        rows = [
            [re.sub("\r\n?", "\n", c) if isinstance(c, str) else c for c in row] for row in rows
        ]
    assert list(back.columns) == list(COLUMNS)
    assert list(back["query"]) == [row[0] for row in rows]
    assert list(back["label"]) == [row[3] for row in rows]
    assert [int(rank) for rank in back["rank"]] == [row[1] for row in rows]
    scores = [None if s in ("", None) or s != s else float(s) for s in back["score"]]
    assert scores == pytest.approx([row[2] for row in rows], abs=1e-6)
    again = write(tmp_path / f"again.{ending}", rows)
    assert ending == "xlsx" or again.read_bytes() == path.read_bytes()


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))))
@settings(max_examples=60, deadline=None)
def test_any_titles_come_back_with_csv_and_pandas(texts: list[str]) -> None:
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"alc-outputs-{os.getpid()}.csv"
    try:
        write(path, [[text, 1, 0.5, text] for text in texts])
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        assert rows == [list(COLUMNS), *([text, "1", "0.500000", text] for text in texts)]
        assert list(read(path)["query"]) == texts
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("ending", "text", "words"),
    [
        ("csv", "a\0b", "row 2, query: holds a NUL character, which .csv cannot hold; .jsonl"),
        ("tsv.gz", "a\0b", "which .tsv cannot hold"),
        ("xlsx", "a\x0bb", "holds '\\x0b', which .xlsx cannot hold; .csv, .jsonl and .parquet can"),
        ("xlsx", "_x000D_", "holds '_x000D_', which .xlsx"),
        ("xlsx", "x" * 32_768, "has 32,768 characters, a cell of .xlsx holds 32,767"),
        ("jsonl", "\ud800", "holds half a character"),
        ("parquet", "\ud800", "holds half a character"),
    ],
)
def test_what_a_format_cannot_hold_is_named_and_leaves_no_file(
    ending: str, text: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=f"out.{ending}, row 2, query: ") as raised:
        write(tmp_path / f"out.{ending}", [["fine", 1, 0.5, ""], [text, 1, 0.5, ""]])
    assert words in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_nul_is_kept_where_the_format_holds_it(tmp_path: Path) -> None:
    for ending in ("jsonl", "parquet"):
        back = read(write(tmp_path / f"out.{ending}", [["a\0b", 1, 0.5, ""]]))
        assert list(back["query"]) == ["a\0b"]


def test_a_table_without_rows_has_its_header(tmp_path: Path) -> None:
    for ending in ("csv", "tsv.gz", "parquet", "xlsx"):
        back = read(write(tmp_path / f"out.{ending}", []))
        assert list(back.columns) == list(COLUMNS) and not len(back)


@pytest.mark.parametrize("name", ["out.txt", "out", "out.csv.zip", "out.parquet.gz", "out.gz"])
def test_an_ending_that_says_nothing_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as raised:
        table_target(tmp_path / name)
    line = str(raised.value)
    assert "\n" not in line and all(f".{format}" in line for format in FORMATS)
    with pytest.raises(BadInput, match="can be written as"):
        table_target(tmp_path / name, "csv")


def test_format_and_ending_agree_or_are_refused(tmp_path: Path) -> None:
    assert table_target(tmp_path / "OUT.CSV.GZ", "csv").packing == "gz"
    with pytest.raises(BadInput, match=r"ends in \.csv, but --format says jsonl"):
        table_target(tmp_path / "out.csv", "jsonl")
    assert table_target(None).format == "csv" and table_target(None, "tsv").format == "tsv"
    with pytest.raises(BadInput, match=r"--format parquet needs --output FILE\.parquet"):
        table_target(None, "parquet")


def test_nothing_is_written_over_an_input(tmp_path: Path) -> None:
    titles, data, run = tmp_path / "titles.csv", tmp_path / "data", tmp_path / "run"
    titles.write_text("title\na\n")
    data.mkdir()
    run.mkdir()
    for path in (data / "dataset.json", data / "ids.parquet", run / "metrics.json"):
        path.write_text("{}")
    (tmp_path / "link.csv").symlink_to(titles)
    os.link(titles, tmp_path / "hard.csv")
    (tmp_path / "linked").symlink_to(data)
    inputs = [titles, data, run, tmp_path / "gone.csv"]
    for path, words in (
        (titles, "is read by this command"),
        (tmp_path / "link.csv", "is read by this command"),
        (tmp_path / "hard.csv", "is read by this command"),
        (tmp_path / "data" / ".." / "titles.csv", "is read by this command"),
        (data / "ids.parquet", "is inside of"),
        (data / "new.csv", "is inside of"),
        (tmp_path / "linked" / "new.csv", "is inside of"),
        (run / "metrics.json", "is a file of the run"),
        (run / "report.html", "is a file of the run"),
        (run / "checkpoint", "is a file of the run"),
        (data, "is a folder"),
        (titles / "no" / "out.csv", "titles.csv: is a file, expected a folder"),
    ):
        with pytest.raises(BadInput, match=words):
            check_place(path, inputs)
    check_place(tmp_path / "gone.csv", inputs)
    check_place(run / "matches.csv", inputs)
    (tmp_path / "other.csv").write_text("old")
    check_place(tmp_path / "other.csv", inputs)


@pytest.mark.parametrize("ending", ["csv", "jsonl.gz", "csv.zst", "parquet", "xlsx"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_file_is_as_it_was(ending: str, error: type, tmp_path: Path) -> None:
    path = tmp_path / f"out.{ending}"
    for before in (None, b"before"):
        if before is not None:
            path.write_bytes(before)
        with pytest.raises(error), table_writer(table_target(path), COLUMNS) as write_row:
            write_row(["a", 1, 0.5, "b"])
            raise error
        assert [file.name for file in tmp_path.iterdir()] == ([path.name] if before else [])
        assert before is None or path.read_bytes() == before


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    path = tmp_path / "not" / "yet" / "out.csv"
    assert list(read(write(path, [["a", 1, 0.5, "b"]]))["query"]) == ["a"]
    check_place(tmp_path / "neither" / "out.csv")
    assert not (tmp_path / "neither").exists()  # not before there is something to write


def test_a_link_stays_one_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    link.symlink_to(real)
    write_whole(link, "new\r\n")
    assert link.is_symlink() and real.read_bytes() == b"new\r\n"
    reader, writer = os.pipe()
    with whole_file(Path(f"/dev/fd/{writer}")) as path:
        path.write_text("through")
    os.close(writer)
    with os.fdopen(reader) as file:
        assert file.read() == "through"


def test_compressed_files_are_what_they_say(tmp_path: Path) -> None:
    path = write(tmp_path / "out.jsonl.gz", [["a", 1, None, "b"]])
    with gzip.open(path, "rt", encoding="utf-8") as file:
        assert json.loads(file.read()) == {"query": "a", "rank": 1, "score": None, "label": "b"}
    import zstandard

    path = write(tmp_path / "ends.jsonl", [["a\x85b\u2028c\u2029\x0b\x1c", 1, None, "b"]])
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1
    path = write(tmp_path / "out.csv.zst", [["a", 1, None, "b"]])
    with zstandard.open(path, "rb") as packed:
        assert io.BytesIO(packed.read()).getvalue() == b"query,rank,score,label\na,1,,b\n"
