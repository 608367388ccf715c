"""A comparison as text, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from alc_kernels.xmc.data import Dataset
from alc_kernels.xmc.evaluation.comparison import Decision, Group
from alc_kernels.xmc.report.decision import choice_table, decision_paragraphs
from alc_kernels.xmc.report.examples import examples_table, pick_examples
from alc_kernels.xmc.report.summary import (
    RANKING_SHORT,
    difference_table,
    headline_table,
    ranking_table,
    risk_table,
    settings_table,
    thresholds_table,
)
from alc_kernels.xmc.report.table import WIDTH


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
    contenders = [group for group in groups if not group.reference]
    parts = [decision_text(made, groups), f"\nCoverage\n{figures_text(groups)}"]
    parts.append(f"\nThresholds\n{thresholds_table(contenders).text()}")
    differing = settings_table(contenders)
    if differing is not None:
        parts.append(f"\nSettings that differ\n{differing.text()}")
    if dataset is not None:
        found = made.run.predictions[made.catalogue]["test"]
        picked = pick_examples(dataset, found, made.threshold.value)
        parts.append(f"\nExamples, {made.group.name}\n{examples_table(picked).text()}")
    elif without_examples:
        parts.append(f"\nExamples\n{textwrap.fill(without_examples, WIDTH)}")
    return "\n".join(parts)
