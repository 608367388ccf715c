"""Label vectors belong to labels, not to places: the same data in another order."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from alc_kernels.cli import main
from alc_kernels.trainer.data import Dataset, Split, load_dataset, save_dataset
from alc_kernels.trainer.data.text.sparse import without_labels
from alc_kernels.trainer.data.text.texts import Digests, find
from alc_kernels.trainer.evaluation import load_scored
from alc_kernels.trainer.evaluation.matching import known_labels
from alc_kernels.trainer.training.checkpoint import load_checkpoint

TINY = ["--epochs", "2", "--batch-size", "64", "--embedding-dim", "32", "--hidden-dim", "32",
        "--ngram-buckets", "4096", "--evaluate-every", "0", "--loss", "base"]  # fmt: skip
METHODS = ("ngame", "dexa", "prime")


def reordered(data: Dataset, order: np.ndarray, names: list[str] | None = None) -> Dataset:
    """The labels in another order, perhaps fewer, perhaps under other names."""
    splits = {
        name: Split(list(part.queries), part.relation[:, order].tocsr())
        for name, part in data.splits.items()
    }
    for part in splits.values():
        part.relation.sort_indices()
    labels = names or [data.labels[label] for label in order]
    return Dataset(data.name, labels, splits, data.held_out[order])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three methods, and their data in reversed and in renamed rows."""
    folder = tmp_path_factory.mktemp("made")
    words = ["data", "generate", "--labels", "60", "--titles", "600"]
    assert main([*words, "--output", str(folder / "data")]) == 0
    for method in METHODS:
        words = ["train", "--data", str(folder / "data"), "--output", str(folder / method)]
        assert main([*words, "--method", method, *TINY]) == 0
    data = load_dataset(folder / "data")
    backwards = np.arange(data.num_labels)[::-1]
    save_dataset(reordered(data, backwards), folder / "reversed")
    return folder


def evaluate(made: Path, method: str, data: str, tmp_path: Path, code: int = 0) -> Path:
    run = tmp_path / "run"
    shutil.copytree(made / method, run)
    assert main(["evaluate", str(run), "--data", str(made / data)]) == code
    return run


@pytest.mark.parametrize("method", METHODS)
def test_reversed_labels_score_the_same(made: Path, method: str, tmp_path: Path) -> None:
    run = evaluate(made, method, "reversed", tmp_path)
    before = json.loads((made / method / "metrics.json").read_text())["metrics"]
    after = json.loads((run / "metrics.json").read_text())["metrics"]
    for catalogue, figures in before.items():
        for name in ("p1", "ndcg5", "coverage_90", "psp1"):
            found, expected = after[catalogue][name]["value"], figures[name]["value"]
            assert found == pytest.approx(expected, abs=1e-6), (catalogue, name)
    # What predict says of new titles is that of the run before, too.
    (tmp_path / "titles.txt").write_text("acme kettle 2000\nnova 8 64gb\n")
    texts = []
    for folder in (made / method, run):
        out = tmp_path / f"{folder.name}.csv"
        words = ["predict", str(folder), str(tmp_path / "titles.txt"), "--output", str(out)]
        assert main(words) == 0
        texts.append([line.split(",")[2] for line in out.read_text().splitlines()])
    assert texts[0] == texts[1] and len(texts[0]) == 3


def test_scoring_on_other_data_says_what_it_replaces_and_the_way_back(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = evaluate(made, "ngame", "reversed", tmp_path)
    shown = capsys.readouterr()
    told = (
        f"the figures, the certificates and the report of {run}, which were of {made / 'data'}, by "
        f"those of {made / 'reversed'}; back with: alc evaluate {run} --data {made / 'data'}"
    )
    assert shown.err.startswith(f"This replaces {told}\n")
    assert shown.out.endswith(f"\nReplaced: {told}\n")
    assert main(["evaluate", str(run), "--data", str(made / "reversed")]) == 0  # nothing changes
    shown = capsys.readouterr()
    assert "replaces" not in shown.err and "Replaced" not in shown.out


def test_a_grown_catalogue(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_dataset(made / "data")
    order = np.append(np.arange(data.num_labels), 0)
    grown = reordered(data, order, [*data.labels, "a product that nobody asked for"])
    splits = {
        name: Split(part.queries, without_labels(part.relation, np.arange(len(order)) == 60))
        for name, part in grown.splits.items()
    }
    save_dataset(dataclasses.replace(grown, splits=splits, _catalogues={}), made / "grown")
    before = load_scored(made / "ngame").predictions["open"]["test"]
    after = load_scored(evaluate(made, "ngame", "grown", tmp_path)).predictions["open"]["test"]
    new = after.indices == data.num_labels
    assert (after.indices[~new.any(1)] == before.indices[~new.any(1)]).mean() > 0.99
    capsys.readouterr()
    for method in ("dexa", "prime"):
        evaluate(made, method, "grown", tmp_path / method, code=2)
        error = capsys.readouterr().err.splitlines()[-1]
        assert f"labels.txt, line {len(order)}: found 'a product that nobody asked for'" in error
        assert "1 such labels" in error and f"the label vectors of {method}" in error


@pytest.mark.parametrize("method", ["dexa", "prime"])
def test_missing_labels_are_refused(
    made: Path, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load_dataset(made / "data")
    save_dataset(reordered(data, np.arange(1, data.num_labels)), tmp_path / "data")
    run = tmp_path / "run"
    shutil.copytree(made / method, run)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"found {data.num_labels - 1} of the {data.num_labels} labels of the run's" in error


def test_a_renamed_label_is_found_by_its_id(made: Path, tmp_path: Path) -> None:
    data = load_dataset(made / "data")
    count = data.num_labels
    ids = [f"id {label}" if label else "" for label in range(count)]
    ids[1] = "id 1\tid 100"
    save_dataset(dataclasses.replace(data, label_ids=ids, _catalogues={}), tmp_path / "data")
    words = ["train", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "run")]
    assert main([*words, "--method", "dexa", *TINY]) == 0
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoint")
    names, order = list(data.labels), np.arange(count)[::-1]
    names[1], names[2] = "renamed", "as well"
    asked = [names[label] for label in order] + ["new"]
    found = known_labels(checkpoint, asked, [ids[label] for label in order] + [""])
    assert found.tolist() == [*order, -1]  # the label without an id is no other's
    assert known_labels(checkpoint, asked).tolist() == [*order[:-3], -1, -1, 0, -1]


def test_equal_rows_find_each_other_in_order() -> None:
    there, here = ["a", "b", "a", "c"], ["c", "a", "x", "a", "a", "b"]
    found = find(Digests(here).array(), Digests(there).array())
    assert found.tolist() == [3, 0, -1, 2, 0, 1]
    assert find(Digests(here).array(), Digests([]).array()).tolist() == [-1] * 6
