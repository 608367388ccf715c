"""The pictures: precision over coverage, and the scores of right and wrong answers.

Colours are Okabe and Ito's, and no colour stands alone: lines differ in dash and carry a label,
histograms differ in hatching. matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alc_kernels.trainer.evaluation.comparison import Group
from alc_kernels.trainer.evaluation.judged import curve_band, percent
from alc_kernels.trainer.report.summary import CATALOGUE_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, INK = "#0072b2", "#d55e00", "#7a8594", "#1b2430"
LINES = (
    (BLUE, "-"),
    (ORANGE, (0, (6, 1.6))),
    ("#009e73", (0, (1.2, 1.2))),
    ("#cc79a7", (0, (5, 1.5, 1, 1.5))),
    ("#56b4e9", (0, (8, 2, 2, 2))),
    ("#b8860b", (0, (3, 1))),
)
REFERENCE_LINES = ((GREY, (0, (2, 2))), (GREY, (0, (9, 2, 1, 2, 1, 2))))

_STYLE = {
    "font.size": 10.5,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": "#b9c1cb",
    "axes.labelcolor": INK,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8ecf0",
    "grid.linewidth": 0.8,
    "xtick.color": "#5b6675",
    "ytick.color": "#5b6675",
    "hatch.linewidth": 0.7,
    "svg.fonttype": "path",
    "svg.hashsalt": "alc",
}


@dataclass(frozen=True)
class Curve:
    """A precision-coverage curve.

    Attributes:
        name: its label.
        coverage, precision: (T,) the curve, coverage ascending.
        band: (low, high), each (T,), the interval of the precision; None draws none.
        mark: (coverage, precision) of the threshold to ship, or None.
        reference: a yardstick, drawn in grey.
        headline: the one to look at, drawn in the first colour without dashes.
    """

    name: str
    coverage: np.ndarray
    precision: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None = None
    mark: tuple[float, float] | None = None
    reference: bool = False
    headline: bool = False


@dataclass(frozen=True)
class Scores:
    """Top-1 scores of one run, for its histogram: (N,) scores, (N,) right, the threshold."""

    name: str
    scores: np.ndarray
    correct: np.ndarray
    threshold: float


def styles(curves: Sequence[Curve]) -> list[tuple[str, object]]:
    """The colour and dash of each curve; references are grey, the headline comes first."""
    turn, grey = itertools.cycle(LINES[1:]), itertools.cycle(REFERENCE_LINES)
    return [
        next(grey) if curve.reference else LINES[0] if curve.headline else next(turn)
        for curve in curves
    ]


def panels_figure(panels: Sequence[tuple[str, Sequence[Curve]]], target: float) -> Figure:
    """Precision over coverage, one panel per catalogue; dots are the thresholds to ship."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(_STYLE):
        figure = Figure(
            figsize=(5.2 * len(panels), 4.5), layout=ConstrainedLayoutEngine(wspace=0.06)
        )
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (title, curves) in zip(axes, panels, strict=True):
            _draw_curves(axis, title, curves, target)
        axes[0].set_ylabel("precision among the accepted")
        axes[0].set_ylim(_lowest(panels), 1.005)
        axes[0].legend(frameon=False, loc="lower left", handlelength=3.4)
    return figure


def _draw_curves(axis: Any, title: str, curves: Sequence[Curve], target: float) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    for curve, (colour, dash) in zip(curves, styles(curves), strict=True):
        if curve.band is not None:
            axis.fill_between(
                curve.coverage, *curve.band, color=colour, alpha=0.15, linewidth=0, zorder=1.5
            )
        width = 1.7 if curve.reference else 2.8 if curve.headline else 2.1
        axis.plot(
            curve.coverage, curve.precision, color=colour, linestyle=dash, linewidth=width,
            label=curve.name,
        )  # fmt: skip
        if curve.mark is not None and np.all(np.isfinite(curve.mark)):
            axis.plot(*curve.mark, "o", color=colour, markersize=8.5, markeredgecolor="w",
                      markeredgewidth=1.5, zorder=5)  # fmt: skip
    name = f"precision {100 * target:.0f} %"
    axis.axhline(target, color=INK, linewidth=0.9, zorder=1, label=name)
    axis.set(title=title, xlabel="coverage (share of all titles accepted)", xlim=(0, 1.005))
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _lowest(panels: Sequence[tuple[str, Sequence[Curve]]]) -> float:
    """Where the precision axis begins: a little below where the lowest curve ends."""
    ends = [float(curve.precision[-1]) for _, curves in panels for curve in curves]
    lowest = min([1.0, *(end for end in ends if np.isfinite(end))])
    return float(max(0.0, np.floor(lowest * 20) / 20 - 0.02))


def histogram_figure(panel: Scores) -> Figure:
    """Where the right and the wrong answers score, and where the threshold cuts."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axis: Any = figure.subplots()
        low = float(np.quantile(panel.scores, 0.002))
        high = float(panel.scores.max())
        edges = np.linspace(min(low, high - 1e-3), high, 41)
        shown = np.clip(panel.scores, edges[0], edges[-1])
        axis.hist(shown[panel.correct], edges, color=BLUE, alpha=0.75, label="right")
        axis.hist(shown[~panel.correct], edges, facecolor="none", edgecolor=ORANGE,
                  linewidth=1.3, hatch="/////", histtype="stepfilled", label="wrong")  # fmt: skip
        top = axis.get_ylim()[1]
        axis.set_ylim(0, top * 1.32)  # room for legend and threshold above the bars
        if np.isfinite(panel.threshold):
            axis.axvline(panel.threshold, 0, 0.87, color=INK, linewidth=1.4)
            right = panel.threshold < (edges[0] + edges[-1]) / 2
            text = f"accept \u2265 {panel.threshold:.3f}" + (" \u2192" if right else "")
            axis.annotate(text, (panel.threshold, top * 1.13), (5 if right else -5, -3),
                          fontsize=9.5, textcoords="offset points", va="top",
                          ha="left" if right else "right")  # fmt: skip
        axis.set(title=panel.name, xlabel="score of the best match", ylabel="test titles")
        axis.set_xlim(edges[0], edges[-1])
        axis.legend(frameon=False, loc="upper left", ncols=2)
    return figure


def history_figure(epochs: Sequence[float], loss: Sequence[float]) -> Figure:
    """The training loss per epoch."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10.4, 2.4), layout="constrained")
        axis = figure.subplots()
        axis.plot(epochs, loss, color=BLUE, linewidth=2, marker="o", markersize=4)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(xlabel="epoch", ylabel="training loss")
        axis.set_ylim(bottom=0)
    return figure


class Picture(NamedTuple):
    """Inline vector pictures, side by side where there is room.

    Attributes:
        images: the source of each, and the words that stand for it where it cannot be seen.
        caption: of all of them.
    """

    images: list[tuple[str, str]]
    caption: str


def picture(drawn: Sequence[tuple[Figure, str]], caption: str) -> Picture:
    """Figures, each with its words, as a part of a page."""
    return Picture([(_source(figure), words) for figure, words in drawn], caption)


def _source(figure: Figure) -> str:
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):  # holds the salt that makes the file repeatable
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": "alc"}
        )
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/svg+xml;base64,{code}"


# From groups of runs to the pictures of a page.


BANDS = 4  # with more curves than this, only the headline and the first get a band
DRAWN = 6  # of more groups, the best on validation and the first are drawn


def drawn_groups(groups: Sequence[Group], precision: float) -> list[Group]:
    """Yardsticks and at most :data:`DRAWN` others, in the order given."""
    contenders = [group for group in groups if not group.reference]
    ranked = sorted(contenders[1:], key=lambda g: g.merit(precision), reverse=True)
    kept = {id(group) for group in [contenders[0], *ranked[: DRAWN - 1]]}
    return [group for group in groups if group.reference or id(group) in kept]


def _left_out(groups: Sequence[Group], shown: Sequence[Group]) -> str:
    """A sentence on the groups that are not drawn; nothing where all are."""
    if len(shown) == len(groups):
        return ""
    return f" Drawn are the first group and the {DRAWN - 1} best on validation."


def curve_panels(
    groups: Sequence[Group], headline: Group, precision: float
) -> list[tuple[str, list[Curve]]]:
    """Per catalogue its name and the curves of every group's run to ship."""
    contenders = [group for group in groups if not group.reference]
    banded = contenders if len(contenders) <= BANDS else [headline, contenders[0]]
    key = f"certified_{percent(precision)}"
    panels = []
    for catalogue in headline.catalogues:
        curves = []
        for group in groups:
            band = curve_band(group.shipped.runs[0].predictions[catalogue])
            point = group.shipped.points()[catalogue]
            curves.append(
                Curve(
                    group.name,
                    band.coverage,
                    band.precision,
                    (band.low, band.high) if group in banded else None,
                    (point[f"{key}_coverage"], point[f"{key}_precision"]),
                    group.reference,
                    group is headline,
                )
            )
        panels.append((CATALOGUE_NAMES[catalogue], curves))
    return panels


def coverage_figure(groups: Sequence[Group], headline: Group, precision: float) -> Figure:
    """All panels in one figure, worth a file of its own."""
    return panels_figure(curve_panels(groups, headline, precision), precision)


def coverage_picture(groups: Sequence[Group], headline: Group, precision: float) -> Picture:
    """The panels on the page."""
    shown = drawn_groups(groups, precision)
    names = ", ".join(group.name for group in shown)
    caption = (
        "From left to right more titles are accepted, and precision falls. Bands: 95 % intervals. "
        f"Dots: the thresholds that validation certifies for precision {percent(precision)} %, "
        "what each really gives. Higher and further to the right is better."
    )
    caption += _left_out(groups, shown)
    if any(len(group.runs) > 1 for group in shown):
        caption += " Of several seeds the best on validation is drawn."
    drawn = [
        (
            panels_figure([panel], precision),
            f"{panel[0]}: precision over coverage of {names}",
        )
        for panel in curve_panels(shown, headline, precision)
    ]
    return picture(drawn, caption)


def histograms_picture(groups: Sequence[Group], precision: float) -> Picture:
    """Right and wrong scores of every group that is no yardstick."""
    drawn = []
    chosen = drawn_groups(groups, precision)
    for group in chosen:
        if group.reference:
            continue
        shipped = group.shipped
        test = shipped.runs[0].predictions[shipped.leading]["test"]
        threshold = shipped.points()[shipped.leading][f"certified_{percent(precision)}_threshold"]
        panel = Scores(group.name, test.top_score, test.correct, threshold)
        drawn.append(
            (
                histogram_figure(panel),
                f"Histograms of {group.name}'s best scores, right and wrong matches apart",
            )
        )
    leading = CATALOGUE_NAMES[groups[0].leading]
    return picture(
        drawn,
        f"{leading}, test titles. The better right (filled) and wrong (hatched) matches come "
        "apart, the more can be accepted; the line is the threshold certified on validation for "
        f"precision {percent(precision)} %.{_left_out(groups, chosen)}",
    )


def history_picture(group: Group) -> Picture | None:
    """Training loss per epoch of the run to ship; None where it is not known."""
    history = group.shipped.runs[0].history
    losses = [(r["epoch"], r["loss"]) for r in history if "epoch" in r and "loss" in r]
    if len(losses) < 2:
        return None
    epochs, values = zip(*losses, strict=True)
    words = f"Training loss of {group.name}, per epoch."
    return picture([(history_figure(epochs, values), words)], words)
