"""Every setting of a training run, with its default, in one dataclass."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from alc_kernels.xmc.errors import ConfigError

METHODS = ("ngame",)
LOSSES = ("base", "alc", "tcm", "alc+tcm", "alc-pair", "alc-batch")


def setting(
    default: Any, help: str, *, group: str, choices: tuple[str, ...] | None = None
) -> Any:
    """A field whose help text serves the TOML file and the command line alike."""
    return field(default=default, metadata={"help": help, "group": group, "choices": choices})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of ``alc train``. ``dataclasses.fields`` gives help, group and choices of each.

    Raises:
        ConfigError: a value of the wrong type or out of range.
    """

    method: str = setting("ngame", "how batches are made", group="run", choices=METHODS)
    loss: str = setting("alc+tcm", "loss terms", group="run", choices=LOSSES)
    encoder: str = setting(
        "ngrams", "ngrams, or path or hub name of a Hugging Face text model", group="run"
    )
    seed: int = setting(0, "seed of everything random", group="run")
    backend: str = setting(
        "auto", "backend of the loss", group="run", choices=("auto", "triton", "native", "torch")
    )
    device: str = setting("auto", "auto, cpu, cuda or cuda:N", group="run")

    epochs: int = setting(10, "passes over the training queries", group="training")
    batch_size: int = setting(1024, "queries per batch", group="training")
    learning_rate: float = setting(1e-3, "peak learning rate of the dense layers", group="training")
    embedding_learning_rate: float = setting(
        1e-2, "peak learning rate of the n-gram embedding table", group="training"
    )
    weight_decay: float = setting(0.01, "AdamW weight decay of the dense layers", group="training")
    warmup: float = setting(0.1, "share of the steps with rising learning rate", group="training")
    clip_norm: float = setting(0.0, "gradient norm limit, 0 for none", group="training")
    keep_unmatched: bool = setting(
        False, "also train on queries without a label", group="training"
    )
    evaluate_every: int = setting(1, "epochs between validations, 0 for never", group="training")

    embedding_dim: int = setting(256, "width of the vectors (n-grams)", group="encoder")
    ngram_buckets: int = setting(2**17, "rows of the n-gram table", group="encoder")
    hidden_dim: int = setting(512, "width of the residual MLP (n-grams)", group="encoder")
    dropout: float = setting(0.0, "share of a text's n-grams dropped in training", group="encoder")
    pooling: str = setting(
        "mean", "pooling (Hugging Face)", group="encoder", choices=("mean", "cls")
    )
    max_length: int = setting(64, "tokens per text (Hugging Face)", group="encoder")

    margin: float = setting(0.3, "margin of the triplet loss", group="loss")
    num_negatives: int = setting(10, "hardest negatives per query", group="loss")
    weight_temperature: float = setting(
        0.1, "temperature of the negatives' weights", group="loss"
    )
    pair_weight: float = setting(1.0, "weight of ALC's pair part", group="loss")
    batch_weight: float = setting(1.0, "weight of ALC's batch part", group="loss")
    context_size: int = setting(1024, "queries per attention group, ALC batch part", group="loss")
    context_dropout: float = setting(0.1, "dropout of ALC's batch part", group="loss")
    tcm_weight: float = setting(1.0, "weight of both sides of the threshold margin", group="loss")
    positive_margin: float = setting(0.9, "threshold margin for positives", group="loss")
    negative_margin: float = setting(0.5, "threshold margin for negatives", group="loss")

    def __post_init__(self) -> None:
        raise NotImplementedError

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with some settings changed; unknown names raise :class:`ConfigError`."""
        raise NotImplementedError

    def to_toml(self) -> str:
        """All settings as TOML, grouped, each with its help text as a comment."""
        raise NotImplementedError

    @classmethod
    def from_toml(cls, path: str | Path) -> TrainConfig:
        """Read a TOML file; what it does not name keeps its default."""
        raise NotImplementedError
