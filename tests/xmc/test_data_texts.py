"""Texts that stay in their file: the lines a plain reader sees, in blocks of any size."""

from __future__ import annotations

import copy
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alc_kernels.trainer.data.text import lines as text_lines
from alc_kernels.trainer.data.text import texts
from alc_kernels.trainer.data.text import texts as mapped
from alc_kernels.trainer.data.text.lines import iter_lines, line_writer
from alc_kernels.trainer.data.text.texts import MappedFile, TextFile, TextRows, fingerprint
from alc_kernels.trainer.errors import DataError

LINES = ["one", "zwölf Boxkämpfer", "電話\u2028x", " padded ", "a\rb", "\u00a0x"]


def write(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


CHARACTERS = st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])


@given(
    st.lists(st.text(CHARACTERS, min_size=1).filter(str.strip), min_size=1, max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.integers(1, 40),
    st.sampled_from([0, 1 << 20]),
)
@settings(max_examples=60, deadline=None)
def test_any_lines_in_blocks_of_any_size(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[str],
    end: str,
    mark: bool,
    block: int,
    limit: int,
) -> None:
    if lines[0].startswith("\ufeff"):
        return  # a byte order mark of its own
    raw = (b"\xef\xbb\xbf" if mark else b"") + "".join(line + end for line in lines).encode()
    path = write(tmp_path_factory.getbasetemp() / "lines.txt", raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "BLOCK", block)
        patch.setattr(texts, "CHUNK", 3)
        patch.setattr(mapped, "MAPPED", limit)
        file = TextFile(path, what="texts")
        assert list(file) == lines and file == lines and len(file) == len(lines)
        assert [file[i] for i in range(-len(lines), 0)] == lines
        assert file[1:5] == lines[1:5] and file[::-2] == lines[::-2] and file[9:] == []
        assert list(iter_lines(path, what="texts")) == lines


def test_it_is_a_sequence_like_a_list(tmp_path: Path) -> None:
    file = TextFile(write(tmp_path / "x", "".join(f"{x}\n" for x in LINES).encode()), what="texts")
    assert file[np.int64(1)] == LINES[1] and "one" in file and file.index("a\rb") == 4
    with pytest.raises(IndexError):
        file[len(LINES)]
    assert file != LINES[:-1] and file != "one" and file == tuple(LINES)
    assert copy.deepcopy(file) is file and pickle.loads(pickle.dumps(file)) == LINES
    rows = TextRows(file, np.array([3, 0, 3]))
    assert rows == [LINES[3], "one", LINES[3]] and rows[-2] == "one" and rows[1:] == list(rows)[1:]


def test_fingerprints_tell_contents_apart(tmp_path: Path) -> None:
    first = TextFile(write(tmp_path / "a", b"one\ntwo\n"), what="texts")
    same = TextFile(write(tmp_path / "b", b"one\ntwo\n"), what="texts")
    other = TextFile(write(tmp_path / "c", b"one\ntwx\n"), what="texts")
    assert first.fingerprint == same.fingerprint == hashlib.sha256(b"one\ntwo\n").hexdigest()
    assert first.fingerprint != other.fingerprint
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"]) == fingerprint(("a", "bc"))
    rows = [TextRows(first, np.array(at)).fingerprint for at in ([0, 1], [1, 0], [0])]
    assert len({*rows, TextRows(other, np.array([0])).fingerprint}) == 4


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "line 1: the file is empty, expected names"),
        (b"a\nb\xffc\n", "line 2: found byte 0xff, expected UTF-8"),
        (b"a\n\xe9\n", "line 2: found byte 0xe9, expected UTF-8"),
        (b"a\n\xe2\x82", "line 2: found byte 0xe2, expected UTF-8"),
        (b"a\nb", "line 2: the last line does not end"),
        (b"a\n\nb\n", "line 2: found a blank line, expected names"),
        (b"a\n\r\nb\n", "line 2: found a blank line, expected names"),
        ("a\nb\n\u2003\n".encode(), "line 3: found a blank line, expected names"),
    ],
)
@pytest.mark.parametrize("block", [1, 3, 1 << 20])
def test_faults_name_their_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: bytes, message: str, block: int
) -> None:
    monkeypatch.setattr(text_lines, "BLOCK", block)
    path = write(tmp_path / "names.txt", raw)
    with pytest.raises(DataError, match=rf"names\.txt, {message}"):
        TextFile(path, what="names")
    with pytest.raises(DataError, match=rf"names\.txt, {message}"):
        list(iter_lines(path, what="names"))


def test_latin_1_where_it_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "names.txt", "Käse\nœuf\n".encode("cp1252"))
    assert next(iter_lines(path, what="names", encoding="latin-1")) == "Käse"


def test_a_writer_leaves_nothing_half_written(tmp_path: Path) -> None:
    path = write(tmp_path / "names.txt", b"old\n")
    opened = TextFile(path, what="names")
    with pytest.raises(DataError, match=r"names\.txt, line 2: found ''"), line_writer(path) as put:
        put("new")
        put("")
    assert [p.name for p in tmp_path.iterdir()] == ["names.txt"] and path.read_bytes() == b"old\n"
    with (
        pytest.raises(DataError, match=r"line 1: found a lone surrogate"),
        line_writer(path) as put,
    ):
        put("\ud83d")
    with line_writer(path) as put:
        put("newer and longer")
    assert opened[0] == "old"  # the mapped file was replaced, not written over


@given(st.data(), st.sampled_from([0, 1 << 20]))
@settings(max_examples=40, deadline=None)
def test_pieces_of_a_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, limit: int
) -> None:
    """Both ways of reading give the pieces of the array: through the mapping, and at positions."""
    path = tmp_path_factory.getbasetemp() / "pieces"
    numbers = np.arange(data.draw(st.integers(1, 50)), dtype=np.uint16) * 7
    path.write_bytes(b"head" + numbers.tobytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "MAPPED", limit)
        file = MappedFile(np.memmap(path, numbers.dtype, "r", offset=4))
    np.testing.assert_array_equal(file.array, numbers)
    assert not file.array.flags.writeable
    starts = np.array(data.draw(st.lists(st.integers(0, len(numbers) - 1), max_size=8)), np.int64)
    lengths = np.array(
        [data.draw(st.integers(0, len(numbers) - int(start))) for start in starts], np.int64
    )
    pieces = [numbers[a : a + n] for a, n in zip(starts, lengths, strict=True)]
    expected = np.concatenate([np.zeros(0, np.uint16), *pieces])
    found = file.read(starts, lengths)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, expected)


def test_a_file_of_another_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "ids", bytes(12))
    monkeypatch.setattr(mapped, "MAPPED", 0)
    file = MappedFile(np.memmap(path, np.int32, "r"))
    path.write_bytes(bytes(8))
    with pytest.raises(OSError, match="ids: became shorter while it was read"):
        file.read(np.array([0]), np.array([3]))


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_lines_of_an_old_mac(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, encoding: str
) -> None:
    """CR ends a line where no LF does; elsewhere a title may hold one."""
    monkeypatch.setattr(text_lines, "BLOCK", block)
    path = tmp_path / "names.txt"
    path.write_bytes("kühl\rtwo\r\rlast".encode(encoding))
    lines = iter_lines(path, what="names", allow_blank=True, allow_unended=True, encoding=None)
    assert list(lines) == ["kühl", "two", "", "last"]
    with pytest.raises(DataError, match=r"names\.txt, line 4: the last line does not end"):
        list(iter_lines(path, what="names", allow_blank=True, encoding=None))
    path.write_bytes("kühl\ra\r\nb\n".encode(encoding))
    assert list(iter_lines(path, what="names", encoding=None)) == ["kühl\ra", "b"]
    table = text_lines.TextInput(path, by_first=True)  # a table: as its first line ends
    assert [line for _, line in table.lines()] == ["kühl", "a", "b"]


def test_a_long_file_of_an_old_mac_is_read_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_lines, "BLOCK_LETTERS", 100)
    monkeypatch.setattr(text_lines, "BLOCK", 16)
    path = tmp_path / "names.txt"
    path.write_bytes(b"".join(b"name %d\r" % i for i in range(500)))
    blocks = list(text_lines.TextInput(path, "utf-8").blocks())
    assert len(blocks) > 100
    assert "".join(text for _, text in blocks).split() == [
        word for i in range(500) for word in ("name", str(i))
    ]
    assert [number for number, _ in blocks][-1] >= 498
