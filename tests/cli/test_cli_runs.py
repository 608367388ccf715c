"""The commands end to end on small data: demo, and data, train, evaluate, compare, resume."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tomllib

from alc_kernels.cli import main
from alc_kernels.cli.app import COMMANDS
from alc_kernels.cli.train import LineProgress
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.evaluation import load_scored

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TINY = ["--epochs", "2", "--batch-size", "64", "--embedding-dim", "32", "--hidden-dim", "32",
        "--ngram-buckets", "4096", "--evaluate-every", "1"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "data"
    words = ["data", "generate", "--labels", "60", "--titles", "600", "--output", str(folder)]
    assert main(words) == 0
    return folder


def train(data, output, *options):
    words = ["train", "--data", str(data), "--output", str(output), *TINY, *options]
    return main(words)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Base with two seeds, and ALC."""
    folder = tmp_path_factory.mktemp("runs")
    made = {"base0": ["base", "0"], "base1": ["base", "1"], "alc0": ["alc", "0"]}
    for name, (loss, seed) in made.items():
        assert train(data, folder / name, "--loss", loss, "--seed", seed) == 0
    return folder


def test_a_run_leaves_what_the_manual_says(runs):
    run = runs / "alc0"
    for name in ("metrics.json", "config.toml", "checkpoint", "predictions.npz", "report.html"):
        assert (run / name).exists(), name
    assert not list(run.glob("*.partial"))
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["loss"] == "alc" and config["epochs"] == 2
    results = json.loads((run / "metrics.json").read_text())
    assert results["config"] == config
    assert len(results["history"]) == 2 and "validation_coverage_90" in results["history"][0]
    assert results["seconds"]["training"] > 0
    for catalogue in ("open", "closed"):
        p1 = results["metrics"][catalogue]["p1"]
        low, high = p1["interval_95"]
        assert 0 <= low <= p1["value"] <= high <= 1
        test = load_scored(run).predictions[catalogue]["test"]
        assert p1["value"] == pytest.approx(test.correct.mean())
    # What is missing from the catalogue cannot be answered.
    assert results["metrics"]["open"]["p1"]["value"] < results["metrics"]["closed"]["p1"]["value"]


def test_evaluate_again_from_the_checkpoint_gives_the_same(data, runs, tmp_path):
    run = runs / "base1"
    before = load_scored(run).predictions
    results = json.loads((run / "metrics.json").read_text())
    for name in ("predictions.npz", "metrics.json", "report.html"):
        (run / name).unlink()
    assert main(["evaluate", str(run), "--data", str(data)]) == 0
    after = load_scored(run).predictions
    np.testing.assert_array_equal(before["open"]["test"].indices, after["open"]["test"].indices)
    again = json.loads((run / "metrics.json").read_text())
    assert again["metrics"] == results["metrics"] and again["history"] == results["history"]
    assert (run / "report.html").exists()


def test_compare_groups_seeds_and_writes_a_page(data, runs, tmp_path, capsys):
    page = tmp_path / "page.html"
    folders = [str(runs / name) for name in ("base0", "alc0", "base1")]
    words = ["compare", *folders, "--output", str(page), "--data", str(data)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "mean of 2 seeds" in shown and "ALC minus base" in shown and "TF-IDF" in shown
    assert "for review, match wrong" in page.read_text(encoding="utf-8")
    means = [load_scored(runs / n).predictions["open"]["test"].correct.mean()
             for n in ("base0", "base1")]  # fmt: skip
    table = shown.split("\nCoverage\n")[1]
    row = next(line for line in table.splitlines() if line.startswith("  base "))
    assert float(row.split()[1]) == pytest.approx(100 * np.mean(means), abs=0.051)


def test_interrupted_training_says_where_the_checkpoint_is_and_resumes(
    data, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    step = LineProgress.step

    def press(self, *, step: int, epoch: int, loss: float) -> None:
        self.done = step
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(LineProgress, "step", press)
    assert train(data, run) == 130
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("alc train: interrupted at step 2") and str(run / "checkpoint") in error
    monkeypatch.setattr(LineProgress, "step", step)
    assert not (run / "metrics.json").exists()
    # An interrupted run is a usable one: it can be scored as it is, and it can go on.
    assert main(["evaluate", str(run), "--data", str(data)]) == 0
    assert main(["train", "--data", str(data), "--output", str(run), "--resume"]) == 0
    assert len(json.loads((run / "metrics.json").read_text())["history"]) == 2
    more = ["train", "--data", str(data), "--output", str(run), "--resume", "--epochs"]
    assert main([*more, "3"]) == 0
    assert len(json.loads((run / "metrics.json").read_text())["history"]) == 3
    assert main([*more, "2"]) == 2
    assert "run of 3 epochs, found epochs = 2" in capsys.readouterr().err


def test_interrupted_scoring_says_how_to_go_on(data, tmp_path, capsys, monkeypatch):
    from alc_kernels.trainer import finish as evaluate

    def press(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "score_model", press)
    run = tmp_path / "run"
    assert train(data, run, "--evaluate-every", "0") == 130
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"alc evaluate {run} --data" in error
    monkeypatch.undo()
    assert main(["evaluate", str(run), "--data", str(data)]) == 0


def test_diverged_training_names_the_step_and_the_checkpoint(data, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(data, run, "--learning-rate", "1e30", "--warmup", "0") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("alc train: ") and "step" in error and "checkpoint" in error


def test_overwrite_replaces_the_run(data, tmp_path):
    run = tmp_path / "run"
    assert train(data, run) == 0
    (run / "notes.txt").write_text("mine")
    assert train(data, run, "--seed", "5", "--overwrite") == 0
    assert load_scored(run).config["seed"] == 5
    assert (run / "notes.txt").read_text() == "mine"


def test_settings_come_from_defaults_file_and_options_in_that_order(tmp_path, capsys):
    file = tmp_path / "c.toml"
    file.write_text("epochs = 3\nmargin = 0.5\n")
    assert main(["train", "--config", str(file), "--margin", "0.7", "--print-config"]) == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert (shown["epochs"], shown["margin"]) == (3, 0.7)
    assert shown["batch_size"] == TrainConfig().batch_size
    assert set(shown) == set(TrainConfig.__dataclass_fields__)


def test_info_tells_versions_and_reasons(capsys):
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert "alc-kernels" in shown and "torch" in shown
    assert "cpu torch: live" in shown
    assert re.search(r"native: (live|not live: \w+)", shown)


def test_help_of_every_command(capsys):
    for words in ([], *([name] for name in COMMANDS)):
        assert main([*words, "--help"]) == 0
        assert "usage: alc" in capsys.readouterr().out


def test_demo_end_to_end_in_a_process_of_its_own(tmp_path, capsys):
    words = [sys.executable, "-m", "alc_kernels", "demo", "--small", "--output", "demo"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for needed in ("TF-IDF", "base", "ALC", "ALC minus base", "P@5", "C@.95", "Open catalogue",
                   "Closed catalogue", "auxiliary parts", "Training took ", "demo/report.html",
                   "demo/coverage.png"):  # fmt: skip
        assert needed in done.stdout, needed
    assert "left" in done.stderr  # progress, with the time left
    made = tmp_path / "demo"
    assert (made / "coverage.png").read_bytes().startswith(b"\x89PNG")
    page = (made / "report.html").read_text(encoding="utf-8")
    assert "generated by a program" in page and page.count("data:image/svg+xml") >= 5
    assert (made / "README.txt").exists()  # what marks the folder as one that a demo may replace
    assert main(["compare", str(made / "base"), str(made / "alc")]) == 0
    assert "TF-IDF" in capsys.readouterr().out
