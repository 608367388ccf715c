"""What training commands do once the encoder is trained: score, judge, report."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.errors import BadInput, Interrupted, Missing, missing_text
from alc_kernels.trainer.evaluation.acceptance import Acceptance, Accepted, save_accepted
from alc_kernels.trainer.evaluation.comparison import Group
from alc_kernels.trainer.evaluation.predictions import Splits, save_predictions
from alc_kernels.trainer.evaluation.results import (
    BASELINE,
    BASELINE_ACCEPTANCE,
    BASELINE_NAME,
    METRICS,
    PREDICTIONS,
    REPORT,
    Kept,
    RunError,
    Scored,
    data_fingerprint,
    describe_data,
    save_results,
)
from alc_kernels.trainer.evaluation.scoring import (
    TfidfBaseline,
    device_of,
    score_model,
    score_ranker,
)
from alc_kernels.trainer.evaluation.search import SharedSearch, TextModel
from alc_kernels.trainer.parallel.processes import ALONE, Processes

if TYPE_CHECKING:
    from torch import Tensor

    from alc_kernels.trainer.config import TrainConfig
    from alc_kernels.trainer.training.checkpoint import Checkpoint

EXTRA = "trainer"

# Score a trained encoder once and leave the result in its run folder.


class Evaluation:
    """Scores runs, and the yardstick that stands beside them, on one data set.

    Args:
        dataset: texts and relations.
        acceptance: kind of the acceptance models, see ``fit_acceptance``.
        processes: with several, all make one; the first one fits and writes.
    """

    def __init__(
        self, dataset: Dataset, acceptance: str = "auto", processes: Processes = ALONE
    ) -> None:
        self.dataset, self.kind, self.processes = dataset, acceptance, processes
        self.fingerprint = data_fingerprint(dataset)

    @cached_property
    def acceptance(self) -> Acceptance | str:
        """What fits acceptance models, or why there are none."""
        if self.kind == "none":
            return "no acceptance model, as asked for"
        for package, name in (("sklearn", "scikit-learn"), ("lightgbm", "")):
            if importlib.util.find_spec(package) is None:
                return f"no acceptance model: pip install 'alc-kernels[{EXTRA}]' for " + (
                    name or package
                )
        return Acceptance(self.dataset)

    def run(
        self,
        model: TextModel,
        folder: Path,
        *,
        name: str,
        config: Mapping[str, Any],
        history: Sequence[Mapping[str, float]] = (),
        training_seconds: float | None = None,
    ) -> Group:
        """Score ``model``; write predictions, acceptance model and ``metrics.json``, in that order.

        While they are written there is no ``metrics.json``: without it nobody takes the others for
        results.

        Args:
            model: trained.
            folder: of the run.
            name: what reports call the run.
            config, history, training_seconds: how it was trained; kept beside the figures. Labels
                are ranked in as many parts as ``label_shards`` says.

        Raises:
            RunError: the model gives numbers that are not finite.
        """
        start = time.perf_counter()
        shared = SharedSearch(model, self.processes, config.get("label_shards", 1))
        try:
            labels = shared.encode_labels(self.dataset.labels)
            predictions = score_model(shared, self.dataset, labels)
        except ValueError as error:
            raise RunError(f"{folder}: the model cannot be scored: {error}") from error
        seconds = {"evaluation": time.perf_counter() - start}
        accepted: Accepted | str = ""
        if self.processes.is_main:
            start = time.perf_counter()
            accepted = self._accepted(model, labels)
            seconds["acceptance model"] = time.perf_counter() - start
        if training_seconds is not None:
            seconds = {"training": training_seconds, **seconds}
        told = accepted if isinstance(accepted, str) else accepted.reason
        scored = Scored(
            name, predictions, self.fingerprint, describe_data(self.dataset, self.fingerprint),
            config, list(history), seconds, accepted=_used(accepted), acceptance=told,
        )  # fmt: skip
        group = Group(name, [scored])
        if self.processes.is_main:
            (folder / METRICS).unlink(missing_ok=True)
            save_predictions(folder / PREDICTIONS, predictions, self.fingerprint)
            save_accepted(Kept(folder), accepted, self.fingerprint)
            save_results(folder / METRICS, group.figures(), scored)
        return group

    def _accepted(self, model: TextModel | None, labels: Tensor | None = None) -> Accepted | str:
        """An acceptance model, of TF-IDF alone without a model; or why there is none."""
        acceptance = self.acceptance
        if isinstance(acceptance, str):
            return acceptance
        encode = None if model is None else model.encode_queries
        try:
            return acceptance.fit(encode, labels, kind=self.kind, device=device_of(model))
        except ValueError as error:
            return f"no acceptance model, the score decides: {error}"

    def baseline(self) -> Group | None:
        """The yardstick's predictions, TF-IDF; None, with a note, without scikit-learn."""
        if importlib.util.find_spec("sklearn") is None:
            note = f"no TF-IDF row: pip install 'alc-kernels[{EXTRA}]' for scikit-learn"
            print(note, file=sys.stderr)
            return None
        predictions = score_ranker(TfidfBaseline.from_dataset(self.dataset), self.dataset)
        self._baseline = self._accepted(None)
        scored = Scored(
            BASELINE_NAME, predictions, self.fingerprint,
            describe_data(self.dataset, self.fingerprint), accepted=_used(self._baseline),
        )  # fmt: skip
        return Group(BASELINE_NAME, [scored], reference=True)

    def save_baseline(self, baseline: Group, folder: Path) -> None:
        """Keep the yardstick beside a run, so that comparisons can show it."""
        save_predictions(folder / BASELINE, baseline.runs[0].predictions, self.fingerprint)
        save_accepted(Kept(folder, BASELINE_ACCEPTANCE), self._baseline, self.fingerprint)


def _used(accepted: Accepted | str) -> Splits | None:
    """The predictions of an acceptance model; None where the score decides."""
    if isinstance(accepted, str) or accepted.model.kind == "none":
        return None
    return accepted.predictions


def require(package: str, purpose: str, name: str = "") -> None:
    """Raise :class:`Missing` unless ``package`` imports; pip knows it as ``name``."""
    if importlib.util.find_spec(package) is None:
        raise Missing(missing_text(purpose, name or package, EXTRA))


def require_matplotlib() -> None:
    """Pictures need matplotlib."""
    require("matplotlib", "the report")


def evaluate_and_report(
    model: TextModel,
    config: TrainConfig,
    dataset: Dataset,
    folder: Path,
    *,
    history: Sequence[Mapping[str, float]],
    training_seconds: float | None,
    processes: Processes = ALONE,
) -> None:
    """Score the model and the yardstick, write the run's files, print the table.

    With several processes all call it; they score together, and the first one does the rest.

    Raises:
        Interrupted: Ctrl-C; the message says that the trained model is safe.
    """
    from alc_kernels.trainer.evaluation.comparison import decision_rules, loss_name, method_name
    from alc_kernels.trainer.evaluation.decision import decide
    from alc_kernels.trainer.report.certificates import acceptance_notes, certificate_table
    from alc_kernels.trainer.report.decision import decision_paragraphs, figures_text
    from alc_kernels.trainer.report.table import WIDTH

    evaluation = Evaluation(dataset, config.acceptance, processes)
    names = " and the ".join(dataset.catalogues())
    if processes.is_main:
        print(f"Scoring against the {names} catalogue ...", file=sys.stderr)
    try:
        group = evaluation.run(
            model,
            folder,
            name=f"{method_name(config.method)} {loss_name(config.loss)}",
            config=dataclasses.asdict(config),
            history=history,
            training_seconds=training_seconds,
        )
        if not processes.is_main:
            return
        baseline = evaluation.baseline()
        if baseline is not None:
            evaluation.save_baseline(baseline, folder)
        groups = decision_rules([group] if baseline is None else [baseline, group])
        print(figures_text(groups))
        print(f"\nCertificates\n{certificate_table(groups).text()}")
        for text in [*acceptance_notes(groups), *decision_paragraphs(decide(groups))]:
            print(f"\n{textwrap.fill(text, WIDTH)}")
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

    trained = next(group for group in groups if not group.reference)
    title = f"{dataset.name}: {trained.name}"
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
