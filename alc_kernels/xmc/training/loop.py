"""The training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from alc_kernels.xmc.config import TrainConfig
from alc_kernels.xmc.data.dataset import Dataset
from alc_kernels.xmc.encoders.base import Encoder
from alc_kernels.xmc.training.progress import Progress

Evaluate = Callable[[Encoder], dict[str, float]]


@dataclass
class TrainedRun:
    """What training leaves behind.

    Attributes:
        encoder: the trained encoder, in evaluation mode.
        config: the settings it was trained with.
        history: one entry per epoch: ``epoch``, ``step``, ``loss`` and its terms (``base``,
            ``pair``, ``batch``, ``tcm_positive``, ``tcm_negative``; means over the epoch),
            ``learning_rate``, ``seconds`` (since the start), and what ``evaluate`` returned,
            its keys prefixed with ``validation_``.
        output: the run folder, with ``config.toml`` and ``checkpoint/``.
    """

    encoder: Encoder
    config: TrainConfig
    history: list[dict[str, float]] = field(default_factory=list)
    output: Path = Path()


def train(
    config: TrainConfig,
    dataset: Dataset,
    output: str | Path,
    progress: Progress | None = None,
    evaluate: Evaluate | None = None,
) -> TrainedRun:
    """Train an encoder on ``dataset.train`` and leave a run folder behind.

    Args:
        config: all settings.
        dataset: only its training split, and the names of labels that have a training query,
            are used here.
        output: run folder; gets ``config.toml`` and ``checkpoint/``.
        progress: callbacks, see :class:`Progress`.
        evaluate: called with the encoder every ``config.evaluate_every`` epochs (0: never); it
            should look at the validation split only. Returns numbers for the history.

    Raises:
        DataError: no training query has a label, or ``keep_unmatched`` finds none to keep.
        TrainingDiverged: loss or weights became non-finite; the last good checkpoint stays.
        Interrupted: Ctrl-C; a usable checkpoint was written.
    """
    raise NotImplementedError
