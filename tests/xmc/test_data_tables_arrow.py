"""Parquet and data frames: columns of every type that holds a text or an id, exactly."""

from __future__ import annotations

import datetime
import decimal
import uuid
from pathlib import Path
from typing import Any

import pytest

from alc_kernels.trainer.data.tables import is_table, open_table
from alc_kernels.trainer.data.tables import parquet as parquet_tables
from alc_kernels.trainer.errors import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

UTC = datetime.timezone.utc
TIME = datetime.datetime(2024, 3, 5, 9, 7, 8)
COLUMNS: dict[str, tuple[Any, list[str]]] = {
    "string": (pa.array(["a", None]), ["a", ""]),
    "large_string": (pa.array(["ä\nb", ""], pa.large_string()), ["ä b", ""]),
    "string_view": (pa.array(["a", "long enough not to be inline"], pa.string_view()),
                    ["a", "long enough not to be inline"]),
    "dictionary": (pa.array(["x", None]).dictionary_encode(), ["x", ""]),
    "years": (pa.array([2024, 2024]).dictionary_encode(), ["2024", "2024"]),
    "int8": (pa.array([-1, None], pa.int8()), ["-1", ""]),
    "uint64": (pa.array([2**64 - 1, 0], pa.uint64()), ["18446744073709551615", "0"]),
    "int64": (pa.array([4006381333931, 2**62]), ["4006381333931", "4611686018427387904"]),
    "decimal": (pa.array([decimal.Decimal("1.50"), None]), ["1.50", ""]),
    "small decimal": (pa.array([decimal.Decimal("0.00000001"), None]), ["0.00000001", ""]),
    "bool": (pa.array([True, False]), ["true", "false"]),
    "double": (pa.array([123.0, None]), ["123", ""]),
    "prices": (pa.array([19.99, float("nan")]), ["19.99", ""]),
    "float": (pa.array([0.1, 3], pa.float32()), ["0.1", "3"]),
    "date": (pa.array([datetime.date(2024, 3, 5), None]), ["2024-03-05", ""]),
    "timestamp": (pa.array([TIME, None]), ["2024-03-05 09:07:08", ""]),
    "parts": (pa.array([TIME.replace(microsecond=500_000), None]), ["2024-03-05 09:07:08.5", ""]),
    "zoned": (pa.array([TIME.replace(tzinfo=UTC), None]), ["2024-03-05 09:07:08Z", ""]),
    "time": (pa.array([datetime.time(9, 7), None]), ["09:07:00", ""]),
    "binary": (pa.array([b"a", "ä".encode()]), ["a", "ä"]),
    "null": (pa.nulls(2), ["", ""]),
    "uuid": (pa.array([uuid.UUID(int=1).bytes, None], pa.uuid()),
             ["00000000-0000-0000-0000-000000000001", ""]),
}  # fmt: skip
REFUSED = {
    "list": (pa.array([["a"], None]), "holds list<"),
    "struct": (pa.array([{"a": 1}, None]), "holds struct<"),
    "large double": (pa.array([1.0, 2.0**60]), "row 2.* a number too large to be exact as double"),
    "large float": (
        pa.array([1.0, 2.0**25], pa.float32()),
        "too large to be exact as float",
    ),
    "bytes": (pa.array([b"a", b"\xff"]), "row 2.* holds bytes that are not UTF-8"),
    "duration": (pa.array([datetime.timedelta(1), None]), r"holds duration\[us\]"),
}


def test_a_dictionary_of_text_views() -> None:
    """A Categorical of polars; pyarrow can neither decode it nor write it into Parquet."""
    views = pa.array(["x", "y"], pa.string_view())
    made = pa.table({"a": pa.DictionaryArray.from_arrays([1, None, 0], views)})
    assert cells(made, "a") == [["y"], [""], ["x"]]


def cells(source: Any, *columns: str) -> list[list[str]]:
    table = open_table(source)
    return [row for _, row in table.rows([table.find(column, "-") for column in columns])]


@pytest.mark.parametrize("source", ["file", "frame"])
def test_every_type(tmp_path: Path, source: str) -> None:
    made: Any = pa.table({name: values for name, (values, _) in COLUMNS.items()})
    if source == "file":
        pq.write_table(made, tmp_path / "t.parquet")
        made = tmp_path / "t.parquet"
    table = open_table(made)
    assert table.unit == "row" and table.columns == tuple(COLUMNS)
    rows = list(table.rows(range(len(COLUMNS))))
    assert [number for number, _ in rows] == [1, 2]
    for place, (name, (_, texts)) in enumerate(COLUMNS.items()):
        assert [row[place] for _, row in rows] == texts, name
    assert sum("whole ones are read without .0" in n for n in table.notes) == 2
    assert sum("holds bytes, read as UTF-8" in n for n in table.notes) == 1


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_types(tmp_path: Path, kind: str) -> None:
    values, message = REFUSED[kind]
    made = pa.table({"title": ["a", "b"], "x": values})
    pq.write_table(made, tmp_path / "t.parquet")
    for source in (made, tmp_path / "t.parquet"):
        assert cells(source, "title") == [["a"], ["b"]]
        with pytest.raises(DataError, match=message) as raised:
            cells(source, "x")
        assert "column 'x'" in str(raised.value) and "\n" not in str(raised.value)


def test_columns_by_name(tmp_path: Path) -> None:
    made = pa.table([pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], ["x", "x", "Y"])
    pq.write_table(made, tmp_path / "t.pq")
    for source in (made, tmp_path / "t.pq"):
        assert cells(source, "y") == [["c"]]
        with pytest.raises(DataError, match="found 2 columns 'x', number 1 and 2"):
            cells(source, "x")
        assert cells(source, "y", "y") == [["c", "c"]]


def test_folders_of_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_tables, "BATCH", 2)
    for place, start in (("lang=de", 0), ("lang=__HIVE_DEFAULT_PARTITION__", 3), ("lang=a%20b", 6)):
        folder = tmp_path / "data" / place
        folder.mkdir(parents=True)
        ids = pa.array(range(start, start + 3), pa.int32() if start else pa.int64())
        titles = [f"title {i}" for i in range(start, start + 3)]
        pq.write_table(pa.table({"id": ids, "title": titles}), folder / "part-0.parquet")
    (tmp_path / "data" / "_SUCCESS").touch()
    (tmp_path / "data" / "_metadata.parquet").write_bytes(b"x")
    assert is_table(tmp_path / "data")
    table = open_table(tmp_path / "data")
    assert table.columns == ("id", "title", "lang")
    rows = list(table.rows([2, 0]))
    assert [number for number, _ in rows] == list(range(1, 10))
    assert [row for _, row in rows] == [
        *(["", str(i)] for i in (3, 4, 5)),
        *(["a b", str(i)] for i in (6, 7, 8)),
        *(["de", str(i)] for i in (0, 1, 2)),
    ]
    assert [row for _, row in table.rows([2])][-1] == ["de"]
    pq.write_table(pa.table({"id": [1], "name": ["x"]}), folder / "part-1.parquet")
    with pytest.raises(DataError, match=r"part-1\.parquet: found columns id, name, expected id"):
        list(open_table(tmp_path / "data").rows([0]))
    (folder / "part-1.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"part-1\.parquet: not a sound Parquet file"):
        list(open_table(tmp_path / "data").rows([0]))
    (tmp_path / "empty").mkdir()
    assert not is_table(tmp_path / "empty")
    with pytest.raises(DataError, match="holds no Parquet file"):
        open_table(tmp_path / "empty")


def test_a_damaged_page_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [f"text {i}" for i in range(9999)]}), path, compression="zstd")
    raw = bytearray(path.read_bytes())
    raw[200:1200] = bytes(1000)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"t\.parquet: cannot be read \(") as raised:
        cells(path, "a")
    assert "\n" not in str(raised.value)


def test_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "title": ["a\nb", None, "c"],
            "id": [1, None, 3],  # floats, by an absent value
            "category": pandas.Categorical(["x", "y", None]),
            "mixed": ["1", 2, 3.5],
            7: [1, 2, 3],
        },
        index=[5, 5, 9],
    )
    assert cells(frame, "title", "id", "category", "7") == [
        ["a b", "1", "x", "1"], ["", "", "y", "2"], ["c", "3", "", "3"],
    ]  # fmt: skip
    with pytest.raises(DataError, match="column 'mixed' holds values of several types"):
        cells(frame, "mixed")
    assert cells(frame.iloc[:0], "title") == []


def test_other_frames_by_their_stream(tmp_path: Path) -> None:
    class Frame:
        """What polars, DuckDB and others offer."""

        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return pa.table({"a": ["x", "y"]}).__arrow_c_stream__(requested_schema)

    assert cells(Frame(), "a") == [["x"], ["y"]]
    stream = Frame()
    table = open_table(stream)
    assert list(table.rows([0])) == list(table.rows([0])) == [(1, ["x"]), (2, ["y"])]
