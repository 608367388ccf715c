"""The decision in words: which run, which threshold, what it gives, how sure that is."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.evaluation.comparison import Group
from alc_kernels.trainer.evaluation.decision import Decision
from alc_kernels.trainer.evaluation.judged import BY_KEY, percent
from alc_kernels.trainer.evaluation.predictions import Predictions
from alc_kernels.trainer.evaluation.results import ACCEPTANCE
from alc_kernels.trainer.report.certificates import (
    acceptance_notes,
    certificate_table,
    new_text,
)
from alc_kernels.trainer.report.summary import (
    RANKING_SHORT,
    best_of,
    difference_cell,
    difference_table,
    duration,
    headline_table,
    per_cent,
    points,
    ranking_table,
    risk_table,
    row_name,
    score,
    seed_text,
    settings_table,
    share_cell,
    span,
    titles_text,
    without_right_label,
)
from alc_kernels.trainer.report.table import WIDTH, Cell, Table

# Titles that the threshold accepts and sends to review, rightly and wrongly each.


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


def decision_examples(made: Decision, dataset: Dataset) -> Table:
    """Examples of what the run to ship does with test titles at its threshold."""
    found = made.run.predictions[made.catalogue]["test"]
    return examples_table(pick_examples(dataset, found, made.threshold))


def titles_table(dataset: Dataset, count: int = 4) -> Table:
    """A few training titles with their product, to show what the data look like."""
    table = Table(["merchant's title", "product in the catalogue"], prose=True)
    relation = dataset.train.relation
    matched = np.flatnonzero(np.diff(relation.indptr) > 0)
    for row in matched[:: max(1, len(matched) // count)][:count]:
        label = relation.indices[relation.indptr[row]]
        table.rows.append([Cell(dataset.train.queries[row]), Cell(dataset.labels[label])])
    return table


NAMED = 3  # rivals that are named in a sentence


def ship_sentence(made: Decision) -> str:
    """What to do, and what it gives on test."""
    name = ", ".join(part for part in (made.group.name, seed_text(made.group)) if part)
    untrained = ", which needs no training," if made.group.reference else ""
    where = f"{titles_text(made.certificate.titles)} of the {made.catalogue} catalogue"
    if not made.possible:
        return (
            f"Ship none of them yet: with {name}, the best on {where}, precision "
            f"{percent(made.precision)} % is not certifiable: {made.certificate.lacking()}. Until "
            "then nothing should be accepted automatically at it."
        )
    open_ended = without_right_label(made.run.predictions, made.catalogue)
    missing = ", products missing from the catalogue included" if open_ended else ""
    return (
        f"Ship {name}{untrained} {made.certificate.text()}, {where}. Of the test titles "
        f"{per_cent(made.coverage.value)} % (interval {span(made.coverage, per_cent)}) score at "
        f"least that, and {per_cent(made.reached.value)} % of those "
        f"({span(made.supported, per_cent)}) are right{missing}."
    )


def caution_sentence(made: Decision) -> str:
    """What test shows of the precision that the threshold was chosen for, and what it does not."""
    if not made.possible or not math.isfinite(made.reached.low):
        return ""
    wanted = f"the {percent(made.precision)} % wanted"
    shown = made.supported
    titles = "1 accepted title" if made.accepted == 1 else f"{made.accepted:,} accepted titles"
    found = (
        f"{per_cent(shown.value)} % of {titles} on test, between {per_cent(shown.low)} and "
        f"{per_cent(shown.high)} %"
    )
    if shown.low >= made.precision:
        return f"The precision is kept: {found}, all of it at or above {wanted}."
    if shown.high < made.precision:
        return (
            f"Careful, the precision is not kept: {found}, all of it below {wanted}. The promise "
            "is for titles like those of validation: certify on titles like those to come."
        )
    return (
        f"The precision reached is {found}, with {wanted} inside: that shows neither that it is "
        "kept nor that it is not. More test titles would narrow the interval."
    )


def reason_sentences(made: Decision) -> list[str]:
    """Why this one: the choice on validation, and which rivals it does not clearly beat."""
    if not made.possible or not made.rivals:
        return []
    sentence = (
        f"Of the {len(made.rivals) + 1} compared it has the most validation titles certified at "
        f"precision {percent(made.precision)} %: {per_cent(made.certified)} %"
    )
    tied = made.tied
    near = [rival for rival in made.within_noise if rival not in tied]
    if tied:
        others = " and ".join(rival.group.name for rival in tied[:NAMED])
        if len(tied) > NAMED:
            others += f" and {len(tied) - NAMED} more"
        sentence += (
            f", as many as {others}; of those it was given first, which is what decided. "
            "Should another be cheaper to train or to run, validation does not speak against it"
        )
    sentences = [f"{sentence}."]
    if made.group.reference:
        kept = (
            " (the rule is kept beside the run as tfidf-acceptance.json, for use from Python)"
            if made.group.rule == ACCEPTANCE
            else ""
        )
        sentences.append(f"So far training does not pay{kept}.")
    if near:
        told = "; ".join(
            f"its lead over {rival.group.name} in {_coverage_title(made)} is "
            f"{points(rival.behind.value)} points, with a paired interval of "
            f"{points(rival.behind.low)} to {points(rival.behind.high)}"
            for rival in near[:NAMED]
        )
        if len(near) > NAMED:
            told += f"; {len(near) - NAMED} more are in the table"
        other = near[0].group.name if len(near) == 1 else "one of these"
        sentences.append(
            f"That is within the noise: {told}. Should {other} be cheaper to train or to run, "
            "validation does not speak against it."
        )
    elif not tied:
        sentences.append("Its lead on validation over every other is clear of the noise.")
    behind_on_test = [rival.group.name for rival in made.rivals if rival.on_test.high < 0]
    if behind_on_test:
        sentences.append(
            f"On test {', '.join(behind_on_test)} accepted clearly more at its own threshold; test "
            "titles have no say in the choice, so repeat it with more seeds or validation titles."
        )
    return sentences


def _coverage_title(made: Decision) -> str:
    return BY_KEY[f"coverage_{percent(made.precision)}"].title


def choice_table(made: Decision, groups: Sequence[Group]) -> Table:
    """What the choice looked at, and what each would give on test."""
    name = percent(made.precision)
    title = _coverage_title(made)
    table = Table(
        ["", "certified", title, "lead", "accept from", "accepted", "right", "training"],
        caption=f"{made.catalogue.capitalize()} catalogue, precision {name} % wanted, 95 % "
        "intervals. On validation: the coverage that is certified, which the choice is made by, "
        f"and the largest there is, {title}; lead: points that the chosen one is ahead by in the "
        "latter, paired, * clear of zero. Then what the certified threshold of each one's best "
        "seed gives on test, and how long a run trains.",
    )
    rivals = {id(rival.group): rival for rival in made.rivals}
    merits = {id(group): group.merit(made.precision)[0] for group in groups}
    best = best_of(list(merits.values()))
    for group in groups:
        figures = group.figures()[made.catalogue]
        shipped = group.shipped.figures()[made.catalogue]
        rival = rivals.get(id(group))
        lead = Cell("ship", strong=True) if rival is None else difference_cell(rival.behind)
        seconds = [run.seconds["training"] for run in group.runs if run.seconds.get("training")]
        certified = per_cent(merits[id(group)])
        table.rows.append(
            [
                row_name(group),
                Cell(certified, strong=certified == best),
                share_cell(figures[f"validation_coverage_{name}"]),
                lead,
                Cell(score(shipped[f"certified_{name}_threshold"].value)),
                *(
                    share_cell(shipped[f"certified_{name}_{what}"])
                    for what in ("coverage", "precision")
                ),
                Cell(duration(sum(seconds) / len(seconds)) if seconds else ""),
            ]
        )
    return table


def decision_paragraphs(made: Decision) -> list[str]:
    """The decision in full: what to ship, whether test bears it out, why this one."""
    parts = [
        ship_sentence(made), caution_sentence(made), " ".join(reason_sentences(made)),
        f"New products, {new_text(made.new)}.",
    ]  # fmt: skip
    return [part for part in parts if part]


# A comparison as text, for a terminal.


def figures_text(groups: Sequence[Group]) -> str:
    """The headline, the measures of risk and of the ranking, and the differences."""
    ranking = ranking_table(groups, RANKING_SHORT)
    parts = [
        headline_table(groups).text(),
        f"\nRisk over all thresholds\n{risk_table(groups).text()}",
        f"\nRanking\n{ranking.text()}",
    ]
    differences = difference_table(groups)
    if differences is not None:
        parts.append(f"\nDifferences\n{differences.text()}")
    return "\n".join(parts)


def decision_text(made: Decision, groups: Sequence[Group]) -> str:
    """What to ship, and why."""
    paragraphs = [textwrap.fill(text, WIDTH) for text in decision_paragraphs(made)]
    return "\n".join([*paragraphs, "", choice_table(made, groups).text()])


def comparison_text(
    made: Decision,
    groups: Sequence[Group],
    dataset: Dataset | None = None,
    without_examples: str = "",
) -> str:
    """Everything that the page says, as far as text can say it.

    Args:
        made: what to ship; it comes first.
        groups: all that are compared.
        dataset: the texts, for examples; None leaves them out.
        without_examples: why there are no texts, for the reader.
    """
    parts = [decision_text(made, groups), f"\nCoverage\n{figures_text(groups)}"]
    parts.append(f"\nCertificates\n{certificate_table(groups).text()}")
    notes = [textwrap.fill(note, WIDTH) for note in acceptance_notes(groups)]
    parts.append("\n".join(["\nAcceptance models", *notes]))
    differing = settings_table(groups)
    if differing is not None:
        parts.append(f"\nSettings that differ\n{differing.text()}")
    if dataset is not None:
        examples = decision_examples(made, dataset).text()
        parts.append(f"\nExamples, {made.group.name}\n{examples}")
    elif without_examples:
        parts.append(f"\nExamples\n{textwrap.fill(without_examples, WIDTH)}")
    return "\n".join(parts)
