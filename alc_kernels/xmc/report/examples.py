"""Titles that the threshold accepts rightly, accepts wrongly, and sends to review."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alc_kernels.xmc.data import Dataset
from alc_kernels.xmc.evaluation.predictions import Predictions
from alc_kernels.xmc.report.page import Html, element
from alc_kernels.xmc.report.table import Cell, Table

KINDS = (
    ("accepted, right", "right"),
    ("accepted, wrong", "wrong"),
    ("sent to review", "review"),
)


@dataclass(frozen=True)
class Example:
    """A query, the best label found, its score, and what would have been right ("" if that)."""

    query: str
    match: str
    score: float
    truth: str


def pick_examples(
    dataset: Dataset, found: Predictions, threshold: float, count: int = 4, seed: int = 0
) -> dict[str, list[Example]]:
    """Up to ``count`` test queries of each kind, drawn at random, best score first.

    Args:
        dataset: the texts behind ``found``.
        found: test predictions against one catalogue.
        threshold: queries that score at least this are accepted.
    """
    accepted = found.top_score >= threshold
    chosen = {
        KINDS[0][0]: accepted & found.correct,
        KINDS[1][0]: accepted & ~found.correct,
        KINDS[2][0]: ~accepted,
    }
    generator = np.random.default_rng(seed)
    made = {}
    for kind, members in chosen.items():
        rows = np.flatnonzero(members)
        rows = generator.choice(rows, min(count, len(rows)), replace=False)
        rows = rows[np.argsort(-found.top_score[rows], kind="stable")]
        made[kind] = [_example(dataset, found, int(row)) for row in rows]
    return made


def _example(dataset: Dataset, found: Predictions, row: int) -> Example:
    match = dataset.labels[found.indices[row, 0]]
    if found.correct[row]:
        truth = ""
    elif not found.answerable[row]:
        truth = "not in the catalogue"
    else:
        truth = dataset.labels[found.group[row]]
    return Example(dataset.test.queries[row], match, float(found.top_score[row]), truth)


def examples_html(examples: dict[str, list[Example]]) -> Html:
    """The examples as a table with a tag per kind."""
    header = ["", "merchant's title", "best match in the catalogue", "score", "right answer"]
    head = element("tr", *(element("th", text, scope="col") for text in header))
    rows = []
    for kind, style in KINDS:
        for example in examples[kind]:
            tag = element("span", kind, class_=f"tag {style}")
            rows.append(
                element(
                    "tr",
                    element("td", tag),
                    element("td", example.query),
                    element("td", example.match),
                    element("td", f"{example.score:.3f}", class_="number"),
                    element("td", example.truth or "the match"),
                )
            )
    table = element("table", element("thead", head), element("tbody", *rows), class_="text")
    return element("div", table, class_="scroll")


def titles_table(dataset: Dataset, count: int = 4) -> Table:
    """A few training titles with their product, to show what the data look like."""
    table = Table(["merchant's title", "product in the catalogue"], prose=True)
    relation = dataset.train.relation
    matched = np.flatnonzero(np.diff(relation.indptr) > 0)
    for row in matched[:: max(1, len(matched) // count)][:count]:
        label = relation.indices[relation.indptr[row]]
        table.rows.append([Cell(dataset.train.queries[row]), Cell(dataset.labels[label])])
    return table
