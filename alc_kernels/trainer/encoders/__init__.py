"""Text encoders: hashed n-grams (the default, fast on a CPU) and Hugging Face models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.encoders.base import ConcatTokens, Encoder, TokenizedTexts, TokenRows
from alc_kernels.trainer.encoders.huggingface import HuggingFaceEncoder
from alc_kernels.trainer.encoders.ngrams import NgramEncoder
from alc_kernels.trainer.errors import EncoderError

__all__ = [
    "ConcatTokens",
    "Encoder",
    "TokenRows",
    "TokenizedTexts",
    "build_encoder",
]

KINDS: dict[str, type[Encoder]] = {"ngrams": NgramEncoder, "huggingface": HuggingFaceEncoder}


def build_encoder(name: str, config: TrainConfig | None = None) -> Encoder:
    """A fresh encoder: ``"ngrams"``, or the path or hub name of a Hugging Face text model.

    Args:
        name: which one.
        config: sizes and pooling; None takes the defaults. Weights of a fresh n-gram encoder
            come from PyTorch's global generator.

    Raises:
        EncoderError: unknown model, or a package that is not installed (names the extra).
    """
    config = config or TrainConfig()
    if name == "ngrams":
        return NgramEncoder(
            config.embedding_dim,
            config.ngram_buckets,
            config.hidden_dim,
            config.dropout,
            config.sketch_dim,
        )
    return HuggingFaceEncoder(
        name, config.pooling, config.max_length, config.gradient_checkpointing
    )


def describe(encoder: Encoder) -> dict[str, Any]:
    """What a checkpoint stores about an encoder beside its weights."""
    for kind, cls in KINDS.items():
        if isinstance(encoder, cls):
            return {"kind": kind, **encoder.config()}
    raise TypeError(f"{type(encoder).__name__}: expected one of {', '.join(KINDS)}")


def rebuild(description: dict[str, Any], folder: Path) -> Encoder:
    """The encoder that :func:`describe` described, with fresh weights.

    Raises:
        EncoderError: the description names no known kind or lacks a setting.
    """
    settings = dict(description)
    kind = settings.pop("kind", None)
    if kind not in KINDS:
        raise EncoderError(f"found encoder kind {kind!r}, expected one of {', '.join(KINDS)}")
    try:
        return KINDS[kind].from_config(settings, folder)
    except (KeyError, TypeError) as error:
        raise EncoderError(f"settings of the {kind} encoder do not fit ({error})") from None
