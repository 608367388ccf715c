"""The sparse text format: written and read back, and read as a plain parser reads it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alc_kernels.trainer.data.text import lines as text_lines
from alc_kernels.trainer.data.text.sparse import (
    read_sparse_text,
    relation_from_rows,
    write_sparse_text,
)
from alc_kernels.trainer.errors import DataError

COLUMNS = 7
ROWS = st.lists(st.lists(st.integers(0, COLUMNS - 1), max_size=6), max_size=12)
VALUES = st.sampled_from(["1", "1.0", "2", "0.25", "1.", "3e0", "1E-3", "0000000001.5"])
SPACES = st.sampled_from([" ", "  ", "\t", " \t"])


def read(path: Path, num_rows: int | None = None) -> tuple[list[list[float]], int]:
    rows = None if num_rows is None else (num_rows, "texts")
    matrix, repeated = read_sparse_text(path, num_rows=rows, num_cols=(COLUMNS, "labels"))
    assert matrix.dtype == np.float32 and matrix.has_canonical_format
    return matrix.toarray().tolist(), repeated


@given(ROWS)
@settings(max_examples=50, deadline=None)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]]) -> None:
    path = tmp_path_factory.getbasetemp() / "round.txt"
    relation = relation_from_rows(rows, COLUMNS)
    write_sparse_text(path, relation)
    assert read(path, len(rows)) == (relation.toarray().tolist(), 0)


@given(ROWS, st.data(), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_any_spelling_reads_as_a_plain_parser_reads_it(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[int]],
    data: st.DataObject,
    end: str,
    compressed: bool,
    block: int,
) -> None:
    lines = [f"{len(rows)} {COLUMNS}"]
    for row in rows:
        entries = [f"{label}:{data.draw(VALUES)}" for label in row]
        lines.append(data.draw(SPACES).join(entries) + data.draw(st.sampled_from(["", " "])))
    raw = "".join(line + end for line in lines).encode()
    path = tmp_path_factory.getbasetemp() / ("any.txt.gz" if compressed else "any.txt")
    path.write_bytes(gzip.compress(raw, mtime=0) if compressed else raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "BLOCK", block)  # rows may lie across blocks
        matrix, repeated = read(path)
    expected = [[float(label in row) for label in range(COLUMNS)] for row in rows]
    assert matrix == expected
    assert repeated == sum(len(row) - len(set(row)) for row in rows)


@given(st.text("0123456789:. -eE\n\r\tx,", max_size=30))
@settings(max_examples=150, deadline=None)
def test_the_fast_way_accepts_nothing_more(
    tmp_path_factory: pytest.TempPathFactory, body: str
) -> None:
    """Whatever the rows are, both ways give the same relation or refuse with the same words."""
    from alc_kernels.trainer.data.text import sparse as sparse_text

    path = tmp_path_factory.getbasetemp() / "noise.txt"
    body += "\n"
    path.write_bytes(f"{body.count(chr(10))} {COLUMNS}\n{body}".encode())

    def outcome() -> object:
        try:
            return read(path)
        except DataError as error:
            return str(error)

    fast = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_text, "_PLAIN", sparse_text.re.compile("(?!)"))  # never matches
        assert fast == outcome()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: the file is empty, expected a header 'rows cols'"),
        (b"3\n\n\n\n", "line 1: found '3', expected a header"),
        (b"2 6\n\n\n", r"line 1: header states 6 columns, expected 7 \(labels\)"),
        (b"3 7\n\n\n\n", r"line 1: header states 3 rows, expected 2 \(texts\)"),
        (b"2 7\n1:1\n", "line 3: found 1 rows after the header, expected 2"),
        (b"2 7\n1:1\n\n\n", "line 4: found 3 rows after the header, expected 2"),
        (b"2 7\n1:1\n2:1", "line 3: the last line does not end"),
        (b"2 7\n\n7:1\n", "line 3: found label 7, expected 0 to 6"),
        (b"2 7\n\n9999999999:1\n", "line 3: found label 9999999999, expected 0 to 6"),
        (b"2 7\n1:0\n\n", "line 2: found '1:0', expected label:value"),
        (b"2 7\n1:inf\n\n", "line 2: found '1:inf', expected label:value"),
        (b"2 7\n1 :1\n\n", "line 2: found '1', expected label:value"),
        ("2 7\n\u0663:1\n\n".encode(), "line 2: found '\u0663:1', expected label:value"),
        (b"2 7\n\n1:\xff\n", "line 3: found byte 0xff, expected UTF-8"),
    ],
)
def test_faults(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "X_Y.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"X_Y\.txt, {message}"):
        read(tmp_path / "X_Y.txt", 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            gzip.compress(b"2 7\n1:1\n\n" * 50, mtime=0)[:-12],
            "not a sound gzip file, it ends early",
        ),
        (b"2 7\n1:1\n\n", "not a sound gzip file"),
        (gzip.compress(b"2 7\n1:1\n\n", mtime=0)[:-8] + bytes(8), "not a sound gzip file"),
    ],
)
def test_damaged_compressed_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "X_Y.txt.gz").write_bytes(content)
    with pytest.raises(DataError, match=rf"X_Y\.txt\.gz: {message}"):
        read(tmp_path / "X_Y.txt.gz", 2)
