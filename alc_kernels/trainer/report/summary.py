"""The tables of a report, over one or several groups of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alc_kernels.trainer.data.inspect import ENOUGH
from alc_kernels.trainer.errors import counted
from alc_kernels.trainer.evaluation.comparison import Group, differing_settings
from alc_kernels.trainer.evaluation.judged import BY_KEY, Estimate
from alc_kernels.trainer.evaluation.predictions import Splits, leading_catalogue
from alc_kernels.trainer.evaluation.results import COSINE
from alc_kernels.trainer.report.table import Cell, Table

CATALOGUE_TITLES = {
    "open": "Open catalogue (some products are missing from it)",
    "closed": "Closed catalogue (every product is in it)",
}
CATALOGUE_NAMES = {"open": "Open catalogue", "closed": "Closed catalogue"}

# What validation and test titles support, in words: a promise goes no further than they do.


def titles_text(validation: int) -> str:
    """The number of validation titles, and whether they are enough to choose a threshold on."""
    few = (
        ""
        if validation >= ENOUGH
        else (f" (that is few: {ENOUGH} are wanted to choose a threshold)")
    )
    return f"{counted(validation, 'validation titles', 'validation title')}{few}"


def without_right_label(predictions: Splits, catalogue: str) -> int:
    """How many test titles have no right label in the catalogue."""
    return int((~predictions[catalogue]["test"].answerable).sum())


def catalogue_title(predictions: Splits, catalogue: str) -> str:
    """The heading of a catalogue's rows: whether every title has a right label in it."""
    missing = without_right_label(predictions, catalogue)
    if catalogue == "open" or not missing:
        return CATALOGUE_TITLES[catalogue]
    return (
        f"Closed catalogue (every label is a candidate; {missing:,} of "
        f"{len(predictions[catalogue]['test']):,} test titles have no right one)"
    )


def catalogues_text(predictions: Splits) -> str:
    """The catalogues that a run was scored against, for its page."""
    missing = without_right_label(predictions, "closed")
    if missing:
        number = f"{missing:,} of {len(predictions['closed']['test']):,} test titles"
        closed = f"every label is a candidate, but {number} have no right one and must be rejected"
    else:
        closed = "every product is present"
    if "open" in predictions:
        return (
            "Each model is scored twice. In the open catalogue some products are missing, so their "
            "titles have no right answer and must be rejected: that is what a catalogue is like in "
            f"use. In the closed one {closed}."
        )
    return (
        f"No product is held out in these data, so there is the closed catalogue only: {closed}. "
        "In use, titles of products that are missing from the catalogue lower precision."
    )


# How figures are written for people.


NONE = "\u2013"  # en dash, also between the ends of an interval
MINUS = "\u2212"


def per_cent(value: float | None, digits: int = 1) -> str:
    """0.6234 -> ``62.3``; the per cent sign stands in the caption."""
    return NONE if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}"


def score(value: float | None) -> str:
    """A similarity or threshold."""
    if value is None or math.isnan(value):
        return NONE
    return f"{value:.3f}" if math.isfinite(value) else "none"


def points(value: float) -> str:
    """A difference in percentage points, with its sign."""
    return NONE if not math.isfinite(value) else f"{100 * value:+.1f}".replace("-", MINUS)


def span(e: Estimate, write: Callable[[float], str]) -> str:
    """The interval of a figure; nothing where there is none."""
    return "" if math.isnan(e.low) else f"{write(e.low)}{NONE}{write(e.high)}"


def share_cell(e: Estimate, strong: bool = False) -> Cell:
    """A share with its interval below."""
    return Cell(per_cent(e.value), span(e, per_cent), strong)


def score_cell(e: Estimate) -> Cell:
    """A threshold with its interval below, where there is one."""
    return Cell(score(e.value), span(e, score) if math.isfinite(e.value) else "")


def small_cell(e: Estimate) -> Cell:
    """A figure much below 1, such as AURC."""
    if math.isnan(e.value):
        return Cell(NONE)
    return Cell(f"{e.value:#.3g}", span(e, "{:#.3g}".format))  # with trailing zeros


def difference_cell(e: Estimate) -> Cell:
    """A difference with its interval below; strong and starred when that leaves out zero."""
    clear = e.low > 0 or e.high < 0
    small = "" if math.isnan(e.low) else f"{points(e.low)} to {points(e.high)}"
    return Cell(points(e.value) + ("*" if clear else ""), small, clear)


def duration(seconds: float) -> str:
    """``95`` -> ``1 min 35 s``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


HEADLINE = (
    "p1",
    "coverage_90",
    "coverage_95",
    "certified_90_coverage",
    "certified_90_precision",
)
RANKING = (
    "p1_answerable",
    "p3",
    "p5",
    "ndcg3",
    "ndcg5",
    "psp1",
    "psp3",
    "psp5",
    "recall5",
    "recall10",
)
RANKING_SHORT = ("p1_answerable", "p3", "p5", "ndcg5", "psp1", "psp3", "psp5")  # fit a terminal
DIFFERENCES = (
    "coverage_90",
    "coverage_95",
    "p1",
    "certified_90_coverage",
    "certified_95_coverage",
)
SHORT = {
    "p1_answerable": "P@1 ans.",
    "certified_90_precision": "right",
}


def _title(key: str) -> str:
    return SHORT.get(key, BY_KEY[key].title)


def validation_titles(predictions: Splits) -> str:
    """How many validation titles there are, and whether they are enough."""
    return titles_text(len(predictions[leading_catalogue(predictions)]["validation"]))


def row_name(group: Group) -> Cell:
    """The group's name with its number of seeds."""
    return Cell(group.name, f"mean of {len(group.runs)} seeds" if len(group.runs) > 1 else "")


def _by_catalogue(
    groups: Sequence[Group], header: Sequence[str], caption: str,
    cells: Callable[[str, Group], list[Cell]],
) -> Table:  # fmt: skip
    """A row per group under the heading of each catalogue."""
    table = Table(["", *header], caption=caption)
    for catalogue in groups[0].catalogues:
        table.rows.append(catalogue_title(groups[0].runs[0].predictions, catalogue))
        table.rows += [cells(catalogue, group) for group in groups]
    return table


def headline_table(groups: Sequence[Group]) -> Table:
    """The figures that matter, open catalogue first; the best of each strong."""
    return _figures_table(
        groups,
        HEADLINE,
        "In % of the test titles, with 95 % intervals. certified .9: accepted from the score that "
        "validation certifies for precision .9; right: the right ones among those.",
    )


def ranking_table(groups: Sequence[Group], keys: Sequence[str] = RANKING) -> Table:
    """The measures of the whole ranking, in use for extreme classification."""
    caption = (
        "In %, over the test titles that have a right answer, with 95 % intervals. PSP: rare "
        "products count for more; nDCG and PSP are relative to the best attainable."
    )
    test = groups[0].runs[0].predictions["closed"]["test"]
    if test.num_positives.max(initial=0) == 1:
        caption += (
            " No title has more than one right label, so P@3 is at most 33.3 and P@5 at most 20.0."
        )
    return _figures_table(groups, keys, caption)


def risk_table(groups: Sequence[Group]) -> Table:
    """AURC and OPIS: what no single threshold shows."""
    keys = ("aurc", "opis")
    return _by_catalogue(
        groups,
        [_title(key) for key in keys],
        "Lower is better. AURC: mean error rate among the accepted, over all thresholds, "
        "with its 95 % interval. OPIS: how much one threshold's utility differs between products, "
        "of those with 20 right and 20 wrong best matches; a dash where there are none such.",
        lambda catalogue, group: [
            row_name(group), *(small_cell(group.figures()[catalogue][key]) for key in keys)
        ],
    )  # fmt: skip


def _figures_table(groups: Sequence[Group], keys: Sequence[str], caption: str) -> Table:
    def cells(catalogue: str, group: Group) -> list[Cell]:
        made = [row_name(group)]
        for key in keys:
            figure, best = group.figures()[catalogue][key], None
            if BY_KEY[key].higher_is_better:
                best = best_of([one.figures()[catalogue][key].value for one in groups])
            made.append(share_cell(figure, per_cent(figure.value) == best))
        return made

    return _by_catalogue(groups, [_title(key) for key in keys], caption, cells)


def best_of(values: Sequence[float]) -> str | None:
    """The largest share as it is written, yardsticks included; None where there is one only."""
    known = [value for value in values if not math.isnan(value)]
    return per_cent(max(known)) if len(values) > 1 and known else None


def difference_table(groups: Sequence[Group], keys: Sequence[str] = DIFFERENCES) -> Table | None:
    """Every compared group minus the first; None when there is only one."""
    first, *others = [group for group in groups if not group.reference]
    if not others:
        return None
    caption = (
        "Percentage points with 95 % interval, paired over products; * marks an interval that "
        "leaves out zero."
    )

    def cells(catalogue: str, group: Group) -> list[Cell]:
        measured = group.difference(first)[catalogue]
        name = Cell(f"{group.name} minus {first.name}")
        return [name, *(difference_cell(measured[key]) for key in keys)]

    return _by_catalogue(others, [_title(key) for key in keys], caption, cells)


def seed_text(group: Group) -> str:
    """Which seed is the one to ship; nothing where there is one run only."""
    if len(group.runs) == 1:
        return ""
    return f"seed {group.shipped.runs[0].config.get('seed', '?')}"


def full_table(groups: Sequence[Group]) -> Table:
    """Every measure of every group, one measure per row."""
    table = Table(["", *(group.name for group in groups)], caption="Shares in %.")
    for catalogue in groups[0].catalogues:
        table.rows.append(catalogue_title(groups[0].runs[0].predictions, catalogue))
        measured = [group.figures()[catalogue] for group in groups]
        for key, measure in BY_KEY.items():
            write: Callable[[Estimate], Cell] = share_cell
            if key in ("aurc", "opis"):
                write = small_cell
            elif key.endswith("_threshold"):
                write = score_cell
            table.rows.append([Cell(measure.title), *(write(m[key]) for m in measured)])
    return table


def settings_table(groups: Sequence[Group]) -> Table | None:
    """The settings in which the groups differ."""
    trained = [group for group in groups if group.runs[0].config and group.rule == COSINE]
    rows = differing_settings([group.runs[0].config for group in trained])
    if not rows:
        return None
    table = Table(["setting", *(group.name for group in trained)], prose=True)
    table.rows += [[name, *(str(value) for value in values)] for name, values in rows.items()]
    return table


def data_line(data: Mapping[str, Any]) -> str:
    """Name and sizes of the data, in one line."""
    counts = data.get("counts", {})
    sizes = [
        f"{counts[key]:,} {word}"
        for key, word in (
            ("train", "training titles"),
            ("validation", "validation titles"),
            ("test", "test titles"),
            ("labels", "products"),
            ("held_out", "of them missing from the open catalogue"),
        )
        if counts.get(key)
    ]
    return ": ".join(part for part in (str(data.get("name", "data")), ", ".join(sizes)) if part)
