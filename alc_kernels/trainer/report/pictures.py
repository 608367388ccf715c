"""From groups of runs to the pictures of a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alc_kernels.trainer.evaluation.comparison import Group
from alc_kernels.trainer.evaluation.judged import curve_band, percent
from alc_kernels.trainer.report import figures as draw
from alc_kernels.trainer.report.page import CATALOGUE_NAMES, Html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BANDS = 4  # with more curves than this, only the headline and the first get a band
DRAWN = 6  # of more groups, the best on validation and the first are drawn


def drawn_groups(groups: Sequence[Group], precision: float) -> list[Group]:
    """Yardsticks and at most :data:`DRAWN` others, in the order given."""
    contenders = [group for group in groups if not group.reference]
    ranked = sorted(contenders[1:], key=lambda g: g.validation_coverage(precision), reverse=True)
    kept = {id(group) for group in [contenders[0], *ranked[: DRAWN - 1]]}
    return [group for group in groups if group.reference or id(group) in kept]


def _left_out(groups: Sequence[Group], shown: Sequence[Group]) -> str:
    """A sentence on the groups that are not drawn; nothing where all are."""
    if len(shown) == len(groups):
        return ""
    return f" Drawn are the first group and the {DRAWN - 1} best on validation."


def curve_panels(
    groups: Sequence[Group], headline: Group, precision: float
) -> list[tuple[str, list[draw.Curve]]]:
    """Per catalogue its name and the curves of every group's run to ship."""
    contenders = [group for group in groups if not group.reference]
    banded = contenders if len(contenders) <= BANDS else [headline, contenders[0]]
    key = f"transferred_{percent(precision)}"
    panels = []
    for catalogue in headline.catalogues:
        curves = []
        for group in groups:
            band = curve_band(group.shipped.runs[0].predictions[catalogue])
            point = group.shipped.points()[catalogue]
            curves.append(
                draw.Curve(
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
    return draw.coverage_figure(curve_panels(groups, headline, precision), precision)


def coverage_picture(groups: Sequence[Group], headline: Group, precision: float) -> Html:
    """The panels on the page."""
    shown = drawn_groups(groups, precision)
    names = ", ".join(group.name for group in shown)
    caption = (
        "From left to right more titles are accepted, and precision falls. Bands: 95 % intervals. "
        f"Dots: the thresholds chosen on validation for precision {percent(precision)} %, what "
        "each model really gives. Higher and further to the right is better."
    )
    caption += _left_out(groups, shown)
    if any(len(group.runs) > 1 for group in shown):
        caption += " Of several seeds the best on validation is drawn."
    drawn = [
        (
            draw.coverage_figure([panel], precision),
            f"{panel[0]}: precision over coverage of {names}",
        )
        for panel in curve_panels(shown, headline, precision)
    ]
    return draw.picture(drawn, caption)


def histograms_picture(groups: Sequence[Group], precision: float) -> Html:
    """Right and wrong scores of every group that is no yardstick."""
    drawn = []
    chosen = drawn_groups(groups, precision)
    for group in chosen:
        if group.reference:
            continue
        shipped = group.shipped
        test = shipped.runs[0].predictions[shipped.leading]["test"]
        threshold = shipped.points()[shipped.leading][f"transferred_{percent(precision)}_threshold"]
        panel = draw.Scores(group.name, test.top_score, test.correct, threshold)
        drawn.append(
            (
                draw.histogram_figure(panel),
                f"Histograms of {group.name}'s best scores, right and wrong matches apart",
            )
        )
    leading = CATALOGUE_NAMES[groups[0].leading]
    return draw.picture(
        drawn,
        f"{leading}, test titles. The better right (filled) and wrong (hatched) matches come "
        "apart, the more can be accepted; the line is the threshold chosen on validation for "
        f"precision {percent(precision)} %.{_left_out(groups, chosen)}",
    )


def history_picture(group: Group) -> Html | None:
    """Training loss per epoch of the run to ship; None where it is not known."""
    history = group.shipped.runs[0].history
    losses = [(r["epoch"], r["loss"]) for r in history if "epoch" in r and "loss" in r]
    if len(losses) < 2:
        return None
    epochs, values = zip(*losses, strict=True)
    words = f"Training loss of {group.name}, per epoch."
    return draw.picture([(draw.history_figure(epochs, values), words)], words)
