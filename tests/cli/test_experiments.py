"""The scripts under experiments/: combinations of a study, and the figures behind its pictures."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from alc_kernels import ALCLoss, Positives, ThresholdMargin
from alc_kernels.cli import main
from alc_kernels.trainer.config import FEW_TITLES_DEFAULTS, TrainConfig, without_effect
from alc_kernels.trainer.data import load_dataset
from alc_kernels.trainer.training.checkpoint import checkpoint_folder, load_checkpoint
from alc_kernels.trainer.training.sampler import Sampler
from alc_kernels.trainer.training.training_set import TrainingSet

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
TINY = {
    "epochs": 1,
    "batch_size": 64,
    "embedding_dim": 16,
    "hidden_dim": 16,
    "ngram_buckets": 1024,
    "device": "cpu",
}


def script(name):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "data"
    words = ["data", "generate", "--labels", "60", "--titles", "400", "--output", str(folder)]
    assert main(words) == 0
    return folder


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_study_names_each_of_its_runs_once(path):
    study = script("study")
    runs = study.combinations(study.read_toml(path))
    folders = [f"{name}_{settings.get('seed', 0)}" for name, settings in runs]
    assert len(set(folders)) == len(folders) > 1
    encoder = {"encoder": "some/model"} if "minilm" in path.stem else {}  # given as --set
    for _, settings in runs:
        settings = {**settings, **encoder}
        assert not without_effect(TrainConfig.resolve(settings), settings)


def test_a_change_of_an_unknown_setting_is_refused():
    study = script("study")
    assert study.with_changes({}, ["epochs=3", "ema=0.5"])["common"] == {"epochs": 3, "ema": 0.5}
    with pytest.raises(SystemExit, match="epoch=3: expected NAME=VALUE"):
        study.with_changes({}, ["epoch=3"])


def test_an_unknown_reference_is_refused_before_training(tmp_path, monkeypatch):
    words = ["study.py", str(EXPERIMENTS / "parts.toml"), "--data", "none", "--output", "none"]
    monkeypatch.setattr(sys, "argv", [*words, "--reference", "bsae"])
    with pytest.raises(SystemExit, match="--reference bsae: expected one of ngame_base"):
        script("study").main()


def test_a_study_trains_each_run_once_and_shows_validation(data, tmp_path, monkeypatch, capsys):
    lines = ["[common]", *(f"{key} = {json.dumps(value)}" for key, value in TINY.items())]
    (tmp_path / "small.toml").write_text("\n".join([*lines, "[axes]", 'loss = ["base", "tcm"]']))
    study, out = script("study"), tmp_path / "out"
    words = ["study.py", str(tmp_path / "small.toml"), "--data", str(data), "--output", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    study.main()
    first = capsys.readouterr()
    assert "done: base_0" in first.err and "tcm" in first.out
    monkeypatch.setattr(sys, "argv", [*words, "--reference", "base"])
    study.main()  # has nothing left to train
    second = capsys.readouterr()
    assert "done" not in second.err
    assert second.out.startswith(first.out) and second.out == (out / "small.txt").read_text()
    assert second.out.splitlines()[-2].startswith("minus base")
    assert second.out.splitlines()[-1].startswith("tcm")

    scores = script("score_distributions")
    dataset = load_dataset(data)
    made = scores.distribution("run", out / "base_0", dataset)
    assert made.active[:, 1:].tolist() == [
        [int(t.active_positives), int(t.active_negatives), int((t.hardest_score >= 0.5).sum())]
        for t in loss_terms(out / "base_0", dataset)
    ]
    assert sum(map(len, made.best.values())) == len(dataset.splits["validation"])
    assert "active negatives per batch" in scores.table([made])
    scores.draw([made], tmp_path / "scores.png")
    assert (tmp_path / "scores.png").stat().st_size > 10_000


@torch.no_grad()
def loss_terms(run, dataset):
    """What the loss itself says of the same batches."""
    checkpoint = load_checkpoint(checkpoint_folder(run))
    model, config = checkpoint.model.eval(), checkpoint.config
    texts = TrainingSet(dataset, config)
    texts.tokenize(model.encoder)
    loss = ALCLoss(base=None, auxiliary=None, threshold=ThresholdMargin(), backend="torch")
    for batch in Sampler(texts.relation, texts.queries, config).batches(0):
        chunks = texts.select(batch.queries, batch.labels)
        queries, _, labels = model(chunks, len(batch.queries), torch.from_numpy(batch.labels))
        pairs = Positives.from_csr(
            torch.from_numpy(batch.crow), torch.from_numpy(batch.col), len(batch.labels)
        )
        yield loss.terms(queries, labels, pairs)


def test_separation_counts_pairs_and_halves_ties():
    separation = script("score_distributions").separation
    right, wrong = np.array([0.9, 0.5, 0.5]), np.array([0.5, 0.1])
    above = [(r > w) + (r == w) / 2 for r in right for w in wrong]
    assert separation(right, wrong) == pytest.approx(np.mean(above))


def test_pricerunner_by_product(tmp_path, capsys):
    """Every size holds the smaller ones, and no product is in two parts."""
    table = tmp_path / "offers.csv"
    rows = [f"{i},Title  {i},1,{i % 90},Product {i % 90},2,Phones" for i in range(900)]
    table.write_text("\n".join(rows) + "\n")
    made = script("pricerunner_by_product")
    titles = made.titles_of(table)
    assert len(titles) == 899 and titles["Title 1"] == ["product 1"]  # the first row is left out
    made.SIZES = (100, 300)
    parts = {size: list(made.pairs_of(titles, size)) for size in made.SIZES}
    for size, pairs in parts.items():
        assert sum(split == "train" for *_, split in pairs) == size
        place = {}
        for _, label, split in pairs:
            assert place.setdefault(label, split) == split
    assert set(parts[100]) < set(parts[300])
    made.main([str(table), str(tmp_path / "out")])
    data = load_dataset(tmp_path / "out" / "300")
    assert len(data.test) == sum(split == "test" for *_, split in parts[300])
    assert data.held_out.any() and "split by" not in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.py")), ids=lambda path: path.stem)
def test_every_script_imports_what_there_is(path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    assert callable(script(path.stem).main)


def test_the_small_study_has_the_defaults_of_few_titles():
    study = script("study")
    runs = dict(study.combinations(study.read_toml(EXPERIMENTS / "small.toml")))
    named = {"method": "ngame", "encoder": "ngrams", "seed": runs["few-titles"]["seed"]}
    assert runs["few-titles"] == {**FEW_TITLES_DEFAULTS, **named}
    assert TrainConfig.resolve({"seed": named["seed"]}, titles=500) == TrainConfig.resolve(
        runs["few-titles"]
    )


def test_the_small_study_s_page(data, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    small, folder = script("small"), tmp_path / "runs" / "400"
    for name in ("few-titles_0", "start_0"):
        rate = ["--embedding-learning-rate", "0"] if name == "start_0" else []
        words = ["train", "--data", str(data), "--output", str(folder / name), "--sketch-dim", "64"]
        words += [
            "--embedding-dim",
            "0",
            "--loss",
            "base",
            "--epochs",
            "1",
            "--evaluate-every",
            "0",
        ]
        assert main([*words, "--acceptance", "none", *rate]) == 0
    capsys.readouterr()
    groups = small.groups_of(folder)
    assert list(groups) == ["TF-IDF", "few-titles", "start"]
    page = "\n".join(small.table(groups))
    for row in ("minus TF-IDF", "minus start"):
        assert row in page
    figures = groups["few-titles"].figures()["open"]
    assert f"{100 * figures['p1'].value:8.1f}" in page
    curves = {name: {400: [1.0, 2.0, 3.0]} for name in groups}
    small.picture(curves, tmp_path / "small.png")
    assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")
