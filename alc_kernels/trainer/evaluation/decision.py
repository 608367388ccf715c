"""Which run to ship, with which threshold, and how sure the choice is.

Everything here is chosen on validation; test only says what the choice gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alc_kernels.metrics.bounds import precision_lower_bound
from alc_kernels.trainer.evaluation.certificates import Certificate, certify, certify_new
from alc_kernels.trainer.evaluation.comparison import CHOICE_PRECISION, Group
from alc_kernels.trainer.evaluation.judged import Estimate, percent
from alc_kernels.trainer.evaluation.results import Scored


@dataclass(frozen=True)
class Rival:
    """A group that was not chosen.

    Attributes:
        group: which.
        certified: its coverage certified on validation, mean over the seeds.
        behind: chosen minus rival, largest coverage on validation, paired interval.
        on_test: chosen minus rival, what their certified thresholds accept on test, paired
            interval.
    """

    group: Group
    certified: float
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
        group: the settings and the decision rule chosen; a yardstick where none beats it.
        catalogue: the catalogue that was looked at, ``"open"`` where there is one.
        precision: the precision wanted.
        certificate: of the run to ship: accept scores of at least its threshold, which is infinite
            where nothing can be certified.
        certified: the chosen group's certified coverage on validation, mean over the seeds.
        coverage, reached: what the threshold gives on test: share accepted, and right among them.
        accepted: test titles that the threshold accepts.
        new: the band of new products of the run to ship, or why there is none.
        rivals: the other groups, in the order given.
    """

    group: Group
    catalogue: str
    precision: float
    certificate: Certificate
    certified: float
    coverage: Estimate
    reached: Estimate
    accepted: int
    new: Certificate | str
    rivals: tuple[Rival, ...] = ()

    @property
    def threshold(self) -> float:
        """Accept scores of at least this; infinite where nothing is certified."""
        return self.certificate.threshold

    @property
    def run(self) -> Scored:
        """The very run: of several seeds the best on validation."""
        return self.group.shipped.runs[0]

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
        """The rivals that validation does not tell from the chosen one at all."""
        return [
            rival
            for rival in self.rivals
            if rival.certified == self.certified and rival.behind.value == 0
        ]

    @property
    def possible(self) -> bool:
        """Whether a threshold is certified."""
        return self.certificate.certified

    @property
    def within_noise(self) -> list[Rival]:
        """The rivals that the data do not tell from the chosen one."""
        return [rival for rival in self.rivals if rival.within_noise]


def best_group(groups: Sequence[Group], precision: float = CHOICE_PRECISION) -> Group:
    """The one to ship: the best on validation by its merit; yardsticks may win, but not by a tie.

    Test titles have no say, or its figures there would be too good.
    """
    ranked = sorted(groups, key=lambda group: group.reference)  # stable: the first of a tie stays
    return max(ranked, key=lambda group: group.merit(precision))


def decide(groups: Sequence[Group], precision: float = CHOICE_PRECISION) -> Decision:
    """Choose among ``groups``.

    Args:
        groups: at least one.
        precision: one of the precisions that figures are made for.
    """
    chosen = best_group(groups, precision)
    name, catalogue = percent(precision), chosen.leading
    shipped = chosen.shipped.figures()[catalogue]
    found = chosen.shipped.runs[0].predictions[catalogue]
    certificate = certify(found["validation"], precision)
    rivals = []
    for group in groups:
        if group is chosen:
            continue
        difference = chosen.difference(group)[catalogue]
        rivals.append(
            Rival(
                group,
                group.merit(precision)[0],
                difference[f"validation_coverage_{name}"],
                difference[f"certified_{name}_coverage"],
            )
        )
    return Decision(
        chosen,
        catalogue,
        precision,
        certificate,
        chosen.merit(precision)[0],
        shipped[f"certified_{name}_coverage"],
        shipped[f"certified_{name}_precision"],
        int((found["test"].top_score >= certificate.threshold).sum()),
        certify_new(found["validation"], precision),
        tuple(rivals),
    )
