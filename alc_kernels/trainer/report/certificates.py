"""Certificates for people: what may be accepted at a precision, and what that gave on test."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from alc_kernels.trainer.evaluation.certificates import Certificate, LeastCost, certify, certify_new
from alc_kernels.trainer.evaluation.comparison import Group
from alc_kernels.trainer.evaluation.judged import PRECISIONS, Estimate, Figures, figures, percent
from alc_kernels.trainer.evaluation.predictions import Predictions, Splits, leading_catalogue
from alc_kernels.trainer.evaluation.results import ACCEPTANCE
from alc_kernels.trainer.report.summary import (
    catalogue_title,
    per_cent,
    score,
    seed_text,
    share_cell,
    validation_titles,
)
from alc_kernels.trainer.report.table import Cell, Table


class Rule(NamedTuple):
    """A run with what decides in it.

    Attributes:
        name: what to call it.
        seed: which run of several it is; empty where there is one.
        measured: its figures at the precisions asked for.
        predictions: catalogue -> split -> predictions.
    """

    name: str
    seed: str
    measured: Figures
    predictions: Splits


def rules_of(groups: Sequence[Group], precisions: tuple[float, ...] = PRECISIONS) -> list[Rule]:
    """The run to ship of every group."""
    made = []
    for group in groups:
        shipped = group.shipped
        found = shipped.runs[0].predictions
        usual = precisions == PRECISIONS
        measured = shipped.figures() if usual else figures(found, precisions, group.replicates)
        made.append(Rule(group.name, seed_text(group), measured, found))
    return made


def certificate_table(groups: Sequence[Group], precisions: tuple[float, ...] = PRECISIONS) -> Table:
    """For every group and precision: the certified threshold, and what it gives on test."""
    rules = rules_of(groups, precisions)
    table = Table(
        ["", "wanted", "accept from", "of titles", "products", "accepted on test", "right"],
        caption="Accept from: the lowest score from which the precision wanted is certified, with "
        f"95 % confidence, on {validation_titles(rules[0].predictions)}; of titles: the share of "
        "them that it accepts, and of how many products those are; where there is none, below, how "
        "many more reviewed products would certify how much. On test: the share accepted and the "
        "right ones among it, in %, with 95 % intervals. Every certificate is its own promise: the "
        "best of many is a little less sure.",
    )
    for catalogue in rules[0].predictions:
        table.rows.append(catalogue_title(rules[0].predictions, catalogue))
        for rule in rules:
            for place, precision in enumerate(precisions):
                made = certify(rule.predictions[catalogue]["validation"], precision)
                name = Cell(rule.name, rule.seed) if not place else Cell("")
                measured = rule.measured[catalogue]
                table.rows.append([name, *_cells(made, measured, precision)])
    return table


def _cells(made: Certificate, measured: Mapping[str, Estimate], precision: float) -> list[Cell]:
    wanted = Cell(f"{percent(precision)} %")
    if not made.certified:
        more, coverage = made.outlook()
        hope = "" if math.isnan(more) else f"{more:,.0f} for {per_cent(coverage, 0)} %"
        return [wanted, Cell("none", hope), Cell("0"), Cell("0"), Cell("0.0"), Cell("\u2013")]
    shares = (
        measured[f"certified_{percent(precision)}_{what}"] for what in ("coverage", "precision")
    )
    return [
        wanted,
        Cell(score(made.threshold)),
        Cell(per_cent(made.coverage)),
        Cell(f"{made.found.num_groups:,}"),
        *map(share_cell, shares),
    ]


def certificate_lines(validation: Predictions, precisions: Iterable[float]) -> list[str]:
    """A sentence per precision, the new products behind each."""
    made = []
    for precision in precisions:
        made += [
            certify(validation, precision).text(),
            new_text(certify_new(validation, precision)),
        ]
    return list(dict.fromkeys(made))


def new_text(band: Certificate | str) -> str:
    """The band of new products in words, without a full stop."""
    if isinstance(band, str):
        return band
    rest = f"{100 * (1 - band.found.precision):.10g}"
    if not band.certified:
        return (
            f"at {100 * band.found.precision:.10g} %: no title can be called new: no band of low "
            f"scores has at most {rest} % of products that the catalogue has"
        )
    return (
        f"at {100 * band.found.precision:.10g} %: new below {-band.threshold:.3f}, "
        f"{100 * band.coverage:.0f} % of titles, of which at most {rest} % are in the catalogue, "
        f"certified with {100 * band.found.confidence:.10g} % confidence on "
        f"{band.found.num_groups:,} products"
    )


def acceptance_notes(groups: Sequence[Group]) -> list[str]:
    """Which acceptance model decides, or why none does; a line each, yardsticks left out."""
    made = []
    for group in groups:
        for run in group.runs:
            if group.reference or run.rule == ACCEPTANCE:
                continue
            told = run.acceptance or (
                "an acceptance model beside it"
                if run.accepted is not None
                else "no acceptance model, the cosine decides: scored by a version without one; "
                f"alc evaluate {run.folder or 'RUN'} --data DIR fits one"
            )
            made.append(f"{run.name}: {told}")
    return made


def cost_lines(name: str, found: Mapping[str, Predictions], least: LeastCost) -> list[str]:
    """The threshold of least cost, what it costs on validation and on test."""
    if math.isinf(least.threshold):
        accept = "accept nothing, a look at every title costs least"
    else:
        low, high = (score(one) for one in least.thresholds)
        accept = (
            f"accept from {score(least.threshold)} (between {low} and {high}), "
            f"{100 * least.coverage:.0f} % of titles"
        )
    return [
        f"{name}, a wrong match at {least.wrong:g}, a look at {least.review:g}: {accept}",
        f"  cost per title: {least.cost:.3f} on validation ({least.low:.3f} to {least.high:.3f}), "
        f"{least.of(found['test']):.3f} on test, {least.review:.3f} with a look at every title",
    ]


def category_table(
    found: Mapping[str, Certificate], test: Predictions, categories: Sequence[str]
) -> Table:
    """A certified threshold for each category, and what it gives on the test titles of it.

    Args:
        found: category -> certificate, of one precision.
        test: predictions of n titles.
        categories: their n categories.
    """
    names = np.array([str(one) for one in categories])
    table = Table(
        ["category", "titles", "accept from", "of titles", "accepted on test", "right"],
        caption="* too few titles for a threshold of its own: the threshold of all, whose promise "
        "holds over all categories together.",
    )
    for name, made in found.items():
        own = names == name
        accept = own & (test.top_score >= made.threshold)
        shared = math.isfinite(made.threshold) and not made.certified
        right = per_cent(float(test.correct[accept].mean())) if accept.any() else "\u2013"
        table.rows.append(
            [
                Cell(name or "(none)"),
                Cell(f"{made.titles:,}"),
                Cell(score(made.threshold) + ("*" if shared else "")),
                Cell(per_cent(made.coverage)),
                Cell(per_cent(float(accept.sum() / own.sum())) if own.any() else "\u2013"),
                Cell(right),
            ]
        )
    return table


def leading(group: Group) -> Mapping[str, Predictions]:
    """Split -> predictions of the group's run to ship, leading catalogue."""
    found = group.shipped.runs[0].predictions
    return found[leading_catalogue(found)]
