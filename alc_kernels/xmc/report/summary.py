"""The tables of a report, over one or several groups of runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alc_kernels.xmc.evaluation.comparison import DIFFERENCES, Group, differing_settings
from alc_kernels.xmc.evaluation.measures import BY_KEY, PRECISIONS, percent
from alc_kernels.xmc.evaluation.predictions import CATALOGUES
from alc_kernels.xmc.evaluation.results import Estimate, Figures
from alc_kernels.xmc.report.numbers import (
    difference_cell,
    score_cell,
    share_cell,
    small_cell,
)
from alc_kernels.xmc.report.table import Cell, Table

HEADLINE = (
    "p1",
    "p5",
    "coverage_90",
    "coverage_95",
    "transferred_90_coverage",
    "transferred_90_precision",
)
SHORT = {
    "transferred_90_coverage": "transf. .9",
    "transferred_90_precision": "precision",
    "transferred_95_coverage": "transf. .95",
}
CATALOGUE_TITLES = {
    "open": "Open catalogue (some products are missing from it)",
    "closed": "Closed catalogue (every product is in it)",
}


def _title(key: str) -> str:
    return SHORT.get(key, BY_KEY[key].title)


def row_name(group: Group) -> Cell:
    """The group's name with its number of seeds."""
    return Cell(group.name, f"mean of {len(group.runs)} seeds" if len(group.runs) > 1 else "")


def headline_table(groups: Sequence[Group]) -> Table:
    """The figures that matter, open catalogue first; the best of the compared ones strong."""
    table = Table(
        ["", *(_title(key) for key in HEADLINE)],
        caption="In % of the test titles, with 95 % intervals. transf. .9: accepted at the "
        "threshold chosen on validation for precision .9; precision: reached there.",
    )
    contenders = [group for group in groups if not group.reference]
    for catalogue in CATALOGUES:
        table.rows.append(CATALOGUE_TITLES[catalogue])
        measured = {id(group): group.figures()[catalogue] for group in groups}
        for group in groups:
            row = [row_name(group)]
            for key in HEADLINE:
                value = measured[id(group)][key]
                rivals = [measured[id(g)][key].value for g in contenders]
                best = (
                    len(contenders) > 1
                    and not group.reference
                    and bool(BY_KEY[key].higher_is_better)
                    and value.value >= max(rivals)
                )
                row.append(share_cell(value, best))
            table.rows.append(row)
    return table


def difference_table(groups: Sequence[Group]) -> Table | None:
    """Every compared group minus the first; None when there is only one."""
    first, *others = [group for group in groups if not group.reference]
    if not others:
        return None
    table = Table(
        ["", *(_title(key) for key in DIFFERENCES)],
        caption="Percentage points with 95 % interval, paired over products; "
        "* marks an interval that leaves out zero.",
    )
    for catalogue in CATALOGUES:
        table.rows.append(CATALOGUE_TITLES[catalogue])
        for group in others:
            measured = group.difference(first)[catalogue]
            name = Cell(f"{group.name} minus {first.name}")
            table.rows.append([name, *(difference_cell(measured[key]) for key in DIFFERENCES)])
    return table


def threshold_table(group: Group) -> Table:
    """Which score to accept from, and what that gives, for the group's first run."""
    return precision_table(group.first_seed.figures(), PRECISIONS)


def precision_table(measured: Figures, precisions: Sequence[float]) -> Table:
    """The threshold per wanted precision, and its coverage and precision on test."""
    table = Table(
        ["precision wanted", "accept from score", "accepted", "precision reached"],
        caption="Threshold chosen on validation; accepted and precision reached in % on test; "
        "below each its 95 % interval.",
    )
    for catalogue in CATALOGUES:
        table.rows.append(CATALOGUE_TITLES[catalogue])
        for precision in precisions:
            key = f"transferred_{percent(precision)}"
            table.rows.append(
                [
                    Cell(f"{percent(precision)} %"),
                    score_cell(measured[catalogue][f"{key}_threshold"]),
                    share_cell(measured[catalogue][f"{key}_coverage"]),
                    share_cell(measured[catalogue][f"{key}_precision"]),
                ]
            )
    return table


def full_table(groups: Sequence[Group]) -> Table:
    """Every measure of every group, one measure per row."""
    table = Table(["", *(group.name for group in groups)], caption="Shares in %.")
    for catalogue in CATALOGUES:
        table.rows.append(CATALOGUE_TITLES[catalogue])
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
    trained = [group for group in groups if group.runs[0].config]
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
        if key in counts
    ]
    return ": ".join(part for part in (str(data.get("name", "data")), ", ".join(sizes)) if part)


def comparison_text(groups: Sequence[Group]) -> str:
    """The headline and the differences, for a terminal."""
    parts = [headline_table(groups).text()]
    differences = difference_table(groups)
    if differences is not None:
        parts.append(f"\nDifferences\n{differences.text()}")
    return "\n".join(parts)
