"""``RUN/metrics.json``: every figure with its interval, and how the run came about."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.errors import XMCError
from alc_kernels.trainer.evaluation.judged import PRECISIONS, REPLICATES, interval, replicate
from alc_kernels.trainer.evaluation.predictions import Splits, load_predictions
from alc_kernels.whole import write_whole

FORMAT = 1


@dataclass(frozen=True)
class Estimate:
    """A figure and the bounds of its 95 % bootstrap interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


Figures = Mapping[str, Mapping[str, Estimate]]  # catalogue -> measure -> estimate


def estimate(value: float, replicates: np.ndarray | None) -> Estimate:
    """A point value with the interval of its replicates (R,)."""
    low, high = (math.nan, math.nan) if replicates is None else interval(replicates)
    return Estimate(value, low, high)


def figures(
    predictions: Splits,
    precisions: tuple[float, ...] = PRECISIONS,
    replicates: int = REPLICATES,
) -> dict[str, dict[str, Estimate]]:
    """Every measure of a run, on test, with its interval."""
    made = {}
    for catalogue, splits in predictions.items():
        point, drawn = replicate(splits, precisions, replicates)
        made[catalogue] = {key: estimate(v, drawn.get(key)) for key, v in point.items()}
    return made


def describe_data(dataset: Dataset, fingerprint: str) -> dict[str, Any]:
    """What a report says of the data, and where ``alc predict`` finds it again."""
    return {
        "name": dataset.name,
        "fingerprint": fingerprint,
        "folder": None if dataset.folder is None else str(dataset.folder.resolve()),
        "description": dataset.description,
        "generated": dataset.generated,
        "protocol": dataset.protocol,
        "counts": dataset.counts(),
    }


def save_results(
    path: Path,
    measured: Figures,
    *,
    data: Mapping[str, Any],
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    seconds: Mapping[str, float],
) -> None:
    """Write ``metrics.json``, whole or not at all; what is not finite is written as null."""
    content = {
        "format": FORMAT,
        "data": data,
        "config": config,
        "seconds": seconds,
        "metrics": {
            catalogue: {
                key: {"value": e.value, "interval_95": [e.low, e.high]} for key, e in rows.items()
            }
            for catalogue, rows in measured.items()
        },
        "history": list(history),
    }
    write_whole(path, json.dumps(_plain(content), indent=2) + "\n")


def load_results(path: Path) -> dict[str, Any]:
    """Read ``metrics.json``; :class:`ValueError` names the file when it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: written by another version of alc, train or evaluate again")
    for key in ("data", "config", "metrics", "history", "seconds"):
        if key not in content:
            raise ValueError(f"{path}: has no {key!r}")
    return content


def _plain(value: Any) -> Any:
    """JSON has no infinities and knows no NumPy."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# A run folder as evaluation and reports see it.


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
