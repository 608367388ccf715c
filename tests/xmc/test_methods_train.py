"""Every method, from its defaults to a trained model that can be read back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from alc_kernels import DynamicTriplet, Softmax, Triplet
from alc_kernels.trainer.config import METHOD_DEFAULTS, TrainConfig
from alc_kernels.trainer.data import Dataset, generate_catalogue
from alc_kernels.trainer.errors import Interrupted
from alc_kernels.trainer.evaluation.scoring import validation_check
from alc_kernels.trainer.methods import METHODS
from alc_kernels.trainer.model import Model, build_model
from alc_kernels.trainer.training import Progress, train

SMALL = {
    "loss": "alc+tcm", "epochs": 3, "batch_size": 64, "embedding_dim": 32, "ngram_buckets": 4096,
    "hidden_dim": 32, "backend": "torch", "device": "cpu", "context_size": 32,
}  # fmt: skip

NAMES = tuple(METHOD_DEFAULTS)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return generate_catalogue(60, 250)


def small(name: str, **changes: object) -> TrainConfig:
    return TrainConfig.resolve({**SMALL, "method": name, **changes})


def test_all_methods_are_there_with_valid_defaults() -> None:
    assert tuple(METHODS) == NAMES
    for name, method in METHODS.items():
        config = TrainConfig.resolve({"method": name})
        defaults = METHOD_DEFAULTS[name]
        assert {key: getattr(config, key) for key in defaults} == defaults
        assert method.name == name and method.title and method.source


def test_base_losses_follow_the_settings() -> None:
    config = {"margin": 0.2, "num_negatives": 4, "weight_temperature": 0.3, "temperature": 0.07}
    made = {
        name: method.base_loss(TrainConfig.resolve({"method": name, **config}))
        for name, method in METHODS.items()
    }
    assert made["ngame"] == made["dexa"] == Triplet(0.2, 4, 0.3)
    assert made["dexml"] == Softmax(temperature=0.07, decoupled=True)
    assert made["prime"] == DynamicTriplet(0.1, 0.3, 4, 0.3)


@pytest.mark.parametrize("name", NAMES)
def test_label_vectors_start_as_the_text_vectors(data: Dataset, name: str) -> None:
    torch.manual_seed(0)
    model = build_model(small(name), data.num_labels)
    made = model.encode_labels(data.labels)
    torch.testing.assert_close(made, model.encoder.encode_texts(data.labels))


@pytest.mark.parametrize("name", NAMES)
def test_every_method_learns_and_is_read_back(data: Dataset, tmp_path: Path, name: str) -> None:
    from alc_kernels.trainer.training.checkpoint import checkpoint_folder, load_checkpoint

    if name in ("dexa", "prime"):
        pytest.importorskip("faiss")
    torch.manual_seed(0)
    untrained = validation_check(data)(build_model(small(name), data.num_labels))
    run = train(small(name), data, tmp_path, evaluate=validation_check(data))
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert run.history[-1]["validation_p1"] > untrained["p1"] + 0.1
    labels = run.model.encode_labels(data.labels)
    text = run.model.encoder.encode_texts(data.labels)
    torch.testing.assert_close(labels.norm(dim=1), torch.ones(len(labels)))
    assert ((labels - text).norm(dim=1) > 1e-4).all() == (name in ("dexa", "prime"))
    read: Model = load_checkpoint(checkpoint_folder(tmp_path)).model
    assert torch.equal(read.encode_labels(data.labels), labels)


def test_label_vectors_need_every_text_or_the_numbers(data: Dataset) -> None:
    model = build_model(small("dexa"), data.num_labels)
    with pytest.raises(ValueError, match=r"texts: found 3, expected all 60 labels"):
        model.encode_labels(data.labels[:3])


class InterruptAt(Progress):
    """Ctrl-C after a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, *, step: int, epoch: int, loss: float) -> None:
        if step == self.at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("name", ["dexa", "prime"])
def test_clusters_centroids_and_hidden_labels_survive_a_resume(
    data: Dataset, tmp_path: Path, name: str
) -> None:
    pytest.importorskip("faiss")
    config = small(name)
    whole = train(config, data, tmp_path / "whole").model.state_dict()
    steps = -(-len(data.train) // config.batch_size)
    with pytest.raises(Interrupted):
        train(config, data, tmp_path / "cut", InterruptAt(steps + 1))  # within the second epoch
    resumed = train(config, data, tmp_path / "cut", resume=True).model.state_dict()
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(value, whole[key]) for key, value in resumed.items())
