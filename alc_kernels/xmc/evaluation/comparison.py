"""Several runs side by side: seeds of one setting are averaged, differences are paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from alc_kernels.metrics import coverage_at_precision
from alc_kernels.xmc.evaluation.bootstrap import REPLICATES, mean_replicates, replicate
from alc_kernels.xmc.evaluation.measures import PRECISIONS, Judged
from alc_kernels.xmc.evaluation.predictions import CATALOGUES
from alc_kernels.xmc.evaluation.results import Estimate, estimate
from alc_kernels.xmc.evaluation.run import RunError, Scored, settings_key

DIFFERENCES = (
    "coverage_90",
    "coverage_95",
    "p1",
    "transferred_90_coverage",
    "transferred_95_coverage",
)

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


@dataclass
class Group:
    """Runs that differ in their seed only.

    Attributes:
        name: what to call it.
        runs: at least one; only the first is drawn in pictures.
        reference: a yardstick, shown apart and never the one that others are compared to.
        replicates: draws of the bootstrap.
    """

    name: str
    runs: list[Scored]
    reference: bool = False
    replicates: int = REPLICATES

    @cached_property
    def _measured(self) -> dict[str, tuple[dict[str, float], dict[str, np.ndarray]]]:
        made = {}
        for catalogue in CATALOGUES:
            parts = [
                replicate(run.predictions[catalogue], PRECISIONS, self.replicates)
                for run in self.runs
            ]
            point = {key: float(np.mean([p[key] for p, _ in parts])) for key in parts[0][0]}
            drawn = {key: mean_replicates([d[key] for _, d in parts]) for key in parts[0][1]}
            made[catalogue] = (point, drawn)
        return made

    def points(self) -> dict[str, dict[str, float]]:
        """Every measure, mean over the seeds, without the bootstrap."""
        made = {}
        for catalogue in CATALOGUES:
            parts = [
                Judged(splits["validation"], splits["test"]).values()
                for splits in (run.predictions[catalogue] for run in self.runs)
            ]
            made[catalogue] = {key: float(np.mean([p[key] for p in parts])) for key in parts[0]}
        return made

    @cached_property
    def first_seed(self) -> Group:
        """The group's first run alone: what pictures, examples and a shipped threshold are of."""
        if len(self.runs) == 1:
            return self
        return Group(self.name, self.runs[:1], self.reference, self.replicates)

    def validation_coverage(self, precision: float) -> float:
        """Open-catalogue coverage at ``precision`` on validation: what a choice may look at."""
        parts = [run.predictions["open"]["validation"] for run in self.runs]
        return float(
            np.mean([coverage_at_precision(p.top_score, p.correct, precision) for p in parts])
        )

    def figures(self) -> dict[str, dict[str, Estimate]]:
        """Every measure, mean over the seeds, with its interval."""
        return {
            catalogue: {key: estimate(value, drawn.get(key)) for key, value in point.items()}
            for catalogue, (point, drawn) in self._measured.items()
        }

    def difference(self, other: Group) -> dict[str, dict[str, Estimate]]:
        """This group minus ``other``, measure by measure, with the paired interval."""
        made: dict[str, dict[str, Estimate]] = {}
        for catalogue in CATALOGUES:
            (point, drawn), (point0, drawn0) = self._measured[catalogue], other._measured[catalogue]
            made[catalogue] = {
                key: estimate(point[key] - point0[key], drawn[key] - drawn0[key])
                for key in DIFFERENCES
            }
        return made


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


def best_group(groups: Sequence[Group], precision: float = 0.9) -> Group:
    """The one to ship: the largest coverage on validation, yardsticks left out; ties to the first.

    Test titles have no say, or its figures there would be too good.
    """
    contenders = [group for group in groups if not group.reference]
    return max(contenders, key=lambda group: group.validation_coverage(precision))


def check_same_data(runs: Sequence[Scored]) -> None:
    """Refuse runs that were scored on different data."""
    first = runs[0]
    for run in runs[1:]:
        if run.fingerprint != first.fingerprint:
            raise RunError(
                f"{first.name} was scored on {first.data.get('name', '?')} ({first.fingerprint}), "
                f"{run.name} on {run.data.get('name', '?')} ({run.fingerprint}): "
                "runs on different data cannot be compared"
            )


def differing_settings(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The settings in which ``configs`` differ, the seed left out, with each one's value."""
    names = {name: None for config in configs for name in config if name != "seed"}
    rows = {name: [config.get(name) for config in configs] for name in names}
    return {
        name: values for name, values in rows.items() if any(v != values[0] for v in values[1:])
    }


def group_names(firsts: Sequence[Scored]) -> list[str]:
    """The loss where that tells the groups apart, and otherwise the settings that differ too."""
    losses = [loss_name(str(run.config.get("loss", run.name))) for run in firsts]
    if len(set(losses)) == len(losses):
        return losses
    rows = differing_settings([run.config for run in firsts])
    rows.pop("loss", None)
    return [
        ", ".join([loss, *(f"{name}={values[place]}" for name, values in rows.items())])
        for place, loss in enumerate(losses)
    ]
