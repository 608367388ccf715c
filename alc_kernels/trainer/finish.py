"""What training commands do once the encoder is trained: score, judge, report."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alc_kernels.trainer.errors import BadInput, Interrupted, Missing
from alc_kernels.trainer.evaluation.results import REPORT

if TYPE_CHECKING:
    from alc_kernels.trainer.config import TrainConfig
    from alc_kernels.trainer.data import Dataset
    from alc_kernels.trainer.evaluation import Group
    from alc_kernels.trainer.evaluation.search import TextModel
    from alc_kernels.trainer.parallel import Processes
    from alc_kernels.trainer.training.checkpoint import Checkpoint

EXTRA = "trainer"


def require(package: str, purpose: str, name: str = "") -> None:
    """Raise :class:`Missing` unless ``package`` imports; pip knows it as ``name``."""
    if importlib.util.find_spec(package) is None:
        raise Missing(name or package, EXTRA, purpose)


def require_matplotlib() -> None:
    """Pictures need matplotlib."""
    require("matplotlib", "the report")


def make_baseline(dataset: Dataset) -> Group | None:
    """TF-IDF on ``dataset``; None, with a note, where scikit-learn is not installed."""
    from alc_kernels.trainer.baselines import TfidfBaseline
    from alc_kernels.trainer.evaluation.evaluate import evaluate_baseline

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
    from alc_kernels.trainer.evaluation.evaluate import evaluate_run, save_baseline
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
            label_shards=config.label_shards,
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
