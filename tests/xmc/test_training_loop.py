"""Training learns, stops cleanly, and continues exactly where it stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from alc_kernels.trainer.config import BEFORE, LOSSES, TrainConfig
from alc_kernels.trainer.data import Dataset, generate_catalogue
from alc_kernels.trainer.encoders import build_encoder
from alc_kernels.trainer.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    Interrupted,
    TrainingDiverged,
)
from alc_kernels.trainer.training import Progress, TrainedRun, train
from alc_kernels.trainer.training import loop as loop_module
from alc_kernels.trainer.training.checkpoint import (
    MODEL,
    STATE,
    TRAINING,
    _digest,
    checkpoint_folder,
    load_checkpoint,
    load_encoder,
)
from alc_kernels.trainer.training.optimizers import learning_rate_factor
from alc_kernels.trainer.training.sampler import Batch

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = TrainConfig(
    loss="alc+tcm", epochs=3, batch_size=64, embedding_dim=32, ngram_buckets=4096, hidden_dim=32,
    backend="torch", device="cpu", dropout=0.1, context_size=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Dataset:
    return generate_catalogue(100, 500)


class Watch(Progress):
    """Notes what is called; runs ``action`` after a given step."""

    def __init__(self, at_step: int = 0, action: Callable[[], None] | None = None) -> None:
        self.calls: list[str] = []
        self.losses: list[float] = []
        self.at_step, self.action = at_step, action

    def start(self, *, epochs: int, steps_per_epoch: int, first_step: int = 0) -> None:
        self.calls.append(f"start {epochs} {steps_per_epoch} {first_step}")

    def step(self, *, step: int, epoch: int, loss: float) -> None:
        self.losses.append(loss)
        if step == self.at_step and self.action is not None:
            self.action()

    def epoch(self, record: Mapping[str, float]) -> None:
        self.calls.append(f"epoch {record['epoch']}")

    def finish(self) -> None:
        self.calls.append("finish")


def p_at_1(encoder: torch.nn.Module, data: Dataset) -> float:
    scores = encoder.encode_texts(data.validation.queries) @ encoder.encode_texts(data.labels).T
    best = scores.argmax(1).numpy().copy()
    return float(np.asarray(data.validation.relation[np.arange(len(best)), best]).mean())


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns(data: Dataset, tmp_path: Path, loss: str) -> None:
    watch = Watch()
    config = SMALL.replace(loss=loss, epochs=4)
    run = train(config, data, tmp_path, watch, lambda e: {"p1": p_at_1(e.encoder, data)})
    steps = run.history[0]["step"]
    assert watch.calls == [
        f"start 4 {steps:.0f} 0",
        *(f"epoch {i}" for i in (1, 2, 3, 4)),
        "finish",
    ]
    assert len(watch.losses) == 4 * steps
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert run.history[-1]["base"] < 0.7 * run.history[0]["base"]
    assert run.history[-1]["validation_p1"] > 0.6
    terms = {name for name in loop_module.TERMS if run.history[0][name] != 0}
    every = set(loop_module.TERMS) - {"penalty"}  # PRIME's
    expected = {
        "base": {"base"}, "alc": {"base", "pair", "batch"}, "alc-pair": {"base", "pair"},
        "alc-batch": {"base", "batch"}, "tcm": {"base", "tcm_positive", "tcm_negative"},
        "alc+tcm": every,
    }  # fmt: skip
    assert terms == expected[loss]
    assert not run.model.encoder.training
    assert TrainConfig.from_toml(tmp_path / "config.toml") == config
    assert same_weights(load_encoder(tmp_path), run.model.encoder)


def test_training_beats_the_untrained_encoder(data: Dataset, tmp_path: Path) -> None:
    config = SMALL.replace(loss="base", epochs=6, evaluate_every=5)
    run = train(config, data, tmp_path, evaluate=lambda e: {"p1": p_at_1(e.encoder, data)})
    looked = [entry["epoch"] for entry in run.history if "validation_p1" in entry]
    assert looked == [5, 6]  # the last epoch is always looked at
    fresh = build_encoder("ngrams", SMALL)
    assert p_at_1(run.model.encoder, data) > p_at_1(fresh, data)


def test_the_seed_decides_everything(data: Dataset, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    one = train(SMALL.replace(epochs=1), data, tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), state)  # the caller's generator is left alone
    torch.manual_seed(99)
    two = train(SMALL.replace(epochs=1), data, tmp_path / "b")
    other = train(SMALL.replace(epochs=1, seed=1), data, tmp_path / "c")
    assert same_weights(one.model.encoder, two.model.encoder)
    assert not same_weights(one.model.encoder, other.model.encoder)


TWO_EPOCHS = SMALL.replace(epochs=2, clip_norm=1.0)


@pytest.fixture(scope="module")
def whole(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run without interruption: 2 epochs of 5 steps."""
    return train(TWO_EPOCHS, data, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("at_step", [1, 5, 7])
def test_ctrl_c_then_resume_is_exact(
    data: Dataset, whole: TrainedRun, tmp_path: Path, at_step: int
) -> None:
    config = TWO_EPOCHS
    assert [entry["step"] for entry in whole.history] == [5, 10]
    watch = Watch(at_step, lambda: os.kill(os.getpid(), signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=rf"interrupted at step {at_step} of \d+; checkpoint of"):
        train(config, data, tmp_path / "cut", watch)
    assert signal.getsignal(signal.SIGINT) is handler
    assert watch.calls[-1] == "finish"
    load_encoder(tmp_path / "cut").encode_texts(["usable"])
    resumed = train(config, data, tmp_path / "cut", Watch(), resume=True)
    assert same_weights(resumed.model.encoder, whole.model.encoder)
    drop = {"seconds"}
    for a, b in zip(resumed.history, whole.history, strict=True):
        assert {k: v for k, v in a.items() if k not in drop} == {
            k: v for k, v in b.items() if k not in drop
        }


def test_second_ctrl_c_stops_at_once(data: Dataset, tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="no checkpoint was written before it"):
        train(SMALL, data, tmp_path, Watch(1, twice))


def test_resume_needs_a_checkpoint_that_fits(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint found"):
        train(SMALL, data, tmp_path, resume=True)
    train(SMALL.replace(epochs=1), data, tmp_path)
    with pytest.raises(CheckpointError, match=r"other settings \(margin differs\)"):
        train(SMALL.replace(margin=0.2), data, tmp_path, resume=True)


@pytest.mark.parametrize("cut", [False, True])
def test_more_epochs_extend_a_run(
    data: Dataset, whole: TrainedRun, tmp_path: Path, cut: bool
) -> None:
    """From where it stands, with the learning rates of the longer course."""
    if cut:
        watch = Watch(7, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Interrupted):
            train(TWO_EPOCHS, data, tmp_path, watch)
    else:
        shutil.copytree(whole.output, tmp_path, dirs_exist_ok=True)
    more = TWO_EPOCHS.replace(epochs=4)
    longer = train(more, data, tmp_path, resume=True)
    assert [entry["epoch"] for entry in longer.history] == [1, 2, 3, 4]
    done = 1 if cut else 2  # epochs that ended before the extension
    drop = {"seconds"}
    for a, b in zip(longer.history[:done], whole.history[:done], strict=True):
        assert {k: v for k, v in a.items() if k not in drop} == {
            k: v for k, v in b.items() if k not in drop
        }
    for entry in longer.history[done:]:
        factor = learning_rate_factor(int(entry["step"]) - 1, 20, more.warmup, more.schedule)
        assert entry["learning_rate"] == pytest.approx(more.learning_rate * factor)
    assert longer.history[2]["learning_rate"] > whole.history[1]["learning_rate"]
    assert not same_weights(longer.model.encoder, whole.model.encoder)
    # What was asked for last is what a plain --resume goes on with, and no less.
    assert TrainConfig.from_toml(tmp_path / "config.toml") == more
    again = train(more, data, tmp_path, resume=True)
    assert same_weights(again.model.encoder, longer.model.encoder)
    with pytest.raises(CheckpointError, match=r"run of 4 epochs, found epochs = 2, expected at l"):
        train(TWO_EPOCHS, data, tmp_path, resume=True)


def test_a_run_that_stopped_early_is_not_extended(data: Dataset, tmp_path: Path) -> None:
    config = SMALL.replace(epochs=5, early_stopping=1)
    run = train(config, data, tmp_path, evaluate=lambda model: {"coverage_90": 0.0})
    assert len(run.history) == 1 and run.best_epoch == 0
    with pytest.raises(CheckpointError, match=r"stopped early after epoch 1, since 1 validation "):
        train(
            config.replace(epochs=9), data, tmp_path, resume=True,
            evaluate=lambda model: {"coverage_90": 0.0},
        )  # fmt: skip


def test_resume_needs_the_same_data(data: Dataset, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    config = SMALL.replace(epochs=1)
    train(config, data, tmp_path / "run", resume=True)
    labels = ["another name", *data.labels[1:]]
    other = dataclasses.replace(data, labels=labels, _catalogues={})
    with pytest.raises(CheckpointError, match="trained on other queries, labels or pairs"):
        train(config, other, tmp_path / "run", resume=True)


def poison(step: int, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the table or the gradient NaN when ``step`` begins."""
    original = loop_module._Trainer._step

    def poisoned(self: loop_module._Trainer, batches: list[Batch]) -> None:
        if self.position.step == step - 1:
            if what == "weights":
                self.model.encoder.mlp[0].weight.data[0, 0] = float("nan")
            else:
                self.model.encoder.mlp[0].weight.register_hook(lambda g: g * float("inf"))
        original(self, batches)

    monkeypatch.setattr(loop_module._Trainer, "_step", poisoned)


@pytest.mark.parametrize(("what", "at"), [("weights", 8), ("gradient", 9)])
def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, at: int
) -> None:
    steps = -(-len(data.train) // SMALL.batch_size)
    poison(8, what, monkeypatch)
    with pytest.raises(TrainingDiverged, match=rf"embeddings became nan at step {at};") as raised:
        train(SMALL.replace(loss="base"), data, tmp_path / "run")
    kept = steps * ((at - 1) // steps)
    assert f"checkpoint of step {kept} kept in" in str(raised.value)
    state = json.loads((tmp_path / "run" / "checkpoint" / STATE).read_text())
    assert state["position"]["step"] == kept
    assert load_encoder(tmp_path / "run").encode_texts(["nova"]).isfinite().all()


def test_divergence_before_the_first_checkpoint(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(2, "weights", monkeypatch)
    with pytest.raises(TrainingDiverged, match="at step 2; no checkpoint was written before it"):
        train(SMALL, data, tmp_path)


def test_unmatched_queries(data: Dataset, tmp_path: Path) -> None:
    kept = generate_catalogue(100, 500, keep_unmatched=True)
    watch, watch_kept = Watch(), Watch()
    config = SMALL.replace(epochs=1, batch_size=16, loss="tcm")
    train(config, kept, tmp_path, watch)
    train(config.replace(keep_unmatched=True), kept, tmp_path, watch_kept)
    assert len(watch_kept.losses) > len(watch.losses) == -(-len(data.train) // 16)
    with pytest.raises(DataError, match="found no training query without a label"):
        train(SMALL.replace(keep_unmatched=True), data, tmp_path)


def test_unknown_device(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device = 'abacus': cannot be used here"):
        train(SMALL.replace(device="abacus"), data, tmp_path)


@pytest.fixture(scope="module")
def finished(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train(SMALL.replace(epochs=1), data, folder)
    return folder


@pytest.mark.parametrize("name", [STATE, MODEL, TRAINING])
@pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "foreign"])
def test_a_damaged_checkpoint_is_refused_by_name(
    finished: Path, tmp_path: Path, name: str, damage: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    path = run / "checkpoint" / name
    raw = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "altered" and name == STATE:
        path.write_bytes(raw.replace(b'"dim": 32', b'"dim": 48'))
    elif damage == "altered":
        path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    else:
        path.write_bytes(b'{"something": "else"}')
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")) as raised:
        load_encoder(run)
    assert "\n" not in str(raised.value)


def test_an_older_run_keeps_the_form_of_its_batch_part(data: Dataset, tmp_path: Path) -> None:
    """Neither its checkpoint nor its settings name what they could not name yet."""
    wide = SMALL.replace(epochs=1, context_dim=0, context_rows=0, attention_dropout=-1.0)
    train(wide, data, tmp_path)
    for folder in ("checkpoint", "checkpoint.previous"):
        path = tmp_path / folder / STATE
        if path.is_file():
            state = json.loads(path.read_text())
            state["config"] = {k: v for k, v in state["config"].items() if k not in BEFORE}
            path.write_text(json.dumps({**state, "sha256_of_this": _digest(state)}))
    path = tmp_path / "config.toml"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(x for x in lines if x.partition(" ")[0] not in BEFORE))
    found = TrainConfig.from_toml(path, BEFORE)
    assert found == load_checkpoint(tmp_path / "checkpoint").config == wide
    watch = Watch()
    train(found.replace(epochs=2), data, tmp_path, watch, resume=True)
    assert watch.calls[0].startswith("start 2") and "epoch 2" in watch.calls


def test_checkpoints_leave_nothing_else_behind(finished: Path) -> None:
    assert sorted(p.name for p in finished.iterdir()) == ["checkpoint", "config.toml"]
    files = sorted(p.name for p in (finished / "checkpoint").iterdir())
    assert files == [MODEL, STATE, TRAINING]


def test_a_write_cut_between_two_renames_is_survived(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "checkpoint", tmp_path / "checkpoint.previous")
    assert checkpoint_folder(tmp_path).name == "checkpoint.previous"
    load_encoder(tmp_path)


def test_a_failed_write_keeps_the_old_checkpoint(
    data: Dataset, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alc_kernels.trainer.encoders.ngrams import NgramEncoder

    shutil.copytree(finished, tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint" / STATE).read_bytes()

    def fail(self: NgramEncoder, folder: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(NgramEncoder, "save_assets", fail)
    with pytest.raises(OSError, match="disk full"):
        train(SMALL.replace(epochs=1), data, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint" / STATE).read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["checkpoint", "config.toml"]
