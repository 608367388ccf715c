"""Every setting of a training run, with its default, in one dataclass."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

from alc_kernels.trainer.errors import ConfigError, suggestion
from alc_kernels.trainer.toml import checked, read_toml

# method -> its defaults where they differ from those below
METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "ngame": {},
    "dexa": {},
    "dexml": {},
    "prime": {"num_negatives": 100},
}
# With fewer titles than this to train on, unless the vectors' form is named: term weights instead
# of a table, against the hardest labels of the whole catalogue (experiments/small.txt).
FEW_TITLES = 10_000
FEW_TITLES_DEFAULTS: dict[str, Any] = {
    "loss": "base", "embedding_dim": 0, "sketch_dim": 2048, "embedding_learning_rate": 0.05,
    "epochs": 5, "batch_size": 128, "hard_negatives": 4, "hard_negative_pool": 20,
}  # fmt: skip
ACCEPTANCE_KINDS = ("auto", "none", "logistic", "boosting")
# What runs did before there were these settings.
BEFORE: dict[str, Any] = {
    "context_dim": 0, "context_rows": 0, "attention_dropout": -1.0, "sketch_dim": 0,
}  # fmt: skip
LOSSES = ("base", "alc", "tcm", "alc+tcm", "alc-pair", "alc-batch")


# When a setting does something, given the others, and that in words.
When = tuple[Callable[["TrainConfig"], bool], str]
NGRAMS: When = (lambda c: c.encoder == "ngrams", "encoder ngrams")
TABLE: When = (
    lambda c: c.encoder == "ngrams" and c.embedding_dim > 0, "encoder ngrams, embedding_dim above 0"
)  # fmt: skip
HUGGING_FACE: When = (lambda c: c.encoder != "ngrams", "a Hugging Face encoder")
TABLES: When = (
    lambda c: c.encoder == "ngrams" or c.method in ("dexa", "prime"),
    "encoder ngrams or method dexa or prime",
)
TRIPLET: When = (lambda c: c.method in ("ngame", "dexa"), "method ngame or dexa")
MINED: When = (lambda c: c.method != "dexml", "method ngame, dexa or prime")
DEXML: When = (lambda c: c.method == "dexml", "method dexml")
PRIME: When = (lambda c: c.method == "prime", "method prime")
FREE_VECTORS: When = (lambda c: c.method in ("dexa", "prime"), "method dexa or prime")
PAIR_PART: When = (
    lambda c: c.loss in ("alc", "alc+tcm", "alc-pair"), "loss alc, alc-pair or alc+tcm"
)  # fmt: skip
BATCH_PART: When = (
    lambda c: c.loss in ("alc", "alc+tcm", "alc-batch"), "loss alc, alc-batch or alc+tcm"
)  # fmt: skip
TCM: When = (lambda c: c.loss in ("tcm", "alc+tcm"), "loss tcm or alc+tcm")
HARD: When = (lambda c: c.hard_negatives > 0, "hard_negatives above 0")
REFRESHED: When = (
    lambda c: c.cluster_size > 1 or c.hard_negatives > 0 or c.method == "prime",
    "cluster_size above 1, hard_negatives above 0 or method prime",
)


def setting(
    group: str,
    default: Any,
    help: str,
    choices: tuple[str, ...] | None = None,
    when: When | None = None,
) -> Any:
    """A field whose help text serves the TOML file and the command line alike."""
    about = {"help": help, "group": group, "choices": choices, "when": when}
    return field(default=default, metadata=about)


_run, _training, _encoder, _batches, _loss, _label_side, _processes = (
    partial(setting, group)
    for group in ("run", "training", "encoder", "batches", "loss", "label side", "processes")
)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of ``alc train``. ``dataclasses.fields`` gives help, group and choices of each.

    Raises:
        ConfigError: a value of the wrong type or out of range.
    """

    method: str = _run("ngame", "method, which also sets defaults", choices=tuple(METHOD_DEFAULTS))
    loss: str = _run("alc+tcm", "loss terms", choices=LOSSES)
    encoder: str = _run("ngrams", "ngrams, or path or hub name of a Hugging Face text model")
    seed: int = _run(0, "seed of everything random")
    backend: str = _run(
        "auto", "backend of the loss", choices=("auto", "triton", "native", "torch")
    )
    device: str = _run("auto", "auto, cpu, cuda or cuda:N")
    acceptance: str = _run(
        "auto",
        "model of which matches are right, fitted on validation at the end",
        choices=ACCEPTANCE_KINDS,
    )

    epochs: int = _training(10, "passes over the training queries")
    batch_size: int = _training(1024, "queries per batch")
    accumulate: int = _training(1, "batches per optimizer step")
    cache_chunk: int = _training(
        0,
        "texts encoded at a time, and again in the backward pass, for batches that do not fit; "
        "0 for the whole batch at once",
    )
    precision: str = _training(
        "fp32", "arithmetic of the encoder", choices=("fp32", "bf16", "fp16")
    )
    learning_rate: float = _training(
        1e-3, "peak learning rate of the dense layers (2e-4 suits MiniLM)"
    )
    embedding_learning_rate: float = _training(
        1e-2, "peak learning rate of sparse tables (n-grams, free vectors)", when=TABLES
    )
    weight_decay: float = _training(0.01, "AdamW weight decay of the dense layers")
    warmup: float = _training(0.1, "share of the steps with rising learning rate")
    schedule: str = _training(
        "linear", "learning rate after the rise", choices=("linear", "cosine", "constant")
    )
    clip_norm: float = _training(0.0, "gradient norm limit, 0 for none")
    ema: float = _training(0.0, "decay per step of the weights' moving average, 0 for none")
    keep_unmatched: bool = _training(False, "also train on queries without a label")
    evaluate_every: int = _training(1, "epochs between validations, 0 for never")
    early_stopping: int = _training(
        0,
        "validations without a gain in C@.9 until training stops and the best epoch's weights, "
        "or those of the start, are used; 0 for never",
    )
    checkpoint_every: int = _training(
        0, "steps between checkpoints beside those at epoch ends, 0 for none"
    )
    tensorboard: bool = _training(False, "also write RUN/tensorboard")

    embedding_dim: int = _encoder(256, "width of the table (n-grams), 0 for none", when=NGRAMS)
    sketch_dim: int = _encoder(
        0, "width of the sketch of weighted n-grams, beside the table or alone; 0 for none",
        when=NGRAMS,
    )  # fmt: skip
    ngram_buckets: int = _encoder(2**17, "rows of the n-gram table", when=NGRAMS)
    hidden_dim: int = _encoder(512, "width of the residual MLP (n-grams)", when=TABLE)
    dropout: float = _encoder(0.0, "share of a text's n-grams dropped in training", when=NGRAMS)
    pooling: str = _encoder(
        "mean", "pooling (Hugging Face)", choices=("mean", "cls"), when=HUGGING_FACE
    )
    max_length: int = _encoder(64, "tokens per text (Hugging Face)", when=HUGGING_FACE)
    gradient_checkpointing: bool = _encoder(
        False, "recompute layers in the backward pass (Hugging Face)", when=HUGGING_FACE
    )

    cluster_size: int = _batches(
        1, "largest cluster of similar queries that a batch is made of, 1 to shuffle"
    )
    refresh_every: int = _batches(
        1, "epochs between new clusters, hard negatives and centroids", when=REFRESHED
    )
    hard_negatives: int = _batches(
        0, "labels per query, mined across all labels, added to the batch"
    )
    hard_negative_pool: int = _batches(100, "nearest labels from which they are drawn", when=HARD)
    index: str = _batches("exact", "search for them", choices=("exact", "approximate"), when=HARD)
    false_negative_margin: float = _batches(
        -2.0, "leave out negatives that score above the positive less this; -2 leaves out none"
    )
    all_labels: bool = _batches(
        False, "compare with all labels, those outside the batch from a cache"
    )

    margin: float = _loss(0.3, "margin of the triplet loss", when=TRIPLET)
    min_margin: float = _loss(0.1, "smallest margin of the dynamic triplet loss", when=PRIME)
    max_margin: float = _loss(0.3, "largest margin of the dynamic triplet loss", when=PRIME)
    num_negatives: int = _loss(10, "hardest negatives per query", when=MINED)
    weight_temperature: float = _loss(0.1, "temperature of the negatives' weights", when=MINED)
    temperature: float = _loss(0.05, "temperature of the softmax losses", when=DEXML)
    pair_weight: float = _loss(1.0, "weight of ALC's pair part", when=PAIR_PART)
    batch_weight: float = _loss(1.0, "weight of ALC's batch part", when=BATCH_PART)
    context_dim: int = _loss(
        64, "width of ALC's batch part, 0 for that of the vectors", when=BATCH_PART
    )
    context_rows: int = _loss(
        1024, "queries of a batch that it sees, spread evenly, 0 for all", when=BATCH_PART
    )
    context_size: int = _loss(64, "queries per attention group, ALC batch part", when=BATCH_PART)
    context_dropout: float = _loss(0.1, "dropout of ALC's batch part", when=BATCH_PART)
    attention_dropout: float = _loss(
        0.0, "dropout of its attention weights, -1 for the same", when=BATCH_PART
    )
    tcm_weight: float = _loss(1.0, "weight of both sides of the threshold margin", when=TCM)
    tcm_scope: str = _loss(
        "hardest", "negatives of the threshold margin", choices=("hardest", "all"), when=TCM
    )
    tcm_reduction: str = _loss(
        "rows", "what the threshold margin is averaged over", choices=("rows", "active"), when=TCM
    )
    positive_margin: float = _loss(0.9, "threshold margin for positives", when=TCM)
    negative_margin: float = _loss(0.5, "threshold margin for negatives", when=TCM)

    label_cluster_size: int = _label_side(
        8, "labels that share a free vector (DEXA, PRIME)", when=FREE_VECTORS
    )
    prototype_layers: int = _label_side(1, "layers of the prototype network (PRIME)", when=PRIME)
    prototype_heads: int = _label_side(4, "its attention heads (PRIME)", when=PRIME)
    prototype_weight: float = _label_side(
        1.0, "weight of the text part beside the prototypes (PRIME)", when=PRIME
    )
    prototype_regularizer: float = _label_side(
        0.1, "weight of: prototypes must beat texts by prototype_margin (PRIME)", when=PRIME
    )
    prototype_margin: float = _label_side(0.1, "margin by which they must (PRIME)", when=PRIME)
    prototype_dropout: float = _label_side(
        0.8, "share of labels per step trained as if they were unseen (PRIME)", when=PRIME
    )

    parallel: str = _processes(
        "ddp",
        "under torchrun: the whole encoder in every process, or a part of it in each",
        choices=("ddp", "fsdp"),
    )
    process_timeout: float = _processes(
        600.0, "seconds until a process that waits for another gives up"
    )
    label_shards: int = _processes(
        1,
        "parts in which labels are ranked, each by processes of its own where there are several; "
        "a GPU holds the vectors of one part",
    )

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for spec in dataclasses.fields(self):
            value = checked(spec.name, getattr(self, spec.name), kinds[spec.name])
            object.__setattr__(self, spec.name, value)
            choices = spec.metadata["choices"]
            if choices and value not in choices:
                raise ConfigError(
                    f"{spec.name} = {value!r}: expected one of {', '.join(choices)}"
                    f"{suggestion(str(value), choices)}"
                )
        for names, low, text in _RANGES:
            for name in names:
                if getattr(self, name) < low:
                    raise ConfigError(f"{name} = {getattr(self, name)!r}: expected {text}")
        for name in ("dropout", "context_dropout", "warmup", "ema", "prototype_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} = {getattr(self, name)!r}: expected a number from 0 to below 1"
                )
        if self.attention_dropout != -1 and not 0 <= self.attention_dropout < 1:
            raise ConfigError(
                f"attention_dropout = {self.attention_dropout!r}: expected -1, or a number from "
                "0 to below 1"
            )
        if self.encoder == "ngrams" and self.embedding_dim + self.sketch_dim == 0:
            raise ConfigError("embedding_dim = 0 and sketch_dim = 0: expected one of them above 0")
        for name in ("weight_temperature", "temperature"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: expected a number above 0")
        if self.max_margin < self.min_margin:
            raise ConfigError(
                f"max_margin = {self.max_margin!r}: expected at least min_margin = "
                f"{self.min_margin!r}"
            )
        if self.batch_size == 1 and not self.hard_negatives and not self.all_labels:
            raise ConfigError(
                "batch_size = 1: expected at least 2, or hard_negatives above 0 or all_labels (a "
                "batch of one query has no negatives)"
            )
        if self.early_stopping and not self.evaluate_every:
            raise ConfigError("early_stopping needs validations: expected evaluate_every above 0")
        if self.parallel == "fsdp" and self.precision == "fp16":
            raise ConfigError(
                "precision = 'fp16' with parallel = 'fsdp': expected bf16 or fp32 (the parts of a "
                "gradient would overflow in one process and not in another)"
            )

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with some settings changed; unknown names raise :class:`ConfigError`."""
        _check_names(changes, "settings")
        return dataclasses.replace(self, **changes)

    def to_toml(self) -> str:
        """All settings as TOML, grouped, each with its help text as a comment."""
        lines: list[str] = []
        group = None
        for spec in dataclasses.fields(self):
            if spec.metadata["group"] != group:
                group = spec.metadata["group"]
                lines += ([""] if lines else []) + [f"# -- {group} --"]
            # JSON's strings, numbers and booleans are TOML's as well.
            value = json.dumps(getattr(self, spec.name), ensure_ascii=False)
            choices = spec.metadata["choices"]
            note = spec.metadata["help"] + (f": {', '.join(choices)}" if choices else "")
            lines.append(f"{spec.name} = {value}  # {note}")
        return "\n".join(lines) + "\n"

    @classmethod
    def resolve(cls, values: Mapping[str, Any], titles: int | None = None) -> TrainConfig:
        """The settings ``values``, then the defaults of their method, then the common ones.

        Args:
            values: the settings that were named.
            titles: how many there are to train on. With method ngame, encoder ngrams and fewer
                than ``FEW_TITLES`` the defaults are ``FEW_TITLES_DEFAULTS``, unless the form of
                the vectors is named, or something that these defaults leave without effect.

        Raises:
            ConfigError: an unknown or bad setting.
        """
        _check_names(values, "settings")
        defaults = METHOD_DEFAULTS.get(values.get("method", cls.method), {})
        config = cls(**{**defaults, **values})
        few = titles is not None and titles < FEW_TITLES
        if not few or config.method != "ngame" or config.encoder != "ngrams":
            return config
        other = cls(**{**FEW_TITLES_DEFAULTS, **values})
        form_named = {"embedding_dim", "sketch_dim"} & set(values)
        return config if form_named or without_effect(other, values) else other

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> TrainConfig:
        """All settings of a run, which may be older than some of them.

        Raises:
            ConfigError: an unknown or bad setting.
        """
        return cls().replace(**{**BEFORE, **values})

    @classmethod
    def from_toml(
        cls,
        path: str | Path,
        missing: Mapping[str, Any] | None = None,
        titles: int | None = None,
        **changes: Any,
    ) -> TrainConfig:
        """Read a TOML file; what neither it nor ``changes`` names is as :meth:`resolve` says.

        ``missing``: other defaults; ``BEFORE`` for the file of a run, which had all settings.

        Raises:
            ConfigError: the file is missing or not TOML, or names an unknown or bad setting.
        """
        values = read_toml(Path(path))
        try:
            _check_names(values, str(path))
            return cls.resolve({**(missing or {}), **values, **changes}, titles)
        except ConfigError as error:
            text = str(error)
            raise ConfigError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def without_effect(config: TrainConfig, names: Iterable[str]) -> dict[str, str]:
    """Those of the settings ``names`` that change nothing, each with what it takes instead."""
    rules = {spec.name: spec.metadata["when"] for spec in dataclasses.fields(config)}
    return {name: rules[name][1] for name in names if rules[name] and not rules[name][0](config)}


# (names, smallest value, what is expected)
_RANGES: tuple[tuple[tuple[str, ...], float, str], ...] = (
    (
        ("epochs", "batch_size", "accumulate", "ngram_buckets", "hidden_dim",
         "max_length", "cluster_size", "refresh_every", "hard_negative_pool", "num_negatives",
         "context_size", "label_cluster_size", "prototype_layers", "prototype_heads",
         "label_shards"),
        1,
        "a whole number of at least 1",
    ),
    (
        ("seed", "evaluate_every", "early_stopping", "checkpoint_every", "cache_chunk",
         "learning_rate", "embedding_learning_rate", "weight_decay", "clip_norm",
         "embedding_dim", "sketch_dim",
         "hard_negatives", "context_dim", "context_rows", "min_margin", "pair_weight",
         "batch_weight", "tcm_weight", "prototype_weight", "prototype_regularizer",
         "prototype_margin"),
        0,
        "a number of at least 0",
    ),
    (("process_timeout",), 1, "a number of seconds, at least 1"),
    (("false_negative_margin",), -2, "a difference of similarities of at least -2"),
)  # fmt: skip


def _check_names(values: Iterable[str], where: str) -> None:
    known = [spec.name for spec in dataclasses.fields(TrainConfig)]
    for name in values:
        if name not in known:
            raise ConfigError(f"{where}: unknown setting {name!r}{suggestion(name, known)}")
