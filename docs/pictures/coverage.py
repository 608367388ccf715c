"""Draw the pictures of docs/coverage.md from generated scores: python docs/pictures/coverage.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from alc_kernels.metrics import precision_coverage_curve, threshold_at_precision

HERE = Path(__file__).parent
plt.switch_backend("Agg")
plt.rcParams.update({"svg.hashsalt": "alc_kernels", "font.size": 10})
RIGHT, WRONG = "#3949ab", "#ef6c00"


def scores(gap: float, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Top-1 scores of 10,000 queries, 80 % right; wrong ones are ``gap`` lower on average."""
    rng = np.random.default_rng(0)
    correct = rng.random(10_000) < 0.8
    return np.where(correct, 0.8, 0.8 - gap) + spread * rng.standard_normal(10_000), correct


def main() -> None:
    """Write scores.svg and curves.svg."""
    models = {"A: overlapping": scores(0.15, 0.10), "B: separated": scores(0.30, 0.10)}
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True)
    bins = np.linspace(0.2, 1.2, 61)
    for axis, (name, (score, correct)) in zip(axes, models.items(), strict=True):
        threshold = threshold_at_precision(score, correct, 0.95)
        axis.hist(score[correct], bins, color=RIGHT, alpha=0.7, label="right")
        axis.hist(score[~correct], bins, color=WRONG, alpha=0.7, label="wrong")
        axis.axvline(threshold, color="black", linestyle="--", linewidth=1)
        share = (score >= threshold).mean()
        axis.set(title=f"{name}: {share:.0%} accepted", xlabel="top-1 score")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("queries")
    axes[0].legend(frameon=False)
    figure.savefig(HERE / "scores.svg", bbox_inches="tight", metadata={"Date": None})

    figure, axis = plt.subplots(figsize=(5.5, 3))
    for (name, (score, correct)), colour in zip(models.items(), (WRONG, RIGHT), strict=True):
        curve = precision_coverage_curve(score, correct)
        axis.plot(curve.coverage, curve.precision, color=colour, label=name)
    axis.axhline(0.95, color="black", linestyle="--", linewidth=1)
    axis.set(xlabel="coverage: share accepted", ylabel="precision", ylim=(0.75, 1.01), xlim=(0, 1))
    axis.legend(frameon=False, loc="lower left")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "curves.svg", bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
