"""``alc train`` from the command line: every way to train, killed and resumed, bad values."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from alc_kernels.cli import main
from alc_kernels.trainer.config import METHOD_DEFAULTS, TrainConfig
from alc_kernels.trainer.evaluation import load_scored

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TINY = ["--epochs", "2", "--batch-size", "64", "--embedding-dim", "16", "--hidden-dim", "16",
        "--ngram-buckets", "1024", "--device", "cpu", "--backend", "torch"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "data"
    words = ["data", "generate", "--labels", "60", "--titles", "400", "--output", str(folder)]
    assert main(words) == 0
    return folder


def train(data, output, *options):
    return main(["train", "--data", str(data), "--output", str(output), *TINY, *options])


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run with everything on."""
    run = tmp_path_factory.mktemp("runs") / "run"
    options = ["--cluster-size", "4", "--hard-negatives", "2", "--hard-negative-pool", "9",
               "--ema", "0.9", "--accumulate", "2", "--early-stopping", "1", "--precision", "bf16",
               "--schedule", "cosine", "--clip-norm", "1", "--checkpoint-every", "1",
               "--tensorboard"]  # fmt: skip
    assert train(data, run, *options) == 0
    return run


def last_line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def test_everything_on_leaves_a_run(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"checkpoint", "checkpoint.previous", "metrics.json", "tensorboard"} <= names
    assert load_scored(finished).config["ema"] == 0.9


@pytest.mark.slow
@pytest.mark.parametrize("method", METHOD_DEFAULTS)
def test_every_method(data, tmp_path, method):
    assert train(data, tmp_path / "run", "--method", method) == 0
    results = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert results["metrics"]["open"]["p1"]["value"] > 0.2


@pytest.mark.parametrize("method", METHOD_DEFAULTS)
def test_printed_settings_are_the_methods_and_read_back_the_same(tmp_path, capsys, method):
    assert main(["train", "--print-config", "--method", method, "--loss", "base"]) == 0
    text = capsys.readouterr().out
    shown = tomllib.loads(text)
    assert shown == vars(TrainConfig.resolve({"method": method, "loss": "base"}))
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    assert main(["train", "--print-config", "--config", str(tmp_path / "c.toml")]) == 0
    assert capsys.readouterr().out == text


def test_methods_set_defaults_that_options_override(capsys):
    assert main(["train", "--print-config", "--method", "prime"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["num_negatives"] == 100
    assert main(["train", "--print-config", "--method", "prime", "--num-negatives", "7"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["num_negatives"] == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "fp8"], "'fp8' is none of fp32, bf16, fp16"),
        (["--schedule", "cosin"], "did you mean cosine?"),
        (["--batch-size", "1"], "batch_size = 1: expected at least 2, or hard_negatives above 0"),
        (["--ema", "1"], "ema = 1.0: expected a number from 0 to below 1"),
        (["--accumulate", "0"], "accumulate = 0: expected a whole number of at least 1"),
        (["--accumulate", "1.5"], "'1.5' is not a whole number"),
        (["--early-stopping", "2", "--evaluate-every", "0"], "expected evaluate_every above 0"),
        (["--false-negative-margin", "-3"], "expected a difference of similarities"),
        (["--tensorbord"], "unknown option --tensorbord; did you mean --tensorboard?"),
        (["--from-previous"], "--from-previous needs --resume"),
        (["--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
        (["--resume"], "holds no run to resume"),
    ],
)
def test_bad_values_are_one_line(data, tmp_path, capsys, options, message):
    assert train(data, tmp_path / "run", *options) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and error[0].startswith("alc train: ") and message in error[0]
    assert not (tmp_path / "run").exists()


def test_killed_and_resumed_from_the_command_line(data, finished, tmp_path, capsys):
    """SIGKILL in the middle, then ``--resume``: the figures of the run that was left alone."""
    run = tmp_path / "run"
    script = (
        "import os, signal, sys\n"
        "from alc_kernels.cli import main\n"
        "from alc_kernels.cli.train import LineProgress\n"
        "def step(self, *, step, epoch, loss):\n"
        "    if step == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "LineProgress.step = step\n"
        "main(sys.argv[1:])\n"
    )
    config = str(finished / "config.toml")
    words = ["train", "--data", str(data), "--output", str(run), "--config", config]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (run / "metrics.json").exists()
    assert main(["train", "--data", str(data), "--output", str(run), "--resume"]) == 0
    found, expected = (json.loads((r / "metrics.json").read_text()) for r in (run, finished))
    assert found["metrics"] == expected["metrics"]


def test_resume_after_scoring_was_cut(data, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for name in ("metrics.json", "predictions.npz", "report.html"):
        (run / name).unlink()
    assert main(["train", "--data", str(data), "--output", str(run), "--resume"]) == 0
    found, expected = (json.loads((r / "metrics.json").read_text()) for r in (run, finished))
    assert found["metrics"] == expected["metrics"] and found["history"] == expected["history"]


def test_a_damaged_checkpoint_is_named_and_the_previous_one_is_used_when_asked(
    data, finished, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    path = run / "checkpoint" / "training.safetensors"
    os.truncate(path, path.stat().st_size // 2)
    words = ["train", "--data", str(data), "--output", str(run), "--resume"]
    assert main(words) == 2
    error = last_line(capsys)
    assert str(path) in error and "--resume --from-previous" in error
    assert main([*words, "--from-previous"]) == 0
    found, expected = (json.loads((r / "metrics.json").read_text()) for r in (run, finished))
    assert found["metrics"] == expected["metrics"]


def test_resume_with_other_settings_or_without_a_checkpoint(data, finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    words = ["train", "--data", str(data), "--output", str(run), "--resume"]
    assert main([*words, "--margin", "0.4"]) == 2
    assert "other settings (margin differs)" in last_line(capsys)
    for name in ("checkpoint", "checkpoint.previous"):
        shutil.rmtree(run / name)
    assert main(words) == 2
    assert "start again with --overwrite" in last_line(capsys)


def test_overwrite_takes_the_board_and_both_checkpoints_away(data, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert train(data, run, "--overwrite", "--epochs", "1") == 0
    assert not (run / "tensorboard").exists() and not (run / "checkpoint.previous").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "dexml", "--margin", ".2"], "it takes method ngame or dexa"),
        (["--temperature", ".1"], "--temperature has no effect with method ngame"),
        (["--method", "dexml", "--num-negatives", "5"], "it takes method ngame, dexa or prime"),
        (["--loss", "base", "--pair-weight", "2"], "it takes loss alc, alc-pair or alc+tcm"),
        (["--loss", "alc-pair", "--context-size", "64"], "loss alc, alc-batch or alc+tcm"),
        (["--loss", "alc", "--tcm-weight", "2"], "it takes loss tcm or alc+tcm"),
        (["--max-length", "32"], "it takes a Hugging Face encoder"),
        (["--encoder", "some/model", "--hidden-dim", "32"], "it takes encoder ngrams"),
        (["--encoder", "some/model", "--embedding-learning-rate", ".1"], "dexa or prime"),
        (["--prototype-heads", "2"], "it takes method prime"),
        (["--index", "approximate"], "it takes hard_negatives above 0"),
        (["--refresh-every", "2"], "cluster_size above 1, hard_negatives above 0 or method"),
    ],
)
def test_an_option_without_effect_is_refused(capsys, options, message):
    assert main(["train", "--print-config", *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and " has no effect with method " in error and message in error


def test_every_setting_has_an_effect_somewhere():
    from itertools import product

    from alc_kernels.trainer.config import LOSSES, without_effect

    names = {field.name for field in dataclasses.fields(TrainConfig) if field.metadata["when"]}
    idle = set(names)
    for method, loss, encoder, hard in product(METHOD_DEFAULTS, LOSSES, ("ngrams", "hf"), (0, 2)):
        config = TrainConfig(method=method, loss=loss, encoder=encoder, hard_negatives=hard)
        idle &= set(without_effect(config, names))
    assert not idle
