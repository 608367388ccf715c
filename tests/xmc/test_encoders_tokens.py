"""Tokenised texts: files that are written once, and views that copy nothing."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alc_kernels.trainer.data import generate_catalogue, load_dataset, save_dataset
from alc_kernels.trainer.data.text.texts import TextFile, TextRows
from alc_kernels.trainer.encoders import ConcatTokens, TokenRows
from alc_kernels.trainer.encoders.base import RaggedTokens, write_tokens
from alc_kernels.trainer.encoders.ngrams import NgramEncoder
from alc_kernels.trainer.errors import DataError

TEXTS = ["nova 8 64gb", "kühlschrank weiß", "- -", "電話 x", "nova 8"]


@pytest.fixture
def encoder() -> NgramEncoder:
    return NgramEncoder(dim=16, buckets=512, hidden_dim=8)


@pytest.fixture
def file(tmp_path: Path) -> TextFile:
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS), "utf-8")
    return TextFile(tmp_path / "texts.txt", what="texts", token_cache=tmp_path / "tokens")


def same(a: object, b: object) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))  # type: ignore[call-overload]


def test_files_hold_what_memory_holds(encoder: NgramEncoder, file: TextFile) -> None:
    mapped, plain = encoder.tokenize(file), encoder.tokenize(TEXTS)
    (folder,) = file.token_cache.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["ids.npy", "offsets.npy"]
    np.testing.assert_array_equal(np.load(folder / "ids.npy"), plain.ids)
    np.testing.assert_array_equal(np.load(folder / "offsets.npy"), plain.offsets)
    rows = np.array([4, 0, 2, 4])
    assert same(mapped.select(rows), plain.select(rows))
    assert not mapped.ids.flags.owndata and copy.deepcopy(mapped) is mapped


def test_a_second_process_tokenises_nothing(
    encoder: NgramEncoder, file: TextFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encoder.tokenize(file)
    assert encoder.tokenize(file) is first
    fresh = NgramEncoder(dim=16, buckets=512, hidden_dim=8)
    monkeypatch.setattr(fresh, "token_chunks", lambda texts: pytest.fail("tokenised again"))
    np.testing.assert_array_equal(fresh.tokenize(file).ids, first.ids)


def test_other_texts_or_settings_make_other_files(encoder: NgramEncoder, file: TextFile) -> None:
    encoder.tokenize(file)
    NgramEncoder(dim=16, buckets=256, hidden_dim=8).tokenize(file)
    assert len(list(file.token_cache.iterdir())) == 2
    replacement = file.path.with_name("new.txt")
    replacement.write_text("changed\n")
    replacement.replace(file.path)
    changed = TextFile(file.path, what="texts", token_cache=file.token_cache)
    assert len(encoder.tokenize(changed)) == 1
    assert len(list(file.token_cache.iterdir())) == 3


@pytest.mark.parametrize("name", ["ids.npy", "offsets.npy"])
@pytest.mark.parametrize("damage", ["cut", "gone", "foreign"])
def test_damaged_files_are_made_anew(
    encoder: NgramEncoder, file: TextFile, name: str, damage: str
) -> None:
    expected = encoder.tokenize(TEXTS)
    encoder.tokenize(file)
    (folder,) = file.token_cache.iterdir()
    path = folder / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3] if damage == "cut" else b"something else")
    fresh = NgramEncoder(dim=16, buckets=512, hidden_dim=8).tokenize(file)
    np.testing.assert_array_equal(fresh.ids, expected.ids)
    np.testing.assert_array_equal(np.load(folder / "ids.npy"), expected.ids)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield np.arange(3), np.array([1, 2])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokens(tmp_path / "tokens" / "key", chunks(), np.dtype(np.int32))
    assert list((tmp_path / "tokens").iterdir()) == []


def test_a_folder_that_cannot_be_written(encoder: NgramEncoder, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("a file in its place")
    with pytest.raises(DataError, match=r"tokens.*: cannot be written \("):
        encoder.tokenize(TEXTS, tmp_path / "tokens")


def test_no_texts(encoder: NgramEncoder, tmp_path: Path) -> None:
    for cache in (None, tmp_path):
        tokens = encoder.tokenize([], cache)
        assert len(tokens) == 0
        assert tokens.select(np.zeros(0, np.int64)).offsets.tolist() == [0]


def test_rows_of_texts_become_rows_of_tokens(encoder: NgramEncoder, file: TextFile) -> None:
    rows = TextRows(file, np.array([3, 0, 3]))
    tokens = encoder.tokenize(rows)
    assert isinstance(tokens, TokenRows) and tokens.tokens is encoder.tokenize(file)
    at = np.array([2, 0, 1])
    assert same(tokens.select(at), encoder.tokenize([rows[i] for i in at]).select(np.arange(3)))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_concatenation_is_that_of_the_texts(data: st.DataObject) -> None:
    lengths = st.lists(st.integers(0, 4), max_size=6)
    parts, rows = [], []
    for sizes in data.draw(st.lists(lengths, min_size=1, max_size=4)):
        texts = [data.draw(st.lists(st.integers(0, 99), min_size=n, max_size=n)) for n in sizes]
        offsets = np.cumsum([0, *sizes])
        ids = np.array([i for text in texts for i in text], np.int32)
        parts.append(RaggedTokens(ids, offsets, tuple))
        rows += texts
    whole = ConcatTokens(*parts)
    assert len(whole) == len(rows)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)) if rows else []
    ids, offsets = whole.gather(np.array(chosen, np.int64))
    assert ids.dtype == np.int64
    found = [part.tolist() for part in np.split(ids, offsets[1:-1])] if chosen else []
    assert found == [rows[i] for i in chosen]


def test_parts_of_different_encoders_do_not_mix(encoder: NgramEncoder) -> None:
    other = NgramEncoder(dim=16, buckets=256, hidden_dim=8)
    with pytest.raises(ValueError, match="tokenised by the same encoder"):
        ConcatTokens(encoder.tokenize(TEXTS), other.tokenize(TEXTS))
    with pytest.raises(ValueError, match="one or more parts"):
        ConcatTokens()


def test_a_data_set_folder_keeps_its_tokens(encoder: NgramEncoder, tmp_path: Path) -> None:
    made = generate_catalogue(30, 90)
    assert made.cache is None
    save_dataset(made, tmp_path)
    data = load_dataset(tmp_path)
    assert data.cache == tmp_path / ".tokens"
    expected = encoder.encode_texts(list(data.labels))
    assert torch.equal(encoder.encode_texts(data.labels), expected)  # without naming the cache
    encoder.tokenize(data.train.queries, cache=data.cache)
    encoder.tokenize(data.open_catalogue().texts)
    assert len(list(data.cache.iterdir())) == 2  # the open catalogue is rows of the labels
    save_dataset(made, tmp_path)
    assert not data.cache.exists()  # tokens of the former texts


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
def test_a_folder_without_write_permission_has_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_dataset(generate_catalogue(30, 90), tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the superuser may write anyway
    data = load_dataset(tmp_path)
    assert data.cache is None and data.labels.token_cache is None
