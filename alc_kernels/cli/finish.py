"""What training commands do once the encoder is trained: score, judge, report."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alc_kernels.cli.errors import Missing
from alc_kernels.xmc.errors import Interrupted
from alc_kernels.xmc.evaluation.run import REPORT

if TYPE_CHECKING:
    from alc_kernels.xmc.config import TrainConfig
    from alc_kernels.xmc.data import Dataset
    from alc_kernels.xmc.evaluation import Group
    from alc_kernels.xmc.model import Model

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
    from alc_kernels.xmc.baselines import TfidfBaseline
    from alc_kernels.xmc.evaluation.evaluate import evaluate_baseline

    if importlib.util.find_spec("sklearn") is None:
        note = f"no TF-IDF row: pip install 'alc-kernels[{EXTRA}]' for scikit-learn"
        print(note, file=sys.stderr)
        return None
    return evaluate_baseline(TfidfBaseline.from_dataset(dataset), dataset)


def evaluate_and_report(
    model: Model,
    config: TrainConfig,
    dataset: Dataset,
    folder: Path,
    *,
    history: Sequence[Mapping[str, float]],
    training_seconds: float | None,
) -> None:
    """Score the model and the yardstick, write the run's files, print the table.

    Raises:
        Interrupted: Ctrl-C; the message says that the trained model is safe.
    """
    from alc_kernels.xmc.evaluation import loss_name
    from alc_kernels.xmc.evaluation.evaluate import evaluate_run, save_baseline
    from alc_kernels.xmc.report.summary import comparison_text, threshold_table

    print("Scoring against the open and the closed catalogue ...", file=sys.stderr)
    try:
        group = evaluate_run(
            model,
            dataset,
            folder,
            name=loss_name(config.loss),
            config=dataclasses.asdict(config),
            history=history,
            training_seconds=training_seconds,
        )
        baseline = make_baseline(dataset)
        if baseline is not None:
            save_baseline(baseline, folder)
        groups = [group] if baseline is None else [baseline, group]
        print(comparison_text(groups))
        print(f"\nThe threshold to ship\n{threshold_table(group).text()}")
        written = [folder / "metrics.json"]
        if importlib.util.find_spec("matplotlib") is None:
            print(f"no report: pip install 'alc-kernels[{EXTRA}]'", file=sys.stderr)
        else:
            written.append(write_report(groups, group, dataset, folder))
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted while scoring; the trained model is in {folder / 'checkpoint'}, "
            f"score it with: alc evaluate {folder} --data DIR"
        ) from None
    print(f"\nWritten: {', '.join(str(path) for path in written)}")


def write_report(groups: Sequence[Group], headline: Group, dataset: Dataset, folder: Path) -> Path:
    """The run's page."""
    from alc_kernels.xmc.report.build import Report

    title = f"{dataset.name}: {headline.name}"
    page = folder / REPORT
    page.write_text(Report(title, groups, headline, dataset).html(), encoding="utf-8")
    return page
