"""The report of one run, of a comparison and of the demo: the same sections, as far as they apply.

The page answers, in this order: which run to ship with which threshold and what that gives, how
sure the choice is, and how it compares; then how it was trained and measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.evaluation.comparison import CHOICE_PRECISION, Decision, Group, decide
from alc_kernels.trainer.evaluation.judged import BY_KEY, percent
from alc_kernels.trainer.report.decision import (
    caution_sentence,
    choice_table,
    decision_paragraphs,
    ship_sentence,
)
from alc_kernels.trainer.report.examples import examples_table, pick_examples
from alc_kernels.trainer.report.page import (
    CATALOGUE_NAMES,
    HOW_MEASURED,
    WHAT_IS_COVERAGE,
    WHAT_IS_GENERATED,
    Html,
    Table,
    cards,
    details,
    element,
    page,
    paragraph,
    section,
)
from alc_kernels.trainer.report.pictures import (
    coverage_figure,
    coverage_picture,
    histograms_picture,
    history_picture,
)
from alc_kernels.trainer.report.summary import (
    RANKING,
    data_line,
    difference_table,
    duration,
    full_table,
    headline_table,
    per_cent,
    points,
    ranking_table,
    risk_table,
    score,
    settings_table,
    span,
    threshold_table,
    thresholds_table,
)
from alc_kernels.trainer.report.support import catalogues_text, chosen_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TARGET = CHOICE_PRECISION
KEY = f"transferred_{percent(TARGET)}"


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
    def data(self) -> Mapping[str, object]:
        return self.headline.runs[0].data

    def html(self) -> str:
        """The whole page."""
        parts = [
            section("What to ship", *self._decision()),
            self._introduction(),
            section(
                "Precision against coverage",
                coverage_picture(self.groups, self.headline, TARGET),
            ),
            section("Coverage", headline_table(self.groups).html(), self._differences()),
            section("Risk over all thresholds", risk_table(self.groups).html()),
            section("Ranking", ranking_table(self.groups).html()),
            section("Thresholds", *self._thresholds()),
            section("Scores of right and wrong matches", histograms_picture(self.groups, TARGET)),
            self._examples(),
            section("How it was trained and measured", *self._method()),
        ]
        return page(self.title, data_line(self.data), *parts)

    def coverage_figure(self) -> Figure:
        """The curves, also worth a file of their own."""
        return coverage_figure(self.groups, self.headline, TARGET)

    def advice(self) -> str:
        """Which threshold to ship, what it gives, and what test shows of that."""
        return f"{ship_sentence(self.decision)} {caution_sentence(self.decision)}".strip()

    def _decision(self) -> list[Html]:
        first, *others = decision_paragraphs(self.decision)
        parts = [self._cards(), paragraph(first, class_="lead"), *map(paragraph, others)]
        if len(self.contenders) > 1:
            parts.append(choice_table(self.decision, self.groups).html())
        return parts

    def _cards(self) -> Html:
        made = self.decision
        p1 = made.group.shipped.figures()[made.catalogue]["p1"]
        where = f"{CATALOGUE_NAMES[made.catalogue].lower()}, {made.group.name}"
        chosen = chosen_text(TARGET, made.validation_titles)
        if not made.possible:
            chosen = f"no score reaches precision {percent(TARGET)} % on validation"
        items = [
            (
                score(made.threshold.value),
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
        return cards(items)

    def _introduction(self) -> Html:
        about = [WHAT_IS_COVERAGE]
        if self.data.get("generated"):
            about.append(WHAT_IS_GENERATED)
        elif self.data.get("description"):
            about.append(str(self.data["description"]))
        about.append(catalogues_text(self.headline.runs[0].predictions))
        return section("How to read this page", *(paragraph(text) for text in about))

    def _differences(self) -> Html:
        table = difference_table(self.groups)
        ranking = difference_table(self.groups, RANKING)
        if table is None or ranking is None:
            return Html("")
        return element(
            "div",
            element("h3", "Differences"),
            table.html(),
            details("Differences of the ranking measures", ranking.html()),
        )

    def _thresholds(self) -> list[Html]:
        parts = [threshold_table(self.headline).html()]
        if len(self.contenders) > 1:
            shown = f"{self.headline.name}, the one to ship:"
            parts = [paragraph(shown), *parts, element("h3", "All of them")]
            parts.append(thresholds_table(self.contenders).html())
        return parts

    def _examples(self) -> Html:
        if self.dataset is None:
            missing = self.without_examples
            return section("Examples", paragraph(missing)) if missing else Html("")
        made = self.decision
        found = made.run.predictions[made.catalogue]["test"]
        picked = pick_examples(self.dataset, found, made.threshold.value)
        note = (
            "Drawn at random from the test titles, "
            f"{CATALOGUE_NAMES[made.catalogue].lower()}, {made.group.name}."
        )
        return section("Examples", paragraph(note), examples_table(picked).html())

    def _method(self) -> list[Html]:
        parts = [paragraph(HOW_MEASURED)]
        if self.data.get("protocol"):
            parts.append(paragraph(str(self.data["protocol"])))
        differing = settings_table(self.contenders)
        if differing:
            parts += [element("h3", "Settings that differ"), differing.html()]
        run = self.decision.run
        if run.seconds:
            spent = ", ".join(f"{what} {duration(s)}" for what, s in run.seconds.items() if s)
            parts.append(paragraph(f"Time, {self.headline.name}: {spent}."))
        history = history_picture(self.headline)
        if history is not None:
            parts.append(history)
        parts.append(details("All figures", full_table(self.groups).html(), _meanings()))
        if run.config:
            settings = Table(["setting", "value"], prose=True)
            settings.rows += [[name, str(value)] for name, value in run.config.items()]
            parts.append(details(f"All settings of {self.headline.name}", settings.html()))
        return parts


def _meanings() -> Html:
    rows = (element("li", f"{m.title}: {m.meaning}") for m in BY_KEY.values())
    return element("ul", *rows, class_="small")
