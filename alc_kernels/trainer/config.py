"""Every setting of a training run, with its default, in one dataclass."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from alc_kernels.trainer.errors import ConfigError, suggestion

# method -> its defaults where they differ from those below
METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "ngame": {},
    "dexa": {},
    "dexml": {},
    "prime": {"num_negatives": 100},
}
LOSSES = ("base", "alc", "tcm", "alc+tcm", "alc-pair", "alc-batch")


def setting(default: Any, help: str, *, group: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field whose help text serves the TOML file and the command line alike."""
    return field(default=default, metadata={"help": help, "group": group, "choices": choices})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of ``alc train``. ``dataclasses.fields`` gives help, group and choices of each.

    Raises:
        ConfigError: a value of the wrong type or out of range.
    """

    method: str = setting(
        "ngame", "method, which also sets defaults", group="run", choices=tuple(METHOD_DEFAULTS)
    )
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
    accumulate: int = setting(1, "batches per optimizer step", group="training")
    cache_chunk: int = setting(
        0,
        "texts encoded at a time, and again in the backward pass, for batches that do not fit; "
        "0 for the whole batch at once",
        group="training",
    )
    precision: str = setting(
        "fp32", "arithmetic of the encoder", group="training", choices=("fp32", "bf16", "fp16")
    )
    learning_rate: float = setting(
        1e-3, "peak learning rate of the dense layers (2e-4 suits MiniLM)", group="training"
    )
    embedding_learning_rate: float = setting(
        1e-2, "peak learning rate of sparse tables (n-grams, free vectors)", group="training"
    )
    weight_decay: float = setting(0.01, "AdamW weight decay of the dense layers", group="training")
    warmup: float = setting(0.1, "share of the steps with rising learning rate", group="training")
    schedule: str = setting(
        "linear",
        "learning rate after the rise",
        group="training",
        choices=("linear", "cosine", "constant"),
    )
    clip_norm: float = setting(0.0, "gradient norm limit, 0 for none", group="training")
    ema: float = setting(
        0.0, "decay per step of the weights' moving average, 0 for none", group="training"
    )
    keep_unmatched: bool = setting(False, "also train on queries without a label", group="training")
    evaluate_every: int = setting(1, "epochs between validations, 0 for never", group="training")
    early_stopping: int = setting(
        0,
        "validations without a gain in C@.9 until training stops and the best epoch's weights "
        "are used, 0 for never",
        group="training",
    )
    checkpoint_every: int = setting(
        0, "steps between checkpoints beside those at epoch ends, 0 for none", group="training"
    )
    tensorboard: bool = setting(False, "also write RUN/tensorboard", group="training")

    embedding_dim: int = setting(256, "width of the vectors (n-grams)", group="encoder")
    ngram_buckets: int = setting(2**17, "rows of the n-gram table", group="encoder")
    hidden_dim: int = setting(512, "width of the residual MLP (n-grams)", group="encoder")
    dropout: float = setting(0.0, "share of a text's n-grams dropped in training", group="encoder")
    pooling: str = setting(
        "mean", "pooling (Hugging Face)", group="encoder", choices=("mean", "cls")
    )
    max_length: int = setting(64, "tokens per text (Hugging Face)", group="encoder")
    gradient_checkpointing: bool = setting(
        False, "recompute layers in the backward pass (Hugging Face)", group="encoder"
    )

    cluster_size: int = setting(
        1,
        "largest cluster of similar queries that a batch is made of, 1 to shuffle",
        group="batches",
    )
    refresh_every: int = setting(
        1, "epochs between new clusters, hard negatives and centroids", group="batches"
    )
    hard_negatives: int = setting(
        0, "labels per query, mined across all labels, added to the batch", group="batches"
    )
    hard_negative_pool: int = setting(
        100, "nearest labels from which they are drawn", group="batches"
    )
    index: str = setting(
        "exact", "search for them", group="batches", choices=("exact", "approximate")
    )
    false_negative_margin: float = setting(
        -2.0,
        "leave out negatives that score above the positive less this; -2 leaves out none",
        group="batches",
    )
    all_labels: bool = setting(
        False, "compare with all labels, those outside the batch from a cache", group="batches"
    )

    margin: float = setting(0.3, "margin of the triplet loss", group="loss")
    min_margin: float = setting(0.1, "smallest margin of the dynamic triplet loss", group="loss")
    max_margin: float = setting(0.3, "largest margin of the dynamic triplet loss", group="loss")
    num_negatives: int = setting(10, "hardest negatives per query", group="loss")
    weight_temperature: float = setting(0.1, "temperature of the negatives' weights", group="loss")
    temperature: float = setting(0.05, "temperature of the softmax losses", group="loss")
    pair_weight: float = setting(1.0, "weight of ALC's pair part", group="loss")
    batch_weight: float = setting(1.0, "weight of ALC's batch part", group="loss")
    # Groups of 256 did as well on validation as 1024, in a third of the time on a CPU.
    context_size: int = setting(256, "queries per attention group, ALC batch part", group="loss")
    context_dropout: float = setting(0.1, "dropout of ALC's batch part", group="loss")
    tcm_weight: float = setting(1.0, "weight of both sides of the threshold margin", group="loss")
    tcm_scope: str = setting(
        "hardest",
        "negatives of the threshold margin",
        group="loss",
        choices=("hardest", "all"),
    )
    tcm_reduction: str = setting(
        "rows",
        "what the threshold margin is averaged over",
        group="loss",
        choices=("rows", "active"),
    )
    positive_margin: float = setting(0.9, "threshold margin for positives", group="loss")
    negative_margin: float = setting(0.5, "threshold margin for negatives", group="loss")

    label_cluster_size: int = setting(
        8, "labels that share a free vector (DEXA, PRIME)", group="label side"
    )
    prototype_layers: int = setting(
        1, "layers of the prototype network (PRIME)", group="label side"
    )
    prototype_heads: int = setting(4, "its attention heads (PRIME)", group="label side")
    prototype_weight: float = setting(
        1.0, "weight of the text part beside the prototypes (PRIME)", group="label side"
    )
    prototype_regularizer: float = setting(
        0.1, "weight of: prototypes must beat texts by prototype_margin (PRIME)", group="label side"
    )
    prototype_margin: float = setting(0.1, "margin by which they must (PRIME)", group="label side")
    prototype_dropout: float = setting(
        0.8, "share of labels per step trained as if they were unseen (PRIME)", group="label side"
    )

    parallel: str = setting(
        "ddp",
        "under torchrun: the whole encoder in every process, or a part of it in each",
        group="processes",
        choices=("ddp", "fsdp"),
    )
    process_timeout: float = setting(
        600.0, "seconds until a process that waits for another gives up", group="processes"
    )
    label_shards: int = setting(
        1,
        "parts in which labels are ranked, each by processes of its own where there are several; "
        "a GPU holds the vectors of one part",
        group="processes",
    )

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for spec in dataclasses.fields(self):
            value = _checked(spec.name, getattr(self, spec.name), kinds[spec.name])
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
    def resolve(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The settings ``values``, then the defaults of their method, then the common ones.

        Raises:
            ConfigError: an unknown or bad setting.
        """
        _check_names(values, "settings")
        defaults = METHOD_DEFAULTS.get(values.get("method", cls.method), {})
        return cls(**{**defaults, **values})

    @classmethod
    def from_toml(cls, path: str | Path, **changes: Any) -> TrainConfig:
        """Read a TOML file; what neither it nor ``changes`` names keeps its method's default.

        Raises:
            ConfigError: the file is missing or not TOML, or names an unknown or bad setting.
        """
        values = read_toml(Path(path))
        try:
            _check_names(values, str(path))
            return cls.resolve({**values, **changes})
        except ConfigError as error:
            text = str(error)
            raise ConfigError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file, or a :class:`ConfigError` that names it."""
    try:
        return dict(_toml().loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text, expected a TOML file") from None
    except ValueError as error:  # TOMLDecodeError; its text names line and column
        raise ConfigError(f"{path}: not TOML ({error})") from None


# (names, smallest value, what is expected)
_RANGES: tuple[tuple[tuple[str, ...], float, str], ...] = (
    (
        ("epochs", "batch_size", "accumulate", "embedding_dim", "ngram_buckets", "hidden_dim",
         "max_length", "cluster_size", "refresh_every", "hard_negative_pool", "num_negatives",
         "context_size", "label_cluster_size", "prototype_layers", "prototype_heads",
         "label_shards"),
        1,
        "a whole number of at least 1",
    ),
    (
        ("seed", "evaluate_every", "early_stopping", "checkpoint_every", "cache_chunk",
         "learning_rate", "embedding_learning_rate", "weight_decay", "clip_norm",
         "hard_negatives", "min_margin", "pair_weight", "batch_weight", "tcm_weight",
         "prototype_weight", "prototype_regularizer", "prototype_margin"),
        0,
        "a number of at least 0",
    ),
    (("process_timeout",), 1, "a number of seconds, at least 1"),
    (("false_negative_margin",), -2, "a difference of similarities of at least -2"),
)  # fmt: skip


def _checked(name: str, value: Any, kind: type) -> Any:
    """``value`` as ``kind`` (an integer is a legal float), or a :class:`ConfigError`."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        raise ConfigError(f"{name} = {value!r}: expected {words[kind]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} = {value!r}: expected a finite number")
    return value


def _check_names(values: Iterable[str], where: str) -> None:
    known = [spec.name for spec in dataclasses.fields(TrainConfig)]
    for name in values:
        if name not in known:
            raise ConfigError(f"{where}: unknown setting {name!r}{suggestion(name, known)}")


def _toml() -> Any:
    """The standard library's TOML reader, or its predecessor on Python 3.10."""
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib
    import tomli

    return tomli
