"""The configuration: all defaults visible, nothing misspelt goes unnoticed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from alc_kernels import ALCLoss
from alc_kernels.trainer.config import (
    FEW_TITLES,
    FEW_TITLES_DEFAULTS,
    LOSSES,
    TrainConfig,
)
from alc_kernels.trainer.errors import ConfigError
from alc_kernels.trainer.training.batch_loss import PARTS, build_loss


def test_toml_round_trip_shows_every_setting(tmp_path: Path) -> None:
    config = TrainConfig(
        loss="alc-pair",
        encoder='C:\\models\\"x" é',
        seed=7,
        learning_rate=1e-5,
        keep_unmatched=True,
    )
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert TrainConfig.from_toml(path) == config
    for spec in dataclasses.fields(TrainConfig):
        assert f"\n{spec.name} = " in "\n" + config.to_toml()
        assert spec.metadata["help"] in config.to_toml()


@pytest.mark.parametrize("source", ["values", "file"])
def test_few_titles_have_defaults_of_their_own(source: str, tmp_path: Path) -> None:
    def resolved(titles: int | None, **values: Any) -> TrainConfig:
        if source == "values":
            return TrainConfig.resolve(values, titles)
        path = tmp_path / "config.toml"
        path.write_text("".join(f"{name} = {json.dumps(v)}\n" for name, v in values.items()))
        return TrainConfig.from_toml(path, titles=titles)

    few = TrainConfig(**FEW_TITLES_DEFAULTS)
    assert resolved(FEW_TITLES - 1) == few != TrainConfig()
    assert resolved(FEW_TITLES) == resolved(None) == TrainConfig()
    # What is named stays, beside the others.
    assert resolved(500, batch_size=64) == few.replace(batch_size=64)
    assert resolved(500, loss="alc+tcm", context_size=32) == few.replace(
        loss="alc+tcm", context_size=32
    )
    # Whoever names the vectors' form, another method or encoder, or a setting of another loss,
    # has the defaults of that.
    for values in (
        {"embedding_dim": 64}, {"sketch_dim": 64}, {"hidden_dim": 64}, {"method": "dexml"},
        {"encoder": "a/model"}, {"tcm_weight": 0.5},
    ):  # fmt: skip
        assert resolved(500, **values) == resolved(None, **values)


def test_vectors_have_some_width() -> None:
    with pytest.raises(ConfigError, match="embedding_dim = 0 and sketch_dim = 0: expected one"):
        TrainConfig(embedding_dim=0)
    assert TrainConfig(embedding_dim=0, encoder="a/model").embedding_dim == 0


def test_what_is_not_named_keeps_its_default(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("epochs = 3\nmargin = 1\n")
    assert TrainConfig.from_toml(path) == TrainConfig(epochs=3, margin=1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3\n", r"unknown setting 'epoch'; did you mean epochs"),
        ("lerning_rate = 3\n", r"unknown setting 'lerning_rate'; did you mean learning_rate"),
        ("zzz = 3\n", r"unknown setting 'zzz'$"),
        ("epochs = 3 4\n", r"not TOML \(.*line 1"),
        ("epochs = 2.5\n", r"epochs = 2\.5: expected a whole number"),
        ("epochs = true\n", r"epochs = True: expected a whole number"),
        ("epochs = 0\n", r"epochs = 0: expected a whole number of at least 1"),
        ('margin = "big"\n', r"margin = 'big': expected a number"),
        ("margin = nan\n", r"margin = nan: expected a finite number"),
        ('loss = "acl"\n', r"loss = 'acl': expected one of base, .*did you mean alc"),
        ("warmup = 1.0\n", r"warmup = 1\.0: expected a number from 0 to below 1"),
        ("weight_temperature = 0\n", r"expected a number above 0"),
        ("learning_rate = -1\n", r"learning_rate = -1\.0: expected a number of at least 0"),
        ("keep_unmatched = 1\n", r"keep_unmatched = 1: expected true or false"),
    ],
)
def test_faults_name_file_and_setting(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        TrainConfig.from_toml(path)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        TrainConfig.from_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"loss = '\xff'")
    with pytest.raises(ConfigError, match=r"bad\.toml: not UTF-8"):
        TrainConfig.from_toml(tmp_path / "bad.toml")


def test_replace() -> None:
    assert TrainConfig().replace(seed=3).seed == 3
    with pytest.raises(ConfigError, match="unknown setting 'sed'; did you mean seed"):
        TrainConfig().replace(sed=3)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_has_its_parts(loss: str) -> None:
    made: Any = build_loss(TrainConfig(loss=loss), dim=16)
    pair, batch, tcm = PARTS[loss]
    heads = {name.split(".")[0] for name, _ in made.named_parameters()}
    assert ("pair_head" in heads) == pair
    assert ("context_head" in heads) == ("context_layer" in heads) == batch
    assert (made.threshold is not None) == tcm


def test_the_trainer_trains_what_the_library_has_by_default() -> None:
    made, library = build_loss(TrainConfig(), dim=16), ALCLoss(embedding_dim=16)
    assert (made.base, made.threshold) == (library.base, library.threshold)
    assert made.auxiliary == library.auxiliary
