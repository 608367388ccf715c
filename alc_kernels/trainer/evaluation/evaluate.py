"""Score a trained encoder once and leave the result in its run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.evaluation.comparison import Group
from alc_kernels.trainer.evaluation.predictions import data_fingerprint, save_predictions
from alc_kernels.trainer.evaluation.results import (
    BASELINE,
    BASELINE_NAME,
    METRICS,
    PREDICTIONS,
    RunError,
    Scored,
    describe_data,
    save_results,
)
from alc_kernels.trainer.evaluation.scoring import Done, TextRanker, score_model, score_ranker
from alc_kernels.trainer.evaluation.search import TextModel
from alc_kernels.trainer.parallel.processes import ALONE, Processes


def evaluate_run(
    model: TextModel,
    dataset: Dataset,
    folder: Path,
    *,
    name: str,
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, float]] = (),
    training_seconds: float | None = None,
    done: Done | None = None,
    processes: Processes = ALONE,
    label_shards: int = 1,
) -> Group:
    """Score ``model``; write ``predictions.npz`` and ``metrics.json`` into ``folder``.

    Args:
        name: what reports call the run.
        config, history, training_seconds: how it was trained; kept beside the figures.
        done: called with the name of every scored part.
        processes: with several, all call this; the first one writes.
        label_shards: see :class:`~.shared_search.SharedSearch`.

    Raises:
        RunError: the model gives numbers that are not finite.
    """
    start = time.perf_counter()
    try:
        predictions = score_model(
            model, dataset, done=done, processes=processes, label_shards=label_shards
        )
    except ValueError as error:
        raise RunError(f"{folder}: the model cannot be scored: {error}") from error
    fingerprint = data_fingerprint(dataset)
    seconds = {"evaluation": time.perf_counter() - start}
    if training_seconds is not None:
        seconds = {"training": training_seconds, **seconds}
    data = describe_data(dataset, fingerprint)
    scored = Scored(name, predictions, fingerprint, data, config, list(history), seconds)
    group = Group(name, [scored])
    if processes.is_main:
        save_predictions(folder / PREDICTIONS, predictions, fingerprint)
        save_results(
            folder / METRICS,
            group.figures(),
            data=data,
            config=config,
            history=history,
            seconds=seconds,
        )
    return group


def evaluate_baseline(ranker: TextRanker, dataset: Dataset, done: Done | None = None) -> Group:
    """The yardstick's predictions, as a group that stands beside the others."""
    predictions = score_ranker(ranker, dataset, done=done)
    fingerprint = data_fingerprint(dataset)
    scored = Scored(BASELINE_NAME, predictions, fingerprint, describe_data(dataset, fingerprint))
    return Group(BASELINE_NAME, [scored], reference=True)


def save_baseline(baseline: Group, folder: Path) -> None:
    """Keep the yardstick beside a run, so that comparisons can show it."""
    scored = baseline.runs[0]
    save_predictions(folder / BASELINE, scored.predictions, scored.fingerprint)
