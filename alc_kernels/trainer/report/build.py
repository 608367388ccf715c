"""The report of one run, of a comparison and of the demo: the same sections, as far as they apply.

The page answers, in this order: which run to ship with which threshold and what that gives, how
sure the choice is, and how it compares; then how it was trained and measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.evaluation.comparison import CHOICE_PRECISION, Group
from alc_kernels.trainer.evaluation.decision import Decision, decide
from alc_kernels.trainer.evaluation.judged import MEASURES, percent
from alc_kernels.trainer.report import certificates, figures, summary
from alc_kernels.trainer.report import decision as decisions
from alc_kernels.trainer.report.decision import caution_sentence, ship_sentence
from alc_kernels.trainer.report.summary import (
    CATALOGUE_NAMES,
    per_cent,
    points,
    score,
    span,
)
from alc_kernels.trainer.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TARGET = CHOICE_PRECISION


@dataclass
class Report:
    """What a page is made of.

    Attributes:
        title: heading of the page.
        groups: the runs; yardsticks have ``reference`` set. At least one has not.
        dataset: the texts, for examples; None leaves them out.
        without_examples: why there are no texts, for the reader.
    """

    title: str
    groups: Sequence[Group]
    dataset: Dataset | None = None
    without_examples: str = ""

    @cached_property
    def decision(self) -> Decision:
        """The run whose threshold, examples and figures lead."""
        return decide(self.groups, TARGET)

    @property
    def headline(self) -> Group:
        return self.decision.group

    @property
    def contenders(self) -> list[Group]:
        """The groups that are no yardsticks."""
        return [group for group in self.groups if not group.reference]

    @property
    def data(self) -> Mapping[str, Any]:
        return self.headline.runs[0].data

    def html(self) -> str:
        """The whole page, which stands alone."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
            lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined,
        )  # fmt: skip
        environment.globals |= vars(summary) | vars(figures) | vars(certificates) | vars(decisions)
        return environment.get_template("page.jinja").render(
            report=self,
            groups=self.groups,
            headline=self.headline,
            several=len(self.contenders) > 1,
            target=TARGET,
            measures=MEASURES,
            catalogue=CATALOGUE_NAMES[self.decision.catalogue],
        )

    def coverage_figure(self) -> Figure:
        """The curves, also worth a file of their own."""
        return figures.coverage_figure(self.groups, self.headline, TARGET)

    def advice(self) -> str:
        """Which threshold to ship, what it gives, and what test shows of that."""
        return f"{ship_sentence(self.decision)} {caution_sentence(self.decision)}".strip()

    def cards(self) -> list[tuple[str, str, str]]:
        """The headline figures: each with what it is and the small print."""
        made = self.decision
        p1 = made.group.shipped.figures()[made.catalogue]["p1"]
        where = f"{CATALOGUE_NAMES[made.catalogue].lower()}, {made.group.name}"
        wanted = f"precision {percent(TARGET)} %"
        chosen = f"{wanted} is not certifiable: {made.certificate.lacking()}"
        if made.possible:
            sure = f"{100 * made.certificate.found.confidence:.10g} %"
            chosen = (
                f"{wanted}, certified with {sure} confidence on "
                f"{made.certificate.found.num_groups:,} products"
            )
        items = [
            (
                score(made.threshold),
                "accept from this score",
                chosen,
            ),
            (
                f"{per_cent(made.coverage.value, 0)} %",
                "accepted automatically",
                f"of the test titles, interval {span(made.coverage, per_cent)}; {where}",
            ),
            (
                f"{per_cent(made.reached.value, 0)} %",
                "of those are right",
                f"interval {span(made.supported, per_cent) or 'not known'}",
            ),
            (
                f"{per_cent(p1.value, 0)} %",
                "best match right",
                f"P@1 over all titles, interval {span(p1, per_cent)}",
            ),
        ]
        if len(self.contenders) > 1:
            first = self.contenders[0]
            other = self.headline if self.headline is not first else self.contenders[1]
            gain = other.difference(first)[made.catalogue][f"coverage_{percent(TARGET)}"]
            items[3] = (
                points(gain.value),
                f"points of C@.9, {other.name} against {first.name}",
                f"paired 95 % interval {points(gain.low)} to {points(gain.high)}, on test",
            )
        return items

    def settings(self) -> Table:
        """All settings of the run to ship."""
        made = Table(["setting", "value"], prose=True)
        made.rows += [[name, str(value)] for name, value in self.decision.run.config.items()]
        return made
