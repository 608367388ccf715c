"""``torchrun -m alc_kernels``: train, interrupt, evaluate."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alc_kernels.cli import main

TINY = ["--epochs", "2", "--batch-size", "64", "--embedding-dim", "16", "--hidden-dim", "16",
        "--ngram-buckets", "1024", "--device", "cpu", "--backend", "torch",
        "--context-dropout", "0"]  # fmt: skip
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


def command(size, *words):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc-per-node", str(size), "-m", "alc_kernels", *map(str, words)]


def torchrun(size, *words):
    return subprocess.run(
        command(size, *words), env=ENVIRONMENT, capture_output=True, text=True, timeout=250
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "data"
    words = ["data", "generate", "--labels", "60", "--titles", "400", "--output", str(folder)]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "alone"
    assert main(["train", "--data", str(data), "--output", str(run), *TINY]) == 0
    return run


def test_two_processes_leave_the_run_of_one(data, alone, tmp_path):
    run = tmp_path / "run"
    done = torchrun(2, "train", "--data", data, "--output", run, *TINY, "--tensorboard")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in run.iterdir()} == {
        "tfidf.npz", "checkpoint", "checkpoint.previous", "config.toml", "metrics.json",
        "predictions.npz", "report.html", "tensorboard",
        *(path.name for path in alone.glob("*acceptance.*")),
    }  # fmt: skip
    for path in alone.glob("*acceptance.json"):
        assert (run / path.name).read_bytes() == path.read_bytes()
    # Reported once.
    assert done.stdout.count("\nCertificates\n") == done.stderr.count("epoch 2 of 2") == 1
    assert done.stderr.count("Scoring against") == 1
    found, expected = (json.loads((f / "metrics.json").read_text()) for f in (run, alone))
    for one, other in zip(found["history"], expected["history"], strict=True):
        for key in one.keys() - {"seconds"}:
            assert one[key] == pytest.approx(other[key], abs=1e-5), key
    figure, same = (made["metrics"]["closed"]["p1"]["value"] for made in (found, expected))
    assert figure == pytest.approx(same, abs=0.02)  # a rank may swap by rounding


@pytest.mark.slow
def test_a_bad_output_is_told_once_by_its_finder(data, alone):
    done = torchrun(2, "train", "--data", data, "--output", alone, *TINY)
    assert done.returncode != 0
    assert done.stderr.startswith(f"alc train: rank 0 of 2: {alone}: already holds a run;")
    assert done.stderr.count("alc train:") == 1


@pytest.mark.slow
def test_evaluation_by_three_processes_gives_the_same_bits(data, alone):
    before = dict(np.load(alone / "predictions.npz"))
    (alone / "predictions.npz").unlink()
    done = torchrun(3, "evaluate", alone, "--data", data, "--label-shards", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nCertificates\n") == 1
    after = dict(np.load(alone / "predictions.npz"))
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, err_msg=name)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to torchrun")
def test_ctrl_c_stops_all_after_the_same_step(data, tmp_path):
    run = tmp_path / "run"
    words = ["train", "--data", data, "--output", run, *TINY, "--epochs", "500"]
    with (tmp_path / "stderr").open("w+") as errors:
        started = subprocess.Popen(command(2, *words), env=ENVIRONMENT, stderr=errors)
        end = time.monotonic() + 120
        while not (run / "checkpoint").is_dir() and time.monotonic() < end:
            time.sleep(0.1)
        started.send_signal(signal.SIGINT)
        assert started.wait(timeout=120) != 0
        errors.seek(0)
        (line,) = [line for line in errors if "alc train:" in line]
    assert "interrupted at step" in line and f"kept in {run / 'checkpoint'}" in line
    assert main(["evaluate", str(run), "--data", str(data)]) == 0  # a usable one
