"""A run killed at any moment (SIGKILL) and resumed gives the same bits as one left alone."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killed_run import CountedWrites, run

from alc_kernels.trainer.errors import CheckpointError
from alc_kernels.trainer.training import Progress, TrainedRun
from alc_kernels.trainer.training.checkpoint import PREVIOUS, checkpoint_folder, load_checkpoint

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here"),
    pytest.mark.usefixtures("one_thread"),
]

MINED = {"cluster_size": 4, "hard_negatives": 2, "hard_negative_pool": 10}
AVERAGED = {"ema": 0.9, "accumulate": 2, "early_stopping": 2, "clip_norm": 1.0}
EVERY_WAY: dict[str, dict[str, Any]] = {
    "ngame": {},
    "ngame mined": {**MINED, "false_negative_margin": 0.1},
    "ngame averaged": AVERAGED,
    "ngame bf16": {"precision": "bf16", "schedule": "cosine"},
    "ngame fp16": {"precision": "fp16", "clip_norm": 1.0},
    "dexa": {"method": "dexa", **AVERAGED},
    "dexa mined": {"method": "dexa", **MINED, "refresh_every": 2},
    "dexml": {"method": "dexml", "keep_unmatched": False},
    "dexml all labels": {"method": "dexml", "loss": "base", "all_labels": True, "ema": 0.9},
    "dexml all labels mined": {"method": "dexml", "all_labels": True, "accumulate": 2, **MINED},
    "prime": {"method": "prime", "num_negatives": 20},
    "prime mined averaged": {"method": "prime", "num_negatives": 20, **MINED, **AVERAGED},
}


def start_and_die(folder: Path, settings: dict[str, Any], resume: bool, at: str) -> None:
    script = Path(__file__).with_name("killed_run.py")
    words = [str(folder), json.dumps(settings), "resume" if resume else "fresh", at]
    done = subprocess.run([sys.executable, script, *words], capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def go_on(folder: Path, settings: dict[str, Any]) -> TrainedRun:
    """Resume where there is something to resume, else start again, as a user would."""
    try:
        checkpoint_folder(folder)
    except CheckpointError:
        shutil.rmtree(folder, ignore_errors=True)
        return run(folder, settings, False, Progress())
    return run(folder, settings, True, Progress())


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)


def assert_same(found: TrainedRun, expected: TrainedRun) -> None:
    one, other = found.model.state_dict(), expected.model.state_dict()
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different
    histories = [
        [{k: v for k, v in entry.items() if k != "seconds"} for entry in made.history]
        for made in (found, expected)
    ]
    assert histories[0] == histories[1]
    assert found.best_epoch == expected.best_epoch
    # Whatever the checkpoints hold is the same as well: optimizers, scaler, averages, ...
    left, right = (load_checkpoint(checkpoint_folder(made.output)) for made in (found, expected))
    stored = left.model.state_dict()
    assert all(torch.equal(stored[name], other[name]) for name in other)
    assert left.parts.keys() == right.parts.keys()
    for part, state in left.parts.items():
        assert state.keys() == right.parts[part].keys(), part
        for key, value in state.items():
            assert same(value, right.parts[part][key]), (part, key)


def random_choice() -> random.Random:
    """Another one in every run of the tests; shown where a test fails."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"random.Random({seed})")
    return random.Random(seed)


def kill_at_random_steps(folder: Path, settings: dict[str, Any], kills: int) -> None:
    rng = random_choice()
    whole = run(folder / "whole", settings, False, Progress())
    steps = int(whole.history[-1]["step"])
    every = rng.choice([1, 2, 3])
    settings = {**settings, "checkpoint_every": every}
    done = 0
    for number in range(kills):
        done = rng.randint(done + 1, steps - 1)
        print(f"checkpoints every {every} steps, kill {number + 1} at step {done} of {steps}")
        resume = (folder / "cut" / "checkpoint").exists()
        start_and_die(folder / "cut", settings, resume, f"step {done}")
        if done >= steps - 1:
            break
    assert_same(go_on(folder / "cut", settings), whole)


def test_killed_at_a_random_step(tmp_path: Path) -> None:
    """In its second or third epoch; the checkpoint that it goes on from is in the midst of one."""
    settings = {**MINED, **AVERAGED, "checkpoint_every": 1}
    whole = run(tmp_path / "whole", settings, False, Progress())
    steps = int(whole.history[0]["step"])
    at = random_choice().choice([steps + 2, steps + 3, 2 * steps + 2])
    print(f"kill at step {at}, {steps} steps per epoch")
    start_and_die(tmp_path / "cut", settings, False, f"step {at}")
    assert_same(go_on(tmp_path / "cut", settings), whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_WAY)
def test_every_way_to_train_killed_again_and_again(tmp_path: Path, name: str) -> None:
    kill_at_random_steps(tmp_path, EVERY_WAY[name], 3)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random text model with dropout."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny-bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    words += [f"##{letter}" for letter in words[5:]]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    settings = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertModel(settings).save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_hugging_face_encoder_killed_again_and_again(
    tmp_path: Path, model_folder: str, precision: str
) -> None:
    settings = {"encoder": model_folder, "precision": precision, "max_length": 16, **MINED}
    settings |= {"gradient_checkpointing": precision == "fp32", **AVERAGED}
    kill_at_random_steps(tmp_path, settings, 2)


@pytest.mark.slow
def test_killed_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    """Before any operation on files: what is found then is whole, and training goes on."""
    settings = {"checkpoint_every": 1, "epochs": 2, **AVERAGED}
    with CountedWrites() as writes:
        whole = run(tmp_path / "whole", settings, False, Progress())
    assert (tmp_path / "whole" / PREVIOUS).is_dir()
    for n in random_choice().sample(range(2, writes.count + 1), 12):
        print(f"kill before file operation {n} of {writes.count}")
        cut = tmp_path / str(n)
        start_and_die(cut, settings, False, f"write {n}")
        for left in cut.glob("checkpoint*"):
            load_checkpoint(left)
        assert_same(go_on(cut, settings), whole)
        assert not list(cut.glob(".checkpoint*"))
