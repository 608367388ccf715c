"""What training commands do once the encoder is trained: score, judge, report."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.errors import BadInput, Interrupted, Missing, missing_text
from alc_kernels.trainer.evaluation.comparison import Group
from alc_kernels.trainer.evaluation.results import (
    BASELINE,
    BASELINE_NAME,
    METRICS,
    PREDICTIONS,
    REPORT,
    RunError,
    Scored,
    data_fingerprint,
    describe_data,
    save_predictions,
    save_results,
)
from alc_kernels.trainer.evaluation.scoring import TextRanker, score_model, score_ranker
from alc_kernels.trainer.evaluation.search import TextModel
from alc_kernels.trainer.parallel.processes import ALONE, Processes

if TYPE_CHECKING:
    from alc_kernels.trainer.config import TrainConfig
    from alc_kernels.trainer.data import Dataset
    from alc_kernels.trainer.evaluation import Group
    from alc_kernels.trainer.evaluation.search import TextModel
    from alc_kernels.trainer.parallel import Processes
    from alc_kernels.trainer.training.checkpoint import Checkpoint

# Score a trained encoder once and leave the result in its run folder.


def evaluate_run(
    model: TextModel,
    dataset: Dataset,
    folder: Path,
    *,
    name: str,
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, float]] = (),
    training_seconds: float | None = None,
    processes: Processes = ALONE,
) -> Group:
    """Score ``model``; write ``predictions.npz`` and ``metrics.json`` into ``folder``.

    Args:
        name: what reports call the run.
        config, history, training_seconds: how it was trained; kept beside the figures. Labels are
            ranked in as many parts as ``label_shards`` says.
        processes: with several, all call this; the first one writes.

    Raises:
        RunError: the model gives numbers that are not finite.
    """
    start = time.perf_counter()
    try:
        predictions = score_model(
            model, dataset, processes=processes, label_shards=config.get("label_shards", 1)
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


def evaluate_baseline(ranker: TextRanker, dataset: Dataset) -> Group:
    """The yardstick's predictions, as a group that stands beside the others."""
    predictions = score_ranker(ranker, dataset)
    fingerprint = data_fingerprint(dataset)
    scored = Scored(BASELINE_NAME, predictions, fingerprint, describe_data(dataset, fingerprint))
    return Group(BASELINE_NAME, [scored], reference=True)


def save_baseline(baseline: Group, folder: Path) -> None:
    """Keep the yardstick beside a run, so that comparisons can show it."""
    scored = baseline.runs[0]
    save_predictions(folder / BASELINE, scored.predictions, scored.fingerprint)


EXTRA = "trainer"


def require(package: str, purpose: str, name: str = "") -> None:
    """Raise :class:`Missing` unless ``package`` imports; pip knows it as ``name``."""
    if importlib.util.find_spec(package) is None:
        raise Missing(missing_text(purpose, name or package, EXTRA))


def require_matplotlib() -> None:
    """Pictures need matplotlib."""
    require("matplotlib", "the report")


def make_baseline(dataset: Dataset) -> Group | None:
    """TF-IDF on ``dataset``; None, with a note, where scikit-learn is not installed."""
    from alc_kernels.trainer.evaluation.scoring import TfidfBaseline

    if importlib.util.find_spec("sklearn") is None:
        note = f"no TF-IDF row: pip install 'alc-kernels[{EXTRA}]' for scikit-learn"
        print(note, file=sys.stderr)
        return None
    return evaluate_baseline(TfidfBaseline.from_dataset(dataset), dataset)


def evaluate_and_report(
    model: TextModel,
    config: TrainConfig,
    dataset: Dataset,
    folder: Path,
    *,
    history: Sequence[Mapping[str, float]],
    training_seconds: float | None,
    processes: Processes | None = None,
) -> None:
    """Score the model and the yardstick, write the run's files, print the table.

    With several processes all call it; they score together, and the first one does the rest.

    Raises:
        Interrupted: Ctrl-C; the message says that the trained model is safe.
    """
    from alc_kernels.trainer.evaluation.comparison import loss_name, method_name
    from alc_kernels.trainer.parallel import Processes
    from alc_kernels.trainer.report.decision import figures_text
    from alc_kernels.trainer.report.summary import threshold_table

    processes = processes or Processes()
    names = " and the ".join(dataset.catalogues())
    if processes.is_main:
        print(f"Scoring against the {names} catalogue ...", file=sys.stderr)
    try:
        group = evaluate_run(
            model,
            dataset,
            folder,
            name=f"{method_name(config.method)} {loss_name(config.loss)}",
            config=dataclasses.asdict(config),
            history=history,
            training_seconds=training_seconds,
            processes=processes,
        )
        if not processes.is_main:
            return
        baseline = make_baseline(dataset)
        if baseline is not None:
            save_baseline(baseline, folder)
        groups = [group] if baseline is None else [baseline, group]
        print(figures_text(groups))
        print(f"\nThe threshold to ship\n{threshold_table(group).text()}")
        written = [folder / "metrics.json"]
        if importlib.util.find_spec("matplotlib") is None:
            print(f"no report: pip install 'alc-kernels[{EXTRA}]'", file=sys.stderr)
        else:
            written.append(write_report(groups, dataset, folder))
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted while scoring; the trained model is in {folder / 'checkpoint'}, "
            f"score it with: alc evaluate {folder} --data DIR"
        ) from None
    print(f"\nWritten: {', '.join(str(path) for path in written)}")


def write_report(groups: Sequence[Group], dataset: Dataset, folder: Path) -> Path:
    """The run's page."""
    from alc_kernels.trainer.report.build import Report
    from alc_kernels.whole import write_whole

    title = f"{dataset.name}: {groups[-1].name}"
    page = folder / REPORT
    write_whole(page, Report(title, groups, dataset).html())
    return page


def load_trained(folder: Path) -> Checkpoint:
    """The checkpoint of a run, its model in evaluation mode where the settings want it to run.

    A run that was trained on a GPU is used on the CPU where there is none.

    Raises:
        BadInput: there is no such folder.
        CheckpointError: no checkpoint, or a damaged one.
    """
    from alc_kernels.trainer.training.checkpoint import checkpoint_folder, load_checkpoint

    if not folder.is_dir():
        raise BadInput(f"{folder}: no such run folder")
    checkpoint = load_checkpoint(checkpoint_folder(folder))
    checkpoint.model.to(usable_device(checkpoint.config)).eval()
    return checkpoint


def usable_device(config: TrainConfig) -> str:
    """The device of a run's settings, or the CPU where that is a GPU and there is none."""
    import torch

    if config.device == "auto" or not torch.cuda.is_available():
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.device
