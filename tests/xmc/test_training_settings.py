"""Every setting has an effect: none is read by nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from killed_run import SMALL, small_data
from training_cases import Losses

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data import Dataset, generate_catalogue
from alc_kernels.trainer.encoders import build_encoder
from alc_kernels.trainer.encoders.huggingface import HuggingFaceEncoder
from alc_kernels.trainer.encoders.ngrams import NgramBatch, NgramEncoder
from alc_kernels.trainer.errors import ConfigError
from alc_kernels.trainer.evaluation import validation_check
from alc_kernels.trainer.training import sampler, train
from alc_kernels.trainer.training.batch_loss import build_loss, find_device

pytestmark = pytest.mark.usefixtures("one_thread")

MINED = {"hard_negatives": 2, "hard_negative_pool": 20}
CLUSTERED = {"cluster_size": 4, "epochs": 3}
DEXA, DEXML = {"method": "dexa"}, {"method": "dexml", "loss": "base"}
PRIME = {"method": "prime", "num_negatives": 20}
TCM = {"loss": "tcm"}

# Setting -> (the settings beside it, its other value): the losses of a short run must differ.
CHANGES_TRAINING: dict[str, tuple[dict[str, Any], Any]] = {
    "method": ({}, "dexml"),
    "loss": ({}, "alc"),
    "seed": ({}, 1),
    "epochs": ({}, 3),
    "batch_size": ({}, 32),
    "accumulate": ({}, 2),
    "precision": ({}, "bf16"),
    "learning_rate": ({}, 1e-2),
    "embedding_learning_rate": ({}, 1e-1),
    "weight_decay": ({"learning_rate": 0.1}, 0.5),
    "warmup": ({}, 0.5),
    "schedule": ({}, "cosine"),
    "clip_norm": ({}, 0.01),
    "keep_unmatched": ({}, True),
    "embedding_dim": ({}, 32),
    "sketch_dim": ({}, 64),
    "ngram_buckets": ({}, 2048),
    "hidden_dim": ({}, 32),
    "dropout": ({}, 0.3),
    "cluster_size": ({"epochs": 2}, 4),
    "refresh_every": (CLUSTERED, 2),
    "hard_negatives": ({}, 2),
    "hard_negative_pool": (MINED, 5),
    "false_negative_margin": ({}, 0.1),
    "all_labels": (DEXML, True),
    "margin": ({}, 0.5),
    "min_margin": (PRIME, 0.2),
    "max_margin": (PRIME, 0.5),
    "num_negatives": ({}, 3),
    "weight_temperature": ({}, 1.0),
    "temperature": (DEXML, 0.2),
    "pair_weight": ({}, 0.5),
    "batch_weight": ({}, 0.5),
    "context_dim": ({}, 32),
    "context_rows": ({}, 16),
    "context_size": ({}, 16),
    "attention_dropout": ({}, 0.5),
    "context_dropout": ({}, 0.5),
    "tcm_weight": (TCM, 0.5),
    "tcm_scope": (TCM, "all"),
    "tcm_reduction": (TCM, "active"),
    "positive_margin": (TCM, 0.8),
    "negative_margin": (TCM, 0.3),
    "label_cluster_size": ({**DEXA, "epochs": 2}, 2),
    "prototype_layers": ({**PRIME, "epochs": 2}, 2),
    "prototype_heads": ({**PRIME, "epochs": 2}, 2),
    "prototype_weight": (PRIME, 0.5),
    "prototype_regularizer": (PRIME, 1.0),
    "prototype_margin": (PRIME, 0.3),
    "prototype_dropout": ({**PRIME, "epochs": 2}, 0.1),
}
# Those that a test of its own below looks at.
ELSEWHERE = {
    "encoder", "pooling", "max_length", "gradient_checkpointing", "backend", "device",
    "ema", "evaluate_every", "early_stopping", "checkpoint_every", "tensorboard", "index",
    "cache_chunk", "parallel", "process_timeout", "label_shards", "acceptance",
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Dataset:
    return small_data()


def small(**settings: Any) -> TrainConfig:
    return TrainConfig.resolve({**SMALL, "epochs": 1, **settings})


def test_every_setting_is_looked_at() -> None:
    names = {spec.name for spec in dataclasses.fields(TrainConfig)}
    assert names == set(CHANGES_TRAINING) | ELSEWHERE
    assert not set(CHANGES_TRAINING) & ELSEWHERE


@pytest.mark.parametrize("name", CHANGES_TRAINING)
def test_a_changed_setting_changes_training(data: Dataset, tmp_path: Path, name: str) -> None:
    beside, other = CHANGES_TRAINING[name]
    if name == "keep_unmatched":
        data = generate_catalogue(60, 300, keep_unmatched=True)
    curves = []
    for number, settings in enumerate((beside, {**beside, name: other})):
        losses = Losses()
        train(small(**settings), data, tmp_path / str(number), losses)
        curves.append(losses.seen)
    assert curves[0] != curves[1]


def test_ema_and_what_is_written(data: Dataset, tmp_path: Path) -> None:
    plain = train(small(), data, tmp_path / "a")
    averaged = train(small(ema=0.5, tensorboard=True, checkpoint_every=1), data, tmp_path / "b")
    weight = "encoder.mlp.0.weight"
    assert not torch.equal(plain.model.state_dict()[weight], averaged.model.state_dict()[weight])
    # One checkpoint, of the epoch's end; with more of them the one before is kept.
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"config.toml", "checkpoint"}
    assert {path.name for path in (tmp_path / "b").iterdir()} == {
        "config.toml", "checkpoint", "checkpoint.previous", "tensorboard",
    }  # fmt: skip


def test_cached_chunks_train_as_the_whole_batch_does(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = NgramEncoder.forward

    def forward(self: NgramEncoder, batch: NgramBatch) -> torch.Tensor:
        sizes.append(len(batch.offsets) - 1)
        return original(self, batch)

    whole, cached = Losses(), Losses()
    train(small(dropout=0), data, tmp_path / "a", whole)
    monkeypatch.setattr(NgramEncoder, "forward", forward)
    train(small(dropout=0, cache_chunk=10), data, tmp_path / "b", cached)
    assert max(sizes) == 10
    assert cached.seen == pytest.approx(whole.seen, rel=1e-4)


def test_validation(data: Dataset, tmp_path: Path) -> None:
    check = validation_check(data)
    often = train(small(epochs=3), data, tmp_path / "a", evaluate=check)
    seldom = train(small(epochs=3, evaluate_every=2), data, tmp_path / "b", evaluate=check)
    never = train(small(epochs=3, evaluate_every=0), data, tmp_path / "c", evaluate=check)
    looked = [["validation_p1" in entry for entry in run.history] for run in (often, seldom, never)]
    assert looked == [[True] * 3, [False, True, True], [False] * 3]
    stopping = small(epochs=3, early_stopping=1, learning_rate=0, embedding_learning_rate=0)
    stopped = train(stopping, data, tmp_path / "d", evaluate=check)
    assert len(stopped.history) == 1  # nothing changes, so the first epoch gains nothing


def test_index(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    original = sampler.mine_hard_negatives

    def mine(*arguments: Any, **options: Any) -> Any:
        asked.append(arguments[4].index)
        return original(*arguments, **options)

    monkeypatch.setattr(sampler, "mine_hard_negatives", mine)
    for index in ("exact", "approximate"):
        train(small(**MINED, index=index), data, tmp_path / index)
    assert asked == ["exact", "approximate"]


def test_backend_and_device() -> None:
    assert build_loss(small(backend="triton"), 16).backend == "triton"
    assert find_device(small(device="cpu").device) == torch.device("cpu")
    with pytest.raises(ConfigError, match="device = 'abacus': cannot be used here"):
        find_device("abacus")


def test_settings_of_hugging_face_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do there is tested with a small model in test_encoders_huggingface.py."""
    given: list[Any] = []
    monkeypatch.setattr(HuggingFaceEncoder, "__init__", lambda self, *rest: given.extend(rest))
    config = small(encoder="a/b", pooling="cls", max_length=9, gradient_checkpointing=True)
    build_encoder(config.encoder, config)
    assert given == ["a/b", "cls", 9, True]
