"""A run folder as evaluation and reports see it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alc_kernels.xmc.errors import XMCError
from alc_kernels.xmc.evaluation.predictions import Splits, load_predictions
from alc_kernels.xmc.evaluation.results import load_results

PREDICTIONS = "predictions.npz"
METRICS = "metrics.json"
BASELINE = "tfidf.npz"
REPORT = "report.html"
CONFIG = "config.toml"
BASELINE_NAME = "TF-IDF"


class RunError(XMCError):
    """A run folder that cannot be read, or runs that cannot be compared."""


@dataclass(frozen=True)
class Scored:
    """A scored run.

    Attributes:
        name: what to call it.
        predictions: catalogue -> split -> predictions.
        fingerprint: of the data it was scored on.
        data: name, description, counts and the like, see ``describe_data``.
        config: the training settings; empty for what was not trained.
        history: one record per epoch.
        seconds: how long training and evaluation took.
        folder: of the run, where it was read from one.
    """

    name: str
    predictions: Splits
    fingerprint: str
    data: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    history: list[Mapping[str, float]] = field(default_factory=list)
    seconds: Mapping[str, float] = field(default_factory=dict)
    folder: Path | None = None


def load_scored(folder: Path) -> Scored:
    """Read a folder that ``alc train`` wrote.

    Raises:
        RunError: no such folder, not a run, unfinished, or damaged; one line that names the file.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder")
    if not (folder / PREDICTIONS).is_file() or not (folder / METRICS).is_file():
        missing = PREDICTIONS if not (folder / PREDICTIONS).is_file() else METRICS
        unfinished = (folder / CONFIG).exists() or (folder / "checkpoint").exists()
        why = "the run did not finish" if unfinished else "this is not a run of alc train"
        raise RunError(f"{folder}: has no {missing}: {why}")
    try:
        predictions, fingerprint = load_predictions(folder / PREDICTIONS)
        results = load_results(folder / METRICS)
    except (OSError, ValueError) as error:
        raise RunError(str(error)) from error
    return Scored(
        name=folder.name or str(folder.resolve().name),
        predictions=predictions,
        fingerprint=fingerprint,
        data=results["data"],
        config=results["config"],
        history=results["history"],
        seconds=results["seconds"],
        folder=folder,
    )


def load_baseline(folder: Path, fingerprint: str) -> Scored | None:
    """The TF-IDF yardstick kept beside a run, if it is there and of the data ``fingerprint``."""
    if not (folder / BASELINE).is_file():
        return None
    try:
        predictions, found = load_predictions(folder / BASELINE)
    except (OSError, ValueError) as error:
        raise RunError(str(error)) from error
    return Scored(BASELINE_NAME, predictions, found) if found == fingerprint else None


# Settings that do not change what is learned, beside the seed.
UNIMPORTANT = ("seed", "checkpoint_every", "tensorboard")


def settings_key(config: Mapping[str, Any]) -> str:
    """Equal for runs that differ in their seed only."""
    return json.dumps({k: v for k, v in config.items() if k not in UNIMPORTANT}, sort_keys=True)
