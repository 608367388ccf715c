"""Which run to ship, with which threshold, and how sure the choice is.

Everything here is chosen on validation; test only says what the choice gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alc_kernels.metrics.bounds import precision_lower_bound
from alc_kernels.xmc.evaluation.comparison import CHOICE_PRECISION, Group, best_group
from alc_kernels.xmc.evaluation.measures import percent
from alc_kernels.xmc.evaluation.results import Estimate
from alc_kernels.xmc.evaluation.run import Scored


@dataclass(frozen=True)
class Rival:
    """A group that was not chosen.

    Attributes:
        group: which.
        behind: chosen minus rival, coverage on validation, paired interval.
        on_test: chosen minus rival, transferred coverage on test, paired interval.
    """

    group: Group
    behind: Estimate
    on_test: Estimate

    @property
    def within_noise(self) -> bool:
        """Whether the interval of the difference on validation holds zero."""
        return not self.behind.low > 0


@dataclass(frozen=True)
class Decision:
    """What to ship.

    Attributes:
        group: the settings chosen.
        catalogue: the catalogue that was looked at, ``"open"`` where there is one.
        precision: the precision wanted.
        threshold: accept scores of at least this; infinite where none reaches the precision.
        validation: the chosen group's coverage on validation.
        coverage, reached: what the threshold gives on test: share accepted, and right among them.
        accepted: test titles that the threshold accepts.
        rivals: the other groups, in the order given.
        better_yardsticks: yardsticks with more coverage on validation than the chosen group.
    """

    group: Group
    catalogue: str
    precision: float
    threshold: Estimate
    validation: Estimate
    coverage: Estimate
    reached: Estimate
    accepted: int
    rivals: tuple[Rival, ...] = ()
    better_yardsticks: tuple[Group, ...] = ()

    @property
    def run(self) -> Scored:
        """The very run: of several seeds the best on validation."""
        return self.group.shipped.runs[0]

    @property
    def validation_titles(self) -> int:
        """How many titles the threshold was chosen on."""
        return len(self.run.predictions[self.catalogue]["validation"])

    @property
    def supported(self) -> Estimate:
        """``reached`` with the wider of its own and Clopper and Pearson's 95 % interval.

        Titles that are all right, or all wrong, are the same in every draw of the bootstrap, which
        then has no width, however few they are.
        """
        if not self.accepted or not math.isfinite(self.reached.low):
            return self.reached
        right = round(self.reached.value * self.accepted)
        wrong = self.accepted - right
        return Estimate(
            self.reached.value,
            min(self.reached.low, precision_lower_bound(wrong, self.accepted, 0.025)),
            max(self.reached.high, 1 - precision_lower_bound(right, self.accepted, 0.025)),
        )

    @property
    def tied(self) -> list[Rival]:
        """The rivals that accept as many validation titles as the chosen one."""
        return [rival for rival in self.rivals if rival.behind.value == 0]

    @property
    def possible(self) -> bool:
        """Whether any score reaches the precision on validation."""
        return math.isfinite(self.threshold.value)

    @property
    def within_noise(self) -> list[Rival]:
        """The rivals that the data do not tell from the chosen one."""
        return [rival for rival in self.rivals if rival.within_noise]


def decide(groups: Sequence[Group], precision: float = CHOICE_PRECISION) -> Decision:
    """Choose among ``groups``, yardsticks left out.

    Args:
        groups: at least one that is no yardstick.
        precision: one of the precisions that figures are made for.
    """
    chosen = best_group(groups, precision)
    name, catalogue = percent(precision), chosen.leading
    shipped = chosen.shipped.figures()[catalogue]
    threshold = shipped[f"transferred_{name}_threshold"]
    test = chosen.shipped.runs[0].predictions[catalogue]["test"]
    rivals = []
    for group in groups:
        if group.reference or group is chosen:
            continue
        difference = chosen.difference(group)[catalogue]
        rivals.append(
            Rival(
                group,
                difference[f"validation_coverage_{name}"],
                difference[f"transferred_{name}_coverage"],
            )
        )
    return Decision(
        chosen,
        catalogue,
        precision,
        threshold,
        chosen.figures()[catalogue][f"validation_coverage_{name}"],
        shipped[f"transferred_{name}_coverage"],
        shipped[f"transferred_{name}_precision"],
        int((test.top_score >= threshold.value).sum()),
        tuple(rivals),
        tuple(
            group
            for group in groups
            if group.reference
            and group.validation_coverage(precision) > chosen.validation_coverage(precision)
        ),
    )
