"""What a loss does to scores: histograms of runs side by side, and the figures behind them.

    python experiments/score_distributions.py --data DATA --output scores.png \\
        base=RUNS/base_0 "published TCM"=RUNS/tcm_published_0 ...

Left, validation titles: the score of the best match where it is right, where it is wrong though
the product is in the catalogue, and where the product is missing. Right, the training batches of
the last epoch as the trained model scores them: positives and each row's hardest negative, beside
the margins of TCM. No test title is looked at.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alc_kernels.metrics import coverage_at_precision
from alc_kernels.trainer.data import Dataset, load_dataset
from alc_kernels.trainer.evaluation import load_scored
from alc_kernels.trainer.evaluation.predictions import leading_catalogue
from alc_kernels.trainer.training.checkpoint import checkpoint_folder, load_checkpoint
from alc_kernels.trainer.training.sampler import Batch, Sampler
from alc_kernels.trainer.training.training_set import TrainingSet

KINDS = ("right", "wrong", "missing from the catalogue")
COLOURS = ("#0072b2", "#d55e00", "#7a8594")  # Okabe and Ito's, and grey
RANGE = (0.0, 1.0)


@dataclass
class Distribution:
    """The scores of one run.

    Attributes:
        name: of the run.
        best: kind of :data:`KINDS` -> scores of the best match, validation, open catalogue.
        positives: (P,) scores of all positive pairs of the training batches.
        hardest: (N,) score of each training row's hardest negative.
        margins: (positive, negative) of TCM, also for runs without it.
        active: per batch (batches, 4): rows, positives at or below their margin, negatives at or
            above theirs, rows whose hardest negative is.
        alike: shares of words that the name of a row's first positive has in common with that of
            a negative (Jaccard): (A,) active negatives, (N,) hardest negatives.
    """

    name: str
    best: dict[str, np.ndarray]
    positives: np.ndarray
    hardest: np.ndarray
    margins: tuple[float, float]
    active: np.ndarray
    alike: tuple[np.ndarray, np.ndarray]


def best_matches(folder: Path) -> dict[str, np.ndarray]:
    """Scores of the best match of every validation title, by kind."""
    predictions = load_scored(folder).predictions
    found = predictions[leading_catalogue(predictions)]["validation"]
    right, answerable = found.correct, found.answerable
    parts = (right, ~right & answerable, ~right & ~answerable)
    return {kind: found.top_score[part] for kind, part in zip(KINDS, parts, strict=True)}


def batch_scores(
    batch: Batch, data: TrainingSet, model: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (B, M) of a batch, and which of them are positives and negatives."""
    numbers = torch.from_numpy(batch.labels).to(next(model.parameters()).device)
    queries, _, labels = model(
        data.select(batch.queries, batch.labels), len(batch.queries), numbers
    )
    queries, labels = (torch.nn.functional.normalize(v.float()) for v in (queries, labels))
    shape = len(batch.queries), len(batch.labels)
    positive = marked(batch.crow, batch.col, shape)
    negative = ~positive
    if batch.excluded_crow is not None and batch.excluded_col is not None:
        negative &= ~marked(batch.excluded_crow, batch.excluded_col, shape)
    return (queries @ labels.T).cpu().numpy(), positive, negative


def marked(crow: np.ndarray, col: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(B, M) bool of a CSR relation."""
    made = np.zeros(shape, bool)
    made[np.repeat(np.arange(shape[0]), np.diff(crow)), col] = True
    return made


@torch.no_grad()
def distribution(name: str, folder: Path, dataset: Dataset) -> Distribution:
    """Everything about one run."""
    checkpoint = load_checkpoint(checkpoint_folder(folder))
    config, model = checkpoint.config, checkpoint.model.eval()
    data = TrainingSet(dataset, config)
    data.tokenize(model.encoder)
    sampler = Sampler(data.relation, data.queries, config, data.excluded, candidates=data.label_ids)
    epoch = config.epochs - 1
    due = epoch - epoch % config.refresh_every
    if sampler.needs_snapshot(due):
        sampler.refresh(due, data.snapshot(model, nullcontext()))
    margins = config.positive_margin, config.negative_margin
    words = [set(text.lower().split()) for text in dataset.labels]
    positives, hardest, active, alike = [], [], [], ([], [])
    for batch in sampler.batches(epoch):
        scores, positive, negative = batch_scores(batch, data, model)
        positives.append(scores[positive])
        hardest.append(np.where(negative, scores, -np.inf).max(axis=1))
        matched = np.flatnonzero(np.diff(batch.crow))  # rows with a positive
        first = dict(zip(matched, batch.labels[batch.col[batch.crow[matched]]], strict=True))
        pairs = (
            np.nonzero(negative & (scores >= margins[1])),
            (np.arange(len(scores)), np.where(negative, scores, -np.inf).argmax(axis=1)),
        )
        for found, (rows, columns) in zip(alike, pairs, strict=True):
            for row, wrong in zip(rows, batch.labels[columns], strict=True):
                if row in first:
                    right = words[first[row]]
                    found.append(len(right & words[wrong]) / len(right | words[wrong]))
        active.append(
            (
                len(scores),
                (positives[-1] <= margins[0]).sum(),
                (negative & (scores >= margins[1])).sum(),
                (hardest[-1] >= margins[1]).sum(),
            )
        )
    return Distribution(
        name,
        best_matches(folder),
        np.concatenate(positives),
        np.concatenate(hardest),
        margins,
        np.array(active),
        (np.array(alike[0]), np.array(alike[1])),
    )


def separation(above: np.ndarray, below: np.ndarray) -> float:
    """How often a score of the first kind exceeds one of the second (area under the ROC curve)."""
    order = np.sort(below)
    less = np.searchsorted(order, above, "left") + np.searchsorted(order, above, "right")
    return float(less.mean() / 2 / len(below))


def table(runs: list[Distribution]) -> str:
    """The figures, one column per run."""
    width = max(12, *(len(run.name) for run in runs))
    rows: dict[str, list[str]] = {}

    def add(label: str, value: str) -> None:
        rows.setdefault(label, []).append(value)

    for run in runs:
        right, *others = (run.best[kind] for kind in KINDS)
        wrong = np.concatenate(others)
        scores = np.concatenate([right, wrong])
        correct = np.arange(len(scores)) < len(right)
        for kind in KINDS:
            found = run.best[kind] if len(run.best[kind]) else [np.nan]
            low, middle, high = np.quantile(found, (0.1, 0.5, 0.9))
            add(f"best match, {kind}: median", f"{middle:.2f}")
            add(f"best match, {kind}: 10-90 %", f"{low:.2f}-{high:.2f}")
        add("right above wrong, % of the pairs", f"{100 * separation(right, wrong):.1f}")
        top = np.sort(scores)[-len(scores) // 4 :][0]
        add("wrong in the best quarter", f"{(wrong >= top).sum()}")
        for precision in (0.9, 0.95):
            value = coverage_at_precision(scores, correct, precision)
            add(f"coverage at {100 * precision:.0f} %", f"{100 * value:.1f}")
        _, below, above, rows_above = run.active.mean(axis=0)
        add("training positive: median", f"{np.median(run.positives):.2f}")
        add("training positive: 5 %", f"{np.quantile(run.positives, 0.05):.2f}")
        add("training hardest negative: median", f"{np.median(run.hardest):.2f}")
        add("training hardest negative: 99 %", f"{np.quantile(run.hardest, 0.99):.2f}")
        share = (run.positives <= run.margins[0]).mean()
        add("active positives, % of all", f"{100 * share:.1f}")
        add("active positives per batch", f"{below:.0f}")
        add("active negatives per batch", f"{above:.0f}")
        add("rows with an active negative per batch", f"{rows_above:.0f}")
        for kind, shared in zip(("active", "hardest"), run.alike, strict=True):
            share = np.mean(shared >= 0.5) if len(shared) else np.nan
            add(f"{kind} negatives, half the name's words shared, %", f"{100 * share:.1f}")
        # One active negative pulls with 1 / active in the published form, 1 / rows in ours.
        ratio = (run.active[:, 0] / np.maximum(run.active[:, 2], 1)).mean()
        add("weight of one negative, published : rows", f"{ratio:.1f}")
    label_width = max(map(len, rows))
    lines = [" " * label_width + "".join(f"  {run.name:>{width}}" for run in runs)]
    lines += [
        f"{label:{label_width}}" + "".join(f"  {value:>{width}}" for value in values)
        for label, values in rows.items()
    ]
    return "\n".join(lines)


def draw(runs: list[Distribution], path: Path) -> None:
    """One row of two histograms per run, all on the same axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 1.75 * len(runs) + 0.6), layout="constrained")
    axes: Any = figure.subplots(len(runs), 2, sharex=True, squeeze=False)
    edges = np.linspace(*RANGE, 61)
    for (left, right), run in zip(axes, runs, strict=True):
        shown = [np.clip(run.best[kind], *RANGE) for kind in KINDS]
        left.hist(shown, edges, stacked=True, color=COLOURS, label=KINDS)
        left.set_ylabel(run.name)
        for values, colour, label in (
            (run.positives, COLOURS[0], "positive"),
            (run.hardest, COLOURS[1], "hardest negative of a row"),
        ):
            right.hist(np.clip(values, *RANGE), edges, color=colour, alpha=0.7, label=label)
        for margin, colour in zip(run.margins, COLOURS, strict=False):
            right.axvline(margin, color=colour, linewidth=1, linestyle="--")
        for axis in (left, right):
            axis.set_xlim(*RANGE)
            axis.set_yticks([])
            axis.set_ylim(0, 1.15 * axis.get_ylim()[1])
            axis.spines[["top", "right", "left"]].set_visible(False)
    axes[0][0].set_title("validation titles: best match", fontsize=11)
    axes[0][1].set_title("training batches of the last epoch", fontsize=11)
    axes[0][0].legend(frameon=False, fontsize=8, loc="upper left")
    axes[0][1].legend(frameon=False, fontsize=8, loc="upper center")
    for axis in axes[-1]:
        axis.set_xlabel("cosine")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, metavar="PNG")
    arguments = parser.parse_args()
    named = [text.partition("=") for text in arguments.runs]
    for name, sign, folder in named:
        if not (name and sign and Path(folder).is_dir()):
            sys.exit(f"{name}{sign}{folder}: expected NAME=RUN with the folder of a run")
    dataset = load_dataset(arguments.data)
    runs = [distribution(name, Path(folder), dataset) for name, _, folder in named]
    print(table(runs))
    draw(runs, arguments.output)


if __name__ == "__main__":
    main()
