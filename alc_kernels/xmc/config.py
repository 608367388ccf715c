"""Every setting of a training run, with its default, in one dataclass."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from alc_kernels.xmc.errors import ConfigError

METHODS = ("ngame",)
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
    learning_rate: float = setting(
        1e-3, "peak learning rate of the dense layers (2e-4 suits MiniLM)", group="training"
    )
    embedding_learning_rate: float = setting(
        1e-2, "peak learning rate of the n-gram embedding table", group="training"
    )
    weight_decay: float = setting(0.01, "AdamW weight decay of the dense layers", group="training")
    warmup: float = setting(0.1, "share of the steps with rising learning rate", group="training")
    clip_norm: float = setting(0.0, "gradient norm limit, 0 for none", group="training")
    keep_unmatched: bool = setting(False, "also train on queries without a label", group="training")
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
    weight_temperature: float = setting(0.1, "temperature of the negatives' weights", group="loss")
    pair_weight: float = setting(1.0, "weight of ALC's pair part", group="loss")
    batch_weight: float = setting(1.0, "weight of ALC's batch part", group="loss")
    # Groups of 256 did as well on validation as 1024, in a third of the time on a CPU.
    context_size: int = setting(256, "queries per attention group, ALC batch part", group="loss")
    context_dropout: float = setting(0.1, "dropout of ALC's batch part", group="loss")
    tcm_weight: float = setting(1.0, "weight of both sides of the threshold margin", group="loss")
    positive_margin: float = setting(0.9, "threshold margin for positives", group="loss")
    negative_margin: float = setting(0.5, "threshold margin for negatives", group="loss")

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for spec in dataclasses.fields(self):
            value = _checked(spec.name, getattr(self, spec.name), kinds[spec.name])
            object.__setattr__(self, spec.name, value)
            choices = spec.metadata["choices"]
            if choices and value not in choices:
                raise ConfigError(
                    f"{spec.name} = {value!r}: expected one of {', '.join(choices)}"
                    f"{_suggestion(str(value), choices)}"
                )
        for names, low, text in _RANGES:
            for name in names:
                if getattr(self, name) < low:
                    raise ConfigError(f"{name} = {getattr(self, name)!r}: expected {text}")
        for name in ("dropout", "context_dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} = {getattr(self, name)!r}: expected a number from 0 to below 1"
                )
        if not self.weight_temperature > 0:
            raise ConfigError(
                f"weight_temperature = {self.weight_temperature!r}: expected a number above 0"
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
    def from_toml(cls, path: str | Path) -> TrainConfig:
        """Read a TOML file; what it does not name keeps its default.

        Raises:
            ConfigError: the file is missing or not TOML, or names an unknown or bad setting.
        """
        path = Path(path)
        try:
            values = _toml().loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: not UTF-8 text, expected a TOML file") from None
        except ValueError as error:  # TOMLDecodeError; its text names line and column
            raise ConfigError(f"{path}: not TOML ({error})") from None
        try:
            _check_names(values, str(path))
            return cls(**values)
        except ConfigError as error:
            text = str(error)
            raise ConfigError(text if text.startswith(str(path)) else f"{path}: {text}") from None


# (names, smallest value, what is expected)
_RANGES: tuple[tuple[tuple[str, ...], float, str], ...] = (
    (
        ("epochs", "batch_size", "embedding_dim", "ngram_buckets", "hidden_dim", "max_length",
         "num_negatives", "context_size"),
        1,
        "a whole number of at least 1",
    ),
    (
        ("seed", "evaluate_every", "learning_rate", "embedding_learning_rate", "weight_decay",
         "clip_norm", "pair_weight", "batch_weight", "tcm_weight"),
        0,
        "a number of at least 0",
    ),
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


def _check_names(values: dict[str, Any], where: str) -> None:
    known = [spec.name for spec in dataclasses.fields(TrainConfig)]
    for name in values:
        if name not in known:
            raise ConfigError(f"{where}: unknown setting {name!r}{_suggestion(name, known)}")


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _toml() -> Any:
    """The standard library's TOML reader, or its predecessor on Python 3.10."""
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib
    import tomli

    return tomli
