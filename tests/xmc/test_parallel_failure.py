"""A lost process ends the run with one message within a bounded time, and nothing is half done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parallel_cases import SETTINGS, run_training, start
from test_parallel_train import assert_close

from alc_kernels.trainer.parallel import Processes
from alc_kernels.trainer.training.checkpoint import load_checkpoint

SCRIPT = str(Path(__file__).with_name("parallel_cases.py"))
CHECKPOINTS = {**SETTINGS["averaged"], "checkpoint_every": 1}


def finish(started: list[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    """Exit codes and what they wrote to stderr, long before the processes' own patience ends."""
    ended = [process.communicate(timeout=200)[1] for process in started]
    return [process.returncode for process in started], ended


def test_a_killed_rank_ends_the_job_and_the_run_goes_on(tmp_path: Path) -> None:
    """Under torchrun, whose report names the rank."""
    words = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT]
    root = str(Path(__file__).parents[2])
    # Rank 1 dies in the second epoch, after the third of four steps.
    variables = {"HURT": "1 3 kill", "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "PATIENCE": "600"}
    command = [
        sys.executable,
        "-m",
        *words,
        "fresh",
        str(tmp_path / "run"),
        json.dumps(CHECKPOINTS),
    ]
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode != 0
    assert "rank      : 1 (local_rank: 1)" in done.stderr and "SIGKILL" in done.stderr
    assert not list((tmp_path / "run").glob(".checkpoint*"))
    for left in (tmp_path / "run").glob("checkpoint*"):
        load_checkpoint(left)
    torch.set_num_threads(1)
    alone = Processes()
    resumed = run_training(alone, tmp_path / "run", CHECKPOINTS, resume=True)
    assert_close(resumed, run_training(alone, tmp_path / "whole", CHECKPOINTS))


@pytest.mark.slow
def test_another_process_names_the_killed_one(tmp_path: Path) -> None:
    """Without torchrun, which would end the others before they can speak."""
    words = ["fresh", str(tmp_path / "run"), json.dumps(CHECKPOINTS)]
    codes, errors = finish(start(2, words, HURT="1 3 kill", PATIENCE="600"))
    assert codes == [1, -9]
    (line,) = errors[0].strip().splitlines()
    assert line.startswith(
        "test: rank 0 of 2: rank 1 of 2 was killed or did not answer within 600 s"
    )
    assert "--resume" in line


@pytest.mark.slow
def test_the_loss_of_the_first_process_is_noticed(tmp_path: Path) -> None:
    """With it goes the store in which notes are left."""
    words = ["fresh", str(tmp_path / "run"), json.dumps(CHECKPOINTS)]
    codes, errors = finish(start(3, words, HURT="0 3 kill", PATIENCE="600"))
    assert codes == [-9, 1, 1]
    assert all("rank 0 of 3 was killed or did not answer" in error for error in errors[1:])


@pytest.mark.slow
def test_a_hanging_process_is_given_up_and_named(tmp_path: Path) -> None:
    words = ["fresh", str(tmp_path / "run"), json.dumps(CHECKPOINTS)]
    started = start(2, words, HURT="1 3 sleep 300", PATIENCE="20")
    error = started[0].communicate(timeout=200)[1]
    started[1].kill()
    assert started[0].returncode == 1
    assert "rank 1 of 2 was killed or did not answer within 20 s (process_timeout)" in error
    started[1].communicate()


@pytest.mark.slow
def test_a_delayed_process_is_waited_for(tmp_path: Path) -> None:
    words = ["fresh", str(tmp_path / "run"), json.dumps(CHECKPOINTS)]
    codes, errors = finish(start(2, words, HURT="1 3 sleep 6", PATIENCE="40"))
    assert codes == [0, 0], errors


@pytest.mark.slow
def test_an_error_is_told_once_by_the_process_that_had_it(tmp_path: Path) -> None:
    words = ["fresh", str(tmp_path / "run"), json.dumps(CHECKPOINTS)]
    codes, errors = finish(start(2, words, HURT="1 3 raise", PATIENCE="600"))
    assert codes == [1, 1]
    assert errors[1].strip().endswith("test: rank 1 of 2: a bad day")
    assert "test:" not in errors[0]


@pytest.mark.slow
def test_an_error_that_all_have_is_told_once(tmp_path: Path) -> None:
    words = ["resume", str(tmp_path / "nothing here"), json.dumps(CHECKPOINTS)]
    codes, errors = finish(start(3, words, PATIENCE="600"))
    assert codes == [1, 1, 1]
    assert "".join(errors).count("no checkpoint found, expected") == 1, errors
