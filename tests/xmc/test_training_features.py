"""What the loop adds to a plain one: accumulation, averages, early stopping, all labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killed_run import SMALL
from torch import Tensor
from training_cases import Losses

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data import Dataset, generate_catalogue
from alc_kernels.trainer.data.text.sparse import relation_from_pairs
from alc_kernels.trainer.errors import ConfigError, Interrupted
from alc_kernels.trainer.model import Model
from alc_kernels.trainer.training import Progress, TrainedRun, train
from alc_kernels.trainer.training.checkpoint import checkpoint_folder, load_checkpoint
from alc_kernels.trainer.training.optimizers import Optimizers, WeightAverage
from alc_kernels.trainer.training.training_set import LabelCache, TrainingSet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return generate_catalogue(60, 300)


def small(**settings: Any) -> TrainConfig:
    return TrainConfig.resolve({**SMALL, **settings})


def weights(run: TrainedRun) -> dict[str, Tensor]:
    return run.model.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def gradients(
    config: TrainConfig, data: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[float], list[list[Tensor]]]:
    """Losses and gradients of every step; the weights stay as they are."""
    found: list[list[Tensor]] = []

    def record(self: Optimizers, *arguments: Any) -> None:
        found.append([p.grad.to_dense().clone() for p in self.parameters if p.grad is not None])

    monkeypatch.setattr(Optimizers, "step", record)
    losses = Losses()
    train(config, data, folder, losses)
    return losses.seen, found


def test_accumulated_batches_are_averaged(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = small(epochs=1, dropout=0.0, context_dropout=0.0, batch_size=40)
    losses, single = gradients(still, data, tmp_path / "a", monkeypatch)
    assert len(losses) == 4
    accumulated = still.replace(accumulate=3)
    means, joint = gradients(accumulated, data, tmp_path / "b", monkeypatch)
    assert means == pytest.approx([np.mean(losses[:3]), losses[3]])  # the last group is smaller
    for step, parts in ((0, single[:3]), (1, single[3:])):
        for found, *expected in zip(joint[step], *parts, strict=True):
            torch.testing.assert_close(found, torch.stack(expected).mean(0))


def test_steps_count_groups(data: Dataset, tmp_path: Path) -> None:
    run = train(small(epochs=2, batch_size=40, accumulate=3), data, tmp_path)
    assert [entry["step"] for entry in run.history] == [2, 4]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_nearly_the_same(
    data: Dataset, tmp_path: Path, precision: str
) -> None:
    full, half = Losses(), Losses()
    train(small(dropout=0.0), data, tmp_path / "a", full)
    run = train(small(dropout=0.0, precision=precision), data, tmp_path / "b", half)
    assert half.seen != full.seen
    assert half.seen == pytest.approx(full.seen, rel=0.05)
    assert all(p.dtype == torch.float32 for p in run.model.parameters())


def test_the_loss_scale_goes_on_where_it_was(data: Dataset, tmp_path: Path) -> None:
    class Stop(Progress):
        def epoch(self, record: Any) -> None:
            if record["epoch"] == 2:
                raise KeyboardInterrupt

    config = small(precision="fp16")
    with pytest.raises(Interrupted):
        train(config, data, tmp_path, Stop())
    run = train(config, data, tmp_path, resume=True)
    scaler = load_checkpoint(checkpoint_folder(tmp_path)).parts["scaler"]
    assert scaler["_growth_tracker"] == run.history[-1]["step"]  # good steps since it changed


def scripted(values: list[float], seen: list[dict[str, Tensor]]) -> Callable[[Model], Any]:
    """A validation with given results that keeps the weights it is shown."""

    def evaluate(model: Model) -> dict[str, float]:
        assert not model.training
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"coverage_90": values[len(seen) - 1]}

    return evaluate


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_early_stopping_ships_the_best_epoch(data: Dataset, tmp_path: Path, ema: float) -> None:
    seen: list[dict[str, Tensor]] = []
    evaluate = scripted([0.2, 0.1, 0.5, 0.3, 0.5, 0.9], seen)  # of the start first
    config = small(epochs=5, early_stopping=2, ema=ema, checkpoint_every=1)
    run = train(config, data, tmp_path, evaluate=evaluate)
    assert run.best_epoch == 2 and [entry["epoch"] for entry in run.history] == [1, 2, 3, 4]
    assert same(weights(run), seen[2]) and not same(seen[2], seen[4])
    stored = load_checkpoint(checkpoint_folder(tmp_path))
    assert same(stored.model.state_dict(), seen[2])
    assert not run.model.training
    # Nothing is left to do: resuming gives the same run.
    again = train(config, data, tmp_path, evaluate=evaluate, resume=True)
    assert same(weights(again), seen[2]) and again.history == run.history
    assert again.best_epoch == 2


def test_early_stopping_goes_on_counting_when_resumed(data: Dataset, tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []
    config = small(epochs=6, early_stopping=3)

    class Stop(Progress):
        def epoch(self, record: Any) -> None:
            if record["epoch"] == 3:
                raise KeyboardInterrupt

    evaluate = scripted([0.1, 0.5, 0.3, 0.2, 0.4, 0.9], seen)
    with pytest.raises(Interrupted):
        train(config, data, tmp_path, Stop(), evaluate)
    run = train(config, data, tmp_path, evaluate=evaluate, resume=True)
    assert run.best_epoch == 1 and len(run.history) == 4
    assert same(weights(run), seen[1])


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_start_that_training_undoes_is_what_is_used(
    data: Dataset, tmp_path: Path, ema: float
) -> None:
    seen: list[dict[str, Tensor]] = []
    config = small(epochs=4, early_stopping=2, ema=ema)

    class Stop(Progress):
        def step(self, *, step: int, epoch: int, loss: float) -> None:
            raise KeyboardInterrupt

    evaluate = scripted([0.5, 0.4, 0.3], seen)
    with pytest.raises(Interrupted):  # after the start was judged and kept, before an epoch
        train(config, data, tmp_path, Stop(), evaluate)
    run = train(config, data, tmp_path, evaluate=evaluate, resume=True)
    assert run.best_epoch == 0 and [entry["epoch"] for entry in run.history] == [1, 2]
    assert same(weights(run), seen[0]) and not same(seen[0], seen[1])
    stored = load_checkpoint(checkpoint_folder(tmp_path))
    assert same(stored.model.state_dict(), seen[0])


def test_early_stopping_needs_something_to_watch(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="early_stopping needs validations"):
        train(small(early_stopping=1), data, tmp_path)
    with pytest.raises(ConfigError, match="expected evaluate to return 'coverage_90'"):
        train(small(early_stopping=1), data, tmp_path, evaluate=lambda model: {"p1": 1.0})


def test_averaged_weights_are_judged_stored_and_shipped(data: Dataset, tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []
    evaluate = scripted([0.0] * 3, seen)
    losses, plain_losses = Losses(), Losses()
    run = train(small(ema=0.9), data, tmp_path / "a", losses, evaluate)
    plain = train(small(), data, tmp_path / "b", plain_losses)
    # Averaging only looks on: training itself is the same.
    assert losses.seen == plain_losses.seen and not same(weights(run), weights(plain))
    assert same(weights(run), seen[-1])
    stored = load_checkpoint(checkpoint_folder(tmp_path / "a"))
    assert same(stored.model.state_dict(), seen[-1])
    under_way = stored.parts["model"]
    assert same(under_way, weights(plain))


def test_averages_are_taken_after_every_step_of_every_weight(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: dict[str, Tensor] = {}
    before, after = WeightAverage.before_step, WeightAverage.after_step

    def before_step(self: WeightAverage) -> None:
        if not plain:
            plain.update({name: w.detach().clone() for name, w in self.weights.items()})
        before(self)

    def after_step(self: WeightAverage) -> None:
        after(self)
        decay = min(0.9, (1 + self.steps) / (10 + self.steps))
        for name, w in self.weights.items():
            plain[name].lerp_(w.detach(), 1 - decay)

    monkeypatch.setattr(WeightAverage, "before_step", before_step)
    monkeypatch.setattr(WeightAverage, "after_step", after_step)
    run = train(small(method="dexa", ema=0.9), data, tmp_path)
    assert len(plain) > 3
    for name, expected in plain.items():
        torch.testing.assert_close(weights(run)[name], expected)


def test_checkpoint_every_and_at_epoch_ends(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alc_kernels.trainer.training import run_folder

    saved: list[tuple[int, int]] = []
    original = run_folder.save_checkpoint

    def save(*arguments: Any) -> None:
        position = arguments[4]
        saved.append((position.step, position.epoch))
        original(*arguments)

    monkeypatch.setattr(run_folder, "save_checkpoint", save)
    run = train(small(epochs=2, batch_size=40, checkpoint_every=2), data, tmp_path)
    assert run.history[0]["step"] == 4
    assert saved == [(2, 0), (4, 1), (6, 1), (8, 2)]  # one at step 4: that of the epoch's end


ALL_KINDS: dict[str, dict[str, Any]] = {
    "ngame": {"cluster_size": 4, "hard_negatives": 5, "hard_negative_pool": 40},
    "dexa": {"method": "dexa", "hard_negatives": 5, "hard_negative_pool": 40},
    "dexml": {"method": "dexml", "all_labels": True},
    "prime": {"method": "prime", "hard_negatives": 5, "hard_negative_pool": 40},
}


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_held_out_labels_have_no_influence(data: Dataset, tmp_path: Path, kind: str) -> None:
    """Whatever their names are, the same weights come out, bit for bit."""
    assert data.held_out.any()
    labels = [
        f"entirely different {i}" if held_out else label
        for i, (label, held_out) in enumerate(zip(data.labels, data.held_out, strict=True))
    ]
    renamed = dataclasses.replace(data, labels=labels, _catalogues={})
    config = small(epochs=2, **ALL_KINDS[kind])
    losses, others = Losses(), Losses()
    one = train(config, data, tmp_path / "a", losses)
    other = train(config, renamed, tmp_path / "b", others)
    assert losses.seen == others.seen
    parameters = dict(other.model.named_parameters())
    assert all(torch.equal(p, parameters[name]) for name, p in one.model.named_parameters())


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_no_held_out_label_is_ever_encoded_for_the_loss(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    seen: set[int] = set()
    original = Model.forward

    def forward(self: Model, batch: Any, num_queries: int, label_ids: Tensor) -> Any:
        seen.update(label_ids.tolist())
        return original(self, batch, num_queries, label_ids)

    monkeypatch.setattr(Model, "forward", forward)
    train(small(epochs=2, **ALL_KINDS[kind]), data, tmp_path)
    assert seen and not data.held_out[sorted(seen)].any()


def test_all_labels_compares_with_all_that_are_not_held_out(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, refreshed = set(), []
    original, refresh = LabelCache.with_live, LabelCache.refresh

    def with_live(self: LabelCache, batch: Any, live: Tensor) -> Tensor:
        made = original(self, batch, live)
        shapes.add(tuple(made.shape))
        assert self.vectors.norm(dim=1).allclose(torch.ones(len(made)), atol=1e-5)
        return made

    def note(self: LabelCache, vectors: Tensor) -> None:
        refreshed.append(vectors)
        refresh(self, vectors)

    monkeypatch.setattr(LabelCache, "with_live", with_live)
    monkeypatch.setattr(LabelCache, "refresh", note)
    settings = {"method": "dexml", "all_labels": True, "epochs": 4, "refresh_every": 3}
    run = train(small(**settings), data, tmp_path)
    assert shapes == {(int((~data.held_out).sum()), 16)}
    assert len(refreshed) == 2  # before epochs 0 and 3
    assert run.history[-1]["loss"] < run.history[0]["loss"]


def test_a_resumed_epoch_takes_no_new_snapshot(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Progress):
        def step(self, *, step: int, epoch: int, loss: float) -> None:
            if step == 7:
                raise KeyboardInterrupt

    taken: list[int] = []
    original = TrainingSet.snapshot

    def snapshot(self: TrainingSet, *arguments: Any) -> Any:
        taken.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(TrainingSet, "snapshot", snapshot)
    config = small(batch_size=40, checkpoint_every=1, method="prime", cluster_size=4)
    with pytest.raises(Interrupted, match="checkpoint of step 6 kept"):
        train(config, data, tmp_path, Stop())
    assert len(taken) == 2  # of epochs 0 and 1
    train(config, data, tmp_path, resume=True)
    assert len(taken) == 3  # of epoch 2; epoch 1 goes on with what the checkpoint holds


def with_excluded(data: Dataset) -> Dataset:
    """Every wrong pair of a training query and one of the first twenty labels is excluded."""
    train_split = data.train
    wrong = np.argwhere(train_split.relation[:, :20].toarray() == 0)
    excluded = relation_from_pairs(wrong[:, 0], wrong[:, 1], train_split.relation.shape)
    splits = {**data.splits, "train": dataclasses.replace(train_split, excluded=excluded)}
    return dataclasses.replace(data, splits=splits, _catalogues={})


@pytest.mark.parametrize("all_labels", [False, True])
def test_excluded_pairs_are_no_negatives(data: Dataset, tmp_path: Path, all_labels: bool) -> None:
    config = small(method="dexml", loss="base", epochs=1, dropout=0.0, all_labels=all_labels)
    losses, fewer = Losses(), Losses()
    train(config, data, tmp_path / "a", losses)
    train(config, with_excluded(data), tmp_path / "b", fewer)
    assert fewer.seen[0] < losses.seen[0]  # a softmax over fewer negatives


def test_the_guard_leaves_negatives_out(data: Dataset, tmp_path: Path) -> None:
    config = small(method="dexml", loss="base", epochs=1, dropout=0.0)
    losses, guarded, none = Losses(), Losses(), Losses()
    train(config, data, tmp_path / "a", losses)
    train(config.replace(false_negative_margin=0.3), data, tmp_path / "b", guarded)
    train(config.replace(false_negative_margin=-1.99), data, tmp_path / "c", none)
    assert guarded.seen[0] < losses.seen[0] == none.seen[0]
