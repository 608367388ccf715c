"""What a conversion decides: validation and held-out labels by hash, propensities, notes."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from alc_kernels.trainer.data import load_dataset
from alc_kernels.trainer.data.convert import Converted, ConvertOptions, convert, guess_propensity
from alc_kernels.trainer.data.layouts import find_source
from alc_kernels.trainer.data.protocol import text_hash
from alc_kernels.trainer.data.shapes import find_pairs
from alc_kernels.trainer.errors import DataError

TITLES = [f"title {i}" for i in range(200)]
LABELS = [f"product {i}" for i in range(40)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """200 training queries: query i has labels i % 40 and, every fifth, 0; 20 test queries."""
    folder = tmp_path / "LF-AmazonTitles-Tiny"
    folder.mkdir()
    (folder / "lbl.raw.txt").write_text("".join(f"{text}\n" for text in LABELS))
    (folder / "filter_labels_train.txt").write_text("0 1\n0 0\n199 3\n")
    for name, count in (("trn", 200), ("tst", 20)):
        texts = TITLES[:count] if name == "trn" else [f"test {i}" for i in range(count)]
        (folder / f"{name}.raw.txt").write_text("".join(f"{text}\n" for text in texts))
        rows = [f"{i % 40}:1" + (" 0:1" if i % 5 == 0 else "") for i in range(count)]
        (folder / f"{name}_X_Y.txt").write_text(f"{count} 40\n" + "".join(f"{r}\n" for r in rows))
    return folder


def make(source: Path, **options: object) -> Converted:
    found, _ = find_source(source)
    made = ConvertOptions(**options)  # type: ignore[arg-type]
    return convert(found, source.parent / "out", made, overwrite=True)


def test_validation_is_a_share_by_hash(source: Path) -> None:
    made = make(source, validation_share=0.25)
    data = made.dataset
    expected = [title for title in TITLES if text_hash(title) % 10_000 < 2500]
    assert data.validation.queries == expected and 30 < len(expected) < 70
    assert data.train.queries == [title for title in TITLES if title not in expected]
    for split in (data.train, data.validation):
        for row, query in enumerate(split.queries):
            number = int(query.split()[1])
            wanted = {number % 40} | ({0} if number % 5 == 0 else set())
            if query == "title 0" and split is data.validation:
                wanted = set()  # filtered
            assert set(split.relation[row].indices.tolist()) == wanted
    assert data.protocol == (
        "train and test as in the source; validation: training queries with sha1 mod 10000 < 2500"
    )
    assert "trn_X_Y.txt: 5 times a query has a label twice" in made.notes


def test_filter_rows_follow_their_queries(source: Path) -> None:
    data = make(source).dataset
    found = {}
    for split in (data.train, data.validation):
        for row, query in enumerate(split.queries):
            if split.excluded[row].nnz:
                found[query] = split.excluded[row].indices.tolist()
    in_train = "title 0" in list(data.train.queries)
    # Query 0 has label 0: in training it stays right, in validation the filter wins.
    assert found == {"title 0": [1] if in_train else [0, 1], "title 199": [3]}
    assert data.test.excluded is None


def test_held_out_labels_are_never_trained_on(source: Path) -> None:
    made = make(source, hold_out_share=0.3)
    data = made.dataset
    np.testing.assert_array_equal(
        data.held_out, [text_hash(label) % 10_000 < 3000 for label in LABELS]
    )
    assert 0 < data.held_out.sum() < 40
    assert not data.held_out[data.train.relation.indices].any()
    assert data.held_out[data.validation.relation.indices].any()  # they are asked for there
    lost = [t for t in TITLES if t not in [*data.train.queries, *data.validation.queries]]
    assert lost and all(
        data.held_out[int(t.split()[1]) % 40]
        and not (int(t.split()[1]) % 5 == 0 and not data.held_out[0])
        for t in lost
    )
    assert f"{len(lost)} training queries dropped, all of whose labels are held out" in made.notes
    assert "held out: no candidates in the open catalogue" in data.protocol
    assert list(data.catalogues()) == ["open", "closed"]
    kept = make(source, hold_out_share=0.3, keep_unmatched=True)
    assert len(kept.dataset.train) == len(data.train) + len(lost)
    assert int(kept.dataset.train.unmatched.sum()) == len(lost)
    assert not any("dropped" in note for note in kept.notes)


def test_the_folder_reads_as_what_was_made(source: Path) -> None:
    made = make(source, hold_out_share=0.2).dataset
    read = load_dataset(source.parent / "out")
    assert read.labels == made.labels and read.protocol == made.protocol
    assert read.propensity == made.propensity and read.counts() == made.counts()
    for name, split in made.splits.items():
        assert read.splits[name].queries == split.queries
        assert (read.splits[name].relation != split.relation).nnz == 0


def test_a_second_conversion_leaves_nothing_of_the_first(source: Path) -> None:
    data = make(source).dataset
    (data.folder / ".tokens" / "old").mkdir(parents=True)
    (source / "filter_labels_train.txt").unlink()
    again = make(source).dataset
    assert again.train.excluded is None and not (again.folder / ".tokens").exists()
    assert load_dataset(again.folder).train.excluded is None


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("LF-AmazonTitles-131K", "amazon"),
        ("LF-Wikipedia-500K", "wikipedia"),
        ("WikiTitles-500K", "wikipedia"),
        ("LF-WikiSeeAlsoTitles-320K", "other"),
        ("EURLex-4K", "other"),
    ],
)
def test_propensity_by_name(name: str, guess: str) -> None:
    assert guess_propensity(name) == guess


def test_propensity(source: Path) -> None:
    made = make(source)
    assert made.dataset.propensity == (0.6, 2.6)
    assert any("a = 0.6 and b = 2.6, as usual for data from Amazon" in note for note in made.notes)
    made = make(source, propensity=(0.5, 0.4), name="mine")
    assert made.dataset.propensity == (0.5, 0.4) and made.dataset.name == "mine"
    assert not any("propensities" in note for note in made.notes)


def test_shares_that_leave_nothing(source: Path) -> None:
    with pytest.raises(
        DataError, match=r"trn\.raw\.txt: found no queries for validation: none of 200 falls"
    ):
        make(source, validation_share=0.0001)
    with pytest.raises(DataError, match=r"a hold-out share of 0\.0001 holds out 0 of 40 labels"):
        make(source, hold_out_share=0.0001)


def test_a_folder_that_cannot_be_written(source: Path) -> None:
    (source.parent / "out").write_text("a file")
    with pytest.raises(DataError, match=r"out: cannot be written"):
        make(source)
    shutil.rmtree(source)


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*")}


FAILING = {
    "share": ({"validation_share": 0.0001}, DataError),
    "hold-out": ({"hold_out_share": 0.0001}, DataError),
    "Ctrl-C": ({}, KeyboardInterrupt),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_failed_conversion_leaves_all_as_it_was(
    source: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, error = FAILING[case]
    found, _ = find_source(source)
    deep, used = source.parent / "a" / "b" / "out", source.parent / "out"
    convert(found, used)
    (used / "notes.md").write_text("mine")
    before = files_of(used)
    if error is KeyboardInterrupt:

        def interrupted(*args: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("alc_kernels.trainer.data.convert.write_about", interrupted)
    for folder in (deep, used):
        with pytest.raises(error) as raised:
            convert(found, folder, ConvertOptions(**options), overwrite=True)  # type: ignore[arg-type]
        assert ".partial" not in str(raised.value)
    assert not (source.parent / "a").exists() and files_of(used) == before
    monkeypatch.undo()
    made = convert(found, str(used), overwrite=True).dataset
    assert made.folder == used and made.train.queries.path == used / "train.raw.txt"
    assert files_of(used) == before
    assert pickle.loads(pickle.dumps(made.train.queries)) == made.train.queries


def test_a_folder_in_use_is_refused(source: Path) -> None:
    found, _ = find_source(source)
    folder = source.parent / "out"
    (folder / ".partial").mkdir(parents=True)  # of a process that was killed
    convert(found, folder)
    with pytest.raises(DataError, match=r"out: is not empty; .* give overwrite=True"):
        convert(found, folder)


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^found a str as source, expected what find_source, fin"):
        convert("offers.csv", tmp_path / "out")  # type: ignore[arg-type]
    pandas = pytest.importorskip("pandas")
    pyarrow = pytest.importorskip("pyarrow")
    for column in (pandas.Series(["a"], name="query"), pyarrow.chunked_array([["a"]])):
        with pytest.raises(DataError, match=r"^found a \w+, expected a path or .* sin"):
            find_pairs(column)
