"""From a name or a run folder to an encoder."""

from __future__ import annotations

from pathlib import Path

from alc_kernels.xmc.config import TrainConfig
from alc_kernels.xmc.encoders.base import Encoder


def build_encoder(name: str, config: TrainConfig | None = None) -> Encoder:
    """A fresh encoder: ``"ngrams"``, or the path or hub name of a Hugging Face text model.

    Raises:
        EncoderError: unknown model, or a package that is not installed (names the extra).
    """
    raise NotImplementedError


def load_encoder(run: str | Path) -> Encoder:
    """The trained encoder of a run folder (or of a checkpoint folder), in evaluation mode.

    Raises:
        CheckpointError: missing, truncated or foreign files, by name.
    """
    raise NotImplementedError
