"""Several runs side by side: seeds of one setting are averaged, differences are paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from alc_kernels.metrics import coverage_at_precision
from alc_kernels.trainer.evaluation.certificates import certify
from alc_kernels.trainer.evaluation.judged import (
    PRECISIONS,
    REPLICATES,
    Estimate,
    Judged,
    estimate,
    replicate,
)
from alc_kernels.trainer.evaluation.predictions import CATALOGUES, leading_catalogue
from alc_kernels.trainer.evaluation.results import (
    UNIMPORTANT,
    WITH_ACCEPTANCE,
    RunError,
    Scored,
    settings_key,
)
from alc_kernels.trainer.methods import METHODS

CHOICE_PRECISION = 0.9  # runs are chosen by their coverage at it

_LOSS_NAMES = {
    "alc": "ALC",
    "tcm": "TCM",
    "alc+tcm": "ALC+TCM",
    "alc-pair": "ALC pair part",
    "alc-batch": "ALC batch part",
}


def loss_name(loss: str) -> str:
    """How a loss is written for people."""
    return _LOSS_NAMES.get(loss, loss)


def method_name(method: str) -> str:
    """How a method is written for people."""
    return METHODS[method].title if method in METHODS else method


class Measured:
    """The figures of one run, worked out when they are asked for, once.

    Args:
        run: what to measure.
        replicates: draws of the bootstrap.
    """

    def __init__(self, run: Scored, replicates: int = REPLICATES) -> None:
        self.run = run
        self.replicates = replicates

    @cached_property
    def points(self) -> dict[str, dict[str, float]]:
        """Catalogue -> measure -> value, without the bootstrap."""
        return {
            name: Judged(splits["validation"], splits["test"]).values()
            for name, splits in self.run.predictions.items()
        }

    @cached_property
    def drawn(self) -> dict[str, dict[str, np.ndarray]]:
        """Catalogue -> measure -> (R,) replicates."""
        return {
            name: replicate(splits, PRECISIONS, self.replicates)[1]
            for name, splits in self.run.predictions.items()
        }


class Group:
    """Runs that differ in their seed only.

    Args:
        name: what to call it.
        runs: at least one.
        reference: a yardstick, shown apart and never the one that others are compared to.
        replicates: draws of the bootstrap.
    """

    def __init__(
        self,
        name: str,
        runs: Sequence[Scored],
        reference: bool = False,
        replicates: int = REPLICATES,
    ) -> None:
        self.name = name
        self.reference = reference
        self.replicates = replicates
        self._measured = [Measured(run, replicates) for run in runs]

    @property
    def runs(self) -> list[Scored]:
        """The scored runs, in the order given."""
        return [measured.run for measured in self._measured]

    @property
    def catalogues(self) -> list[str]:
        """``"open"`` and ``"closed"``, or the closed one alone; the first one leads."""
        return [name for name in CATALOGUES if name in self._measured[0].run.predictions]

    @property
    def leading(self) -> str:
        """The catalogue to look at first."""
        return self.catalogues[0]

    @cached_property
    def shipped(self) -> Group:
        """The run to ship, alone: the seed that is best on validation, see :func:`merit`.

        Pictures, examples and thresholds are of this run.
        """
        if len(self._measured) == 1:
            return self
        best = max(self._measured, key=lambda measured: merit(measured.run))
        alone = Group(self.name, [], self.reference, self.replicates)
        alone._measured = [best]  # with what was worked out already
        return alone

    @property
    def rule(self) -> str:
        """What decides: ``"cosine"`` or ``"acceptance"``."""
        return self.runs[0].rule

    def merit(self, precision: float = CHOICE_PRECISION) -> tuple[float, float]:
        """:func:`merit`, mean over the seeds."""
        certified, coverage = np.mean([merit(run, precision) for run in self.runs], axis=0)
        return float(certified), float(coverage)

    def points(self) -> dict[str, dict[str, float]]:
        """Every measure, mean over the seeds, without the bootstrap."""
        return {
            name: {key: self._mean(name, key) for key in self._measured[0].points[name]}
            for name in self.catalogues
        }

    def figures(self) -> dict[str, dict[str, Estimate]]:
        """Every measure, mean over the seeds, with its interval."""
        return {
            name: {
                key: estimate(value, self._replicates(name, key)) for key, value in point.items()
            }
            for name, point in self.points().items()
        }

    def difference(self, other: Group) -> dict[str, dict[str, Estimate]]:
        """This group minus ``other``, measure by measure, with the paired interval.

        Thresholds are left out (scores of two models are no common scale), and so is OPIS, which
        has no replicates.
        """
        made: dict[str, dict[str, Estimate]] = {}
        for name in self.catalogues:
            made[name] = {}
            for key in self._measured[0].drawn[name]:
                if key.endswith("_threshold"):
                    continue
                own, others = self._replicates(name, key), other._replicates(name, key)
                assert own is not None and others is not None
                value = self._mean(name, key) - other._mean(name, key)
                made[name][key] = estimate(value, own - others)
        return made

    def _mean(self, catalogue: str, key: str) -> float:
        return float(np.mean([measured.points[catalogue][key] for measured in self._measured]))

    def _replicates(self, catalogue: str, key: str) -> np.ndarray | None:
        """(R,) mean over the seeds; None for a measure that has none."""
        if key not in self._measured[0].drawn[catalogue]:
            return None
        return np.mean([measured.drawn[catalogue][key] for measured in self._measured], axis=0)


def merit(run: Scored, precision: float = CHOICE_PRECISION) -> tuple[float, float]:
    """What runs are chosen by, larger is better; validation and the leading catalogue alone.

    Returns:
        The coverage that is certified at ``precision``; for ties, such as where nothing is
        certified, the largest coverage at it.
    """
    found = run.predictions[leading_catalogue(run.predictions)]["validation"]
    coverage = coverage_at_precision(found.top_score, found.correct, precision)
    return certify(found, precision).coverage, float(coverage)


def group_runs(runs: Sequence[Scored], replicates: int = REPLICATES) -> list[Group]:
    """Group runs by their settings except the seed, in the order given.

    Raises:
        RunError: the runs were scored on different data.
    """
    check_same_data(runs)
    groups: dict[str, list[Scored]] = {}
    for run in runs:
        groups.setdefault(settings_key(run.config), []).append(run)
    names = group_names([members[0] for members in groups.values()])
    return [
        Group(name, members, replicates=replicates)
        for name, members in zip(names, groups.values(), strict=True)
    ]


def decision_rules(groups: Sequence[Group]) -> list[Group]:
    """Every group, and behind each the same runs with their acceptance models deciding.

    Only where all runs of a group have one.
    """
    made = []
    for group in groups:
        made.append(group)
        runs = [run.by_acceptance() for run in group.runs]
        if all(runs):
            name = f"{group.name}{WITH_ACCEPTANCE}"
            accepted = [run for run in runs if run is not None]
            made.append(Group(name, accepted, group.reference, group.replicates))
    return made


def check_same_data(runs: Sequence[Scored]) -> None:
    """Refuse runs that were scored on different data."""
    first = runs[0]
    for run in runs[1:]:
        if run.fingerprint != first.fingerprint:
            where, other = first.data.get("folder"), run.data.get("folder")
            told = [
                f"{one.data.get('name', '?')} ({one.data.get('folder') or one.fingerprint}"
                + (f", as {one.fingerprint})" if where and where == other else ")")
                for one in (first, run)
            ]
            raise RunError(
                f"{first.name} was scored on {told[0]}, {run.name} on {told[1]}: runs on different "
                f"data cannot be compared; alc evaluate {run.folder or run.name} --data "
                f"{where or 'DIR'} scores {run.name} on the data of {first.name}"
            )


def differing_settings(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The settings in which ``configs`` differ, the seed left out, with each one's value."""
    names = {name: None for config in configs for name in config if name not in UNIMPORTANT}
    rows = {name: [config.get(name) for config in configs] for name in names}
    return {
        name: values for name, values in rows.items() if any(v != values[0] for v in values[1:])
    }


def group_names(firsts: Sequence[Scored]) -> list[str]:
    """The loss; before it the method where methods differ; after it other settings that differ.

    Those are only named among groups of the same method and loss.
    """
    methods = [str(run.config.get("method", "")) for run in firsts]
    names = [loss_name(str(run.config.get("loss", run.name))) for run in firsts]
    if len(set(methods)) > 1:
        names = [f"{method_name(m)} {name}".strip() for m, name in zip(methods, names, strict=True)]
    made = []
    for run, name in zip(firsts, names, strict=True):
        alike = [other.config for other, its in zip(firsts, names, strict=True) if its == name]
        differing = differing_settings(alike)
        made.append(", ".join([name, *(f"{key}={run.config.get(key)}" for key in differing)]))
    return made
