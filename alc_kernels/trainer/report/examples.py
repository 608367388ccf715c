"""Titles that the threshold accepts and sends to review, rightly and wrongly each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.evaluation.predictions import Predictions
from alc_kernels.trainer.report.page import Cell, Table

# What became of a title, and the mark it gets on the page.
KINDS = (
    ("accepted, right", "right"),
    ("accepted, wrong", "wrong"),
    ("for review, match right", "review"),
    ("for review, match wrong", "review"),
)


@dataclass(frozen=True)
class Example:
    """A query, the best label found, its score, and what would have been right ("" if that)."""

    query: str
    match: str
    score: float
    truth: str


def pick_examples(
    dataset: Dataset, found: Predictions, threshold: float, count: int = 3, seed: int = 0
) -> dict[str, list[Example]]:
    """Up to ``count`` test queries of each kind, drawn at random, best score first.

    Args:
        dataset: the texts behind ``found``.
        found: test predictions against one catalogue.
        threshold: queries that score at least this are accepted.
    """
    accepted = found.top_score >= threshold
    parts = (
        accepted & found.correct,
        accepted & ~found.correct,
        ~accepted & found.correct,
        ~accepted & ~found.correct,
    )
    chosen = {kind: members for (kind, _), members in zip(KINDS, parts, strict=True)}
    generator = np.random.default_rng(seed)
    made = {}
    for kind, members in chosen.items():
        rows = np.flatnonzero(members)
        rows = generator.choice(rows, min(count, len(rows)), replace=False)
        rows = rows[np.argsort(-found.top_score[rows], kind="stable")]
        made[kind] = [_example(dataset, found, int(row)) for row in rows]
    return made


def _example(dataset: Dataset, found: Predictions, row: int) -> Example:
    best = int(found.indices[row, 0])
    match = dataset.labels[best] if best >= 0 else ""
    if found.correct[row]:
        truth = ""
    elif not found.answerable[row]:
        truth = "not in the catalogue"
    else:
        relation = dataset.test.relation
        labels = relation.indices[relation.indptr[row] : relation.indptr[row + 1]]
        if len(labels) > found.num_positives[row]:  # the open catalogue lacks some of them
            labels = labels[~dataset.held_out[labels]]
        truth = dataset.labels[labels[0]]
        if len(labels) > 1:
            truth += f" (or {len(labels) - 1} more)"
    return Example(dataset.test.queries[row], match, float(found.top_score[row]), truth)


def examples_table(examples: dict[str, list[Example]]) -> Table:
    """The examples, with a mark per kind."""
    header = ["", "merchant's title", "best match in the catalogue", "score", "right answer"]
    table = Table(header, prose=True, stacked=True)
    for kind, style in KINDS:
        for example in examples[kind]:
            table.rows.append(
                [
                    Cell(kind, tag=style),
                    Cell(example.query),
                    Cell(example.match),
                    Cell(f"{example.score:.3f}"),
                    Cell(example.truth or "the match"),
                ]
            )
    return table


def titles_table(dataset: Dataset, count: int = 4) -> Table:
    """A few training titles with their product, to show what the data look like."""
    table = Table(["merchant's title", "product in the catalogue"], prose=True)
    relation = dataset.train.relation
    matched = np.flatnonzero(np.diff(relation.indptr) > 0)
    for row in matched[:: max(1, len(matched) // count)][:count]:
        label = relation.indices[relation.indptr[row]]
        table.rows.append([Cell(dataset.train.queries[row]), Cell(dataset.labels[label])])
    return table
