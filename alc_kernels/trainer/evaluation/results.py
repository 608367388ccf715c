"""``RUN/metrics.json``: every figure with its interval, and how the run came about."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.data.text.texts import add_texts
from alc_kernels.trainer.errors import XMCError
from alc_kernels.trainer.evaluation.predictions import SPLITS, Splits, load_predictions
from alc_kernels.whole import write_whole

if TYPE_CHECKING:
    from alc_kernels.trainer.evaluation.judged import Estimate

# A short name for what runs are scored on, so that only like is compared with like.


def data_fingerprint(dataset: Dataset) -> str:
    """16 hexadecimal digits over labels, held-out labels, and the queries and pairs scored.

    The training split is left out: two runs that were trained on different queries and are scored
    on the same ones may be compared.
    """
    digest = hashlib.sha256()
    add_texts(digest, dataset.labels)
    digest.update(np.packbits(dataset.held_out).tobytes())
    for name in SPLITS:
        split = dataset.splits[name]
        add_texts(digest, split.queries)
        digest.update(split.relation.indptr.astype("<i8").tobytes())
        digest.update(split.relation.indices.astype("<i8").tobytes())
        if split.excluded is not None and split.excluded.nnz:
            digest.update(b"excluded")
            digest.update(split.excluded.indptr.astype("<i8").tobytes())
            digest.update(split.excluded.indices.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


FORMAT = 1


def describe_data(dataset: Dataset, fingerprint: str) -> dict[str, Any]:
    """What a report says of the data, and where ``alc predict`` finds it again."""
    return {
        "name": dataset.name,
        "fingerprint": fingerprint,
        "folder": None if dataset.folder is None else str(dataset.folder.resolve()),
        "description": dataset.description,
        "generated": dataset.generated,
        "protocol": dataset.protocol,
        "counts": dataset.counts(),
    }


def save_results(
    path: Path, measured: Mapping[str, Mapping[str, Estimate]], scored: Scored
) -> None:
    """Write ``metrics.json``, whole or not at all; what is not finite is written as null."""
    content = {
        "format": FORMAT,
        "data": scored.data,
        "config": scored.config,
        "seconds": scored.seconds,
        "acceptance": scored.acceptance,
        "metrics": {
            catalogue: {
                key: {"value": e.value, "interval_95": [e.low, e.high]} for key, e in rows.items()
            }
            for catalogue, rows in measured.items()
        },
        "history": list(scored.history),
    }
    write_whole(path, json.dumps(_plain(content), indent=2) + "\n")


def load_results(path: Path) -> dict[str, Any]:
    """Read ``metrics.json``; :class:`ValueError` names the file when it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: written by another version of alc, train or evaluate again")
    for key in ("data", "config", "metrics", "history", "seconds"):
        if key not in content:
            raise ValueError(f"{path}: has no {key!r}")
    return content


def _plain(value: Any) -> Any:
    """JSON has no infinities and knows no NumPy."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# A run folder as evaluation and reports see it.


PREDICTIONS = "predictions.npz"
METRICS = "metrics.json"
BASELINE = "tfidf.npz"
REPORT = "report.html"
CONFIG = "config.toml"
BASELINE_NAME = "TF-IDF"
COSINE = "cosine"
ACCEPTANCE = "acceptance"  # the rule, and the name of its .json and .npz
WITH_ACCEPTANCE = " + acceptance"  # behind the name of a run
BASELINE_ACCEPTANCE = "tfidf-acceptance"


class RunError(XMCError):
    """A run folder that cannot be read, or runs that cannot be compared."""


@dataclass(frozen=True)
class Kept:
    """The two files of an acceptance model: itself, and what it makes of the data.

    Args:
        folder: of the run.
        name: :data:`ACCEPTANCE` or :data:`BASELINE_ACCEPTANCE`.
    """

    folder: Path
    name: str = ACCEPTANCE

    @property
    def model(self) -> Path:
        """What ``alc_kernels.acceptance.load_acceptance`` reads."""
        return self.folder / f"{self.name}.json"

    @property
    def predictions(self) -> Path:
        """Labels by falling probability; those of validation are out of fold."""
        return self.folder / f"{self.name}.npz"

    def digest(self) -> str:
        """Of the model's file."""
        return hashlib.sha256(self.model.read_bytes()).hexdigest()

    def load(self, fingerprint: str) -> Splits | None:
        """The predictions; None where there is no acceptance model.

        Raises:
            RunError: one of the files is missing, damaged or does not belong to the other, or
                they are of data other than ``fingerprint``.
        """
        there = [path for path in (self.model, self.predictions) if path.is_file()]
        if not there:
            return None
        again = f"fit it again: alc evaluate {self.folder} --data DIR"
        if len(there) < 2:
            missing = self.predictions if there[0] == self.model else self.model
            raise RunError(f"{missing}: is missing beside {there[0].name}; {again}")
        try:
            found, data = load_predictions(self.predictions, self.digest())
        except (OSError, ValueError) as error:
            raise RunError(str(error)) from error
        if data != fingerprint:
            raise RunError(f"{self.predictions}: is of other data than {PREDICTIONS}; {again}")
        return found


@dataclass(frozen=True)
class Scored:
    """A scored run.

    Attributes:
        name: what to call it.
        predictions: catalogue -> split -> predictions.
        fingerprint: of the data it was scored on.
        data: name, description, counts and the like, see ``describe_data``.
        config: the training settings; empty for what was not trained.
        history: one record per epoch.
        seconds: how long training and evaluation took.
        folder: of the run, where it was read from one.
        accepted: the predictions of its acceptance model; None where the score decides.
        acceptance: which acceptance model that is, or why there is none; "" where the run was
            scored by a version without one.
        rule: what ``predictions`` are ordered and accepted by: :data:`COSINE`, or
            :data:`ACCEPTANCE` in :meth:`by_acceptance`.
    """

    name: str
    predictions: Splits
    fingerprint: str
    data: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    history: list[Mapping[str, float]] = field(default_factory=list)
    seconds: Mapping[str, float] = field(default_factory=dict)
    folder: Path | None = None
    accepted: Splits | None = None
    acceptance: str = ""
    rule: str = COSINE

    def by_acceptance(self) -> Scored | None:
        """The same run with its acceptance model deciding; None where it has none."""
        if self.accepted is None:
            return None
        name = f"{self.name}{WITH_ACCEPTANCE}"
        return replace(self, name=name, predictions=self.accepted, rule=ACCEPTANCE)


def load_scored(folder: Path) -> Scored:
    """Read a folder that ``alc train`` wrote.

    Raises:
        RunError: no such folder, not a run, unfinished, or damaged; one line that names the file.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder")
    if not (folder / PREDICTIONS).is_file() or not (folder / METRICS).is_file():
        missing = PREDICTIONS if not (folder / PREDICTIONS).is_file() else METRICS
        unfinished = (folder / CONFIG).exists() or (folder / "checkpoint").exists()
        why = "the run did not finish" if unfinished else "this is not a run of alc train"
        raise RunError(f"{folder}: has no {missing}: {why}")
    try:
        predictions, fingerprint = load_predictions(folder / PREDICTIONS)
        results = load_results(folder / METRICS)
    except (OSError, ValueError) as error:
        raise RunError(str(error)) from error
    return Scored(
        name=folder.name or str(folder.resolve().name),
        predictions=predictions,
        fingerprint=fingerprint,
        data=results["data"],
        config=results["config"],
        history=results["history"],
        seconds=results["seconds"],
        folder=folder,
        accepted=Kept(folder).load(fingerprint),
        acceptance=str(results.get("acceptance", "")),
    )


def load_baseline(folder: Path, beside: Scored) -> Scored | None:
    """The TF-IDF yardstick kept beside a run, if it is there and of the data of ``beside``."""
    if not (folder / BASELINE).is_file():
        return None
    try:
        predictions, found = load_predictions(folder / BASELINE)
    except (OSError, ValueError) as error:
        raise RunError(str(error)) from error
    if found != beside.fingerprint:
        return None
    accepted = Kept(folder, BASELINE_ACCEPTANCE).load(found)
    return Scored(BASELINE_NAME, predictions, found, beside.data, accepted=accepted)


# Settings that do not change what is learned, beside the seed.
UNIMPORTANT = ("seed", "checkpoint_every", "tensorboard", "acceptance")


def settings_key(config: Mapping[str, Any]) -> str:
    """Equal for runs that differ in their seed only."""
    return json.dumps({k: v for k, v in config.items() if k not in UNIMPORTANT}, sort_keys=True)
