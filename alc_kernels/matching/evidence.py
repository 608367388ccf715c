"""What a matcher's thresholds rest on: judged titles, certificates, whether they still apply."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from alc_kernels.metrics import CertifiedThreshold
from alc_kernels.metrics.inputs import BoolArray, FloatArray, IntArray
from alc_kernels.trainer.data.text.texts import Digests, find
from alc_kernels.trainer.evaluation.certificates import Certificate as Certified
from alc_kernels.trainer.evaluation.predictions import Predictions

# Of the catalogue: labels that the run's data lack, and products of validation that it lacks.
WARNED, REFUSED = 0.05, 0.5
# Of the titles: the largest distance between the two distribution functions (Kolmogorov-Smirnov).
DISTANCE, LEVEL = 0.15, 0.001
FEWEST = 50  # titles for that test


@dataclass(frozen=True)
class Evidence:
    """Titles whose right label is known, none of which the decision was fitted on.

    Attributes:
        scores: (n,) float32 of each title's best label: probabilities out of fold, or cosines.
        correct: (n,) bool, whether it is right.
        groups: (n,) int64, the product of each; negative where unknown.
        answerable: (n,) bool, whether the catalogue had a right label.
        probabilities: whether ``scores`` are probabilities of an acceptance model.
        usual: name -> (m,) the same numbers of titles as they are usually matched (in the whole
            catalogue): ``"score"`` and ``"cosine"``; new titles are compared with them.
        known: (L, 2) uint64 digests of the labels of the run's data; None where not known.
        origin: which titles these are, in words.
        renewed: whether ``alc recertify`` collected them.
    """

    scores: FloatArray
    correct: BoolArray
    groups: IntArray
    answerable: BoolArray
    probabilities: bool
    usual: dict[str, np.ndarray] = field(default_factory=dict)
    known: np.ndarray | None = None
    origin: str = "validation titles"
    renewed: bool = False

    @cached_property
    def predictions(self) -> Predictions:
        """The same as predictions of one label per title."""
        best = self.scores[:, None]
        none = np.zeros(best.shape)
        return Predictions(
            np.full(best.shape, -1), best, self.correct[:, None], none, none,
            self.answerable.astype(np.int64), self.groups,
        )  # fmt: skip

    def other_kind(self, texts: Sequence[str]) -> tuple[list[str], str]:
        """Whether a catalogue is of another kind than the run's data.

        Returns:
            Warnings, and why no certificate holds ("" where one does).
        """
        if self.known is None:
            return ["which labels the run was validated with is not known"], ""
        own = Digests(texts).array()
        unseen = float((find(own, self.known) < 0).mean())
        inside = np.append(find(self.known, own) >= 0, False)
        product = np.where(self.groups < len(self.known), self.groups, -1)
        asked = product[self.answerable & (product >= 0)]
        gone = float((~inside[asked]).mean()) if len(asked) else 0.0
        told = [
            f"{100 * share:.1f} % of {what}"
            for share, what in (
                (unseen, "its labels are not in the run's data"),
                (gone, "the validation titles' products are not in it"),
            )
            if share > WARNED
        ]
        if not told:
            return [], ""
        line = f"the catalogue is not the one of validation: {', '.join(told)}"
        if max(unseen, gone) > REFUSED:
            return [], f"{line}: above {100 * REFUSED:.0f} % no threshold is certified for it"
        return [line], ""

    def unusual(self, columns: dict[str, np.ndarray]) -> list[str]:
        """Which numbers of new titles are distributed in another way than usual.

        Args:
            columns: name -> (n,), as in ``usual``.

        Returns:
            A sentence per column whose distance is above both :data:`DISTANCE` and what chance
            alone exceeds in one case of 1,000 (for all columns together).
        """
        made = []
        for name, usual in self.usual.items():
            new = columns.get(name, np.empty(0))
            new = new[np.isfinite(new)]
            if min(len(new), len(usual)) < FEWEST:
                continue
            distance, place = ks_distance(usual, new)
            level = LEVEL / len(self.usual)
            chance = math.sqrt(-0.5 * math.log(level / 2) * (1 / len(new) + 1 / len(usual)))
            if distance > max(DISTANCE, chance):
                below, before = (100 * float((one <= place).mean()) for one in (new, usual))
                made.append(
                    f"the titles are not like those of validation: for {below:.0f} % of them the "
                    f"{name} is at most {place:.4g}, it was for {before:.0f} % (Kolmogorov-Smirnov "
                    f"distance {distance:.2f}, above {max(DISTANCE, chance):.2f}), so the "
                    "certificate may not hold"
                )
        return made


def ks_distance(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The largest difference between the shares of two samples at or below a value; that value."""
    every = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(one), every, side="right") / len(one)
              for one in (first, second)]  # fmt: skip
    apart = np.abs(shares[0] - shares[1])
    return float(apart.max()), float(every[apart.argmax()])


@dataclass(frozen=True)
class Certificate:
    """A certified threshold, and what speaks against using it here.

    Attributes:
        certified: what evidence certifies.
        warnings: in what way the catalogue differs from that of validation.
        refused: why it does not hold here; "" where it does.
    """

    certified: Certified
    warnings: tuple[str, ...] = ()
    refused: str = ""

    @property
    def found(self) -> CertifiedThreshold:
        """As :func:`~alc_kernels.metrics.certified_threshold` gives it."""
        return self.certified.found

    @property
    def threshold(self) -> float:
        """Accept from here on; inf where nothing is certified, or it does not hold here."""
        return math.inf if self.refused else self.found.threshold

    def __bool__(self) -> bool:
        return math.isfinite(self.threshold)

    def __str__(self) -> str:
        return self.refused or self.certified.text()
