"""``RUN/metrics.json``: every figure with its interval, and how the run came about."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.data.text.texts import add_texts
from alc_kernels.trainer.errors import XMCError
from alc_kernels.whole import whole_file, write_whole

if TYPE_CHECKING:
    from alc_kernels.trainer.evaluation.judged import Estimate

# What a run predicted: the nearest labels of every query, kept in ``RUN/predictions.npz``.
#
# Every figure and picture of a report comes from this file, so a run can be judged again, at
# another precision or against another run, without its encoder and without its data.


CATALOGUES = ("open", "closed")
SPLITS = ("validation", "test")
PREDICTIONS_FORMAT = 2


@dataclass(frozen=True)
class Predictions:
    """The answers to one split's queries against one catalogue.

    Attributes:
        indices: (N, k) int64 label numbers, best first; -1 where the catalogue ran out.
        scores: (N, k) float32 similarities; -inf there.
        hits: (N, k) bool, whether that label is right.
        gains: (N, k) float64, the inverse propensity of a label that is right, else 0.
        ideal: (N, k) float64, what the best ranking gains: column r is the sum of the r + 1
            largest inverse propensities of the query's right labels in the catalogue.
        num_positives: (N,) int64, how many right labels the catalogue holds for the query.
        group: (N,) int64, the query's product, in the catalogue or not: its first true label, or
            a number above all labels'; the unit of the bootstrap. -1 where none is known.
    """

    indices: np.ndarray
    scores: np.ndarray
    hits: np.ndarray
    gains: np.ndarray
    ideal: np.ndarray
    num_positives: np.ndarray
    group: np.ndarray

    @property
    def top_score(self) -> np.ndarray:
        """(N,) float64 score of each query's best label."""
        return self.scores[:, 0].astype(np.float64)

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool, whether the best label is right."""
        return self.hits[:, 0]

    @property
    def answerable(self) -> np.ndarray:
        """(N,) bool, whether the catalogue holds a right label."""
        return self.num_positives > 0

    def __len__(self) -> int:
        return len(self.indices)


Splits = Mapping[str, Mapping[str, Predictions]]  # catalogue -> split -> predictions


def leading_catalogue(predictions: Splits) -> str:
    """The catalogue that figures are read off first: ``"open"`` where there is one."""
    return next(name for name in CATALOGUES if name in predictions)


def save_predictions(path: Path, predictions: Splits, fingerprint: str) -> None:
    """Write ``predictions`` to ``path``, whole or not at all."""
    arrays = {
        f"{catalogue}/{split}/{field.name}": getattr(splits[split], field.name)
        for catalogue, splits in predictions.items()
        for split in SPLITS
        for field in fields(Predictions)
    }
    arrays["catalogues"] = np.array([name for name in CATALOGUES if name in predictions])
    arrays["fingerprint"] = np.array(fingerprint)
    arrays["format"] = np.array(PREDICTIONS_FORMAT)
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_predictions(path: Path) -> tuple[dict[str, dict[str, Predictions]], str]:
    """Read what :func:`save_predictions` wrote: predictions and the data's fingerprint.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another format; the message names it.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if int(archive["format"]) != PREDICTIONS_FORMAT:
                raise ValueError(
                    f"{path}: written by another version of alc; score the run again: "
                    f"alc evaluate {path.parent} --data DIR"
                )
            catalogues = [str(name) for name in archive["catalogues"]]
            loaded = {
                catalogue: {
                    split: Predictions(
                        *(archive[f"{catalogue}/{split}/{f.name}"] for f in fields(Predictions))
                    )
                    for split in SPLITS
                }
                for catalogue in catalogues
            }
            fingerprint = str(archive["fingerprint"])
    except (KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged or not a predictions file ({error})") from error
    if not loaded or not set(loaded) <= set(CATALOGUES):
        raise ValueError(
            f"{path}: found catalogues {', '.join(loaded) or 'none'}, expected some of "
            f"{', '.join(CATALOGUES)}"
        )
    for catalogue, splits in loaded.items():
        for split, part in splits.items():
            _check(part, f"{path}: {catalogue} {split}")
    return loaded, fingerprint


def _check(part: Predictions, where: str) -> None:
    shape = part.indices.shape
    ranked = (part.scores, part.hits, part.gains, part.ideal)
    if len(shape) != 2 or any(array.shape != shape for array in ranked):
        raise ValueError(f"{where}: indices, scores, hits and gains differ in shape")
    if part.num_positives.shape != shape[:1] or part.group.shape != shape[:1]:
        raise ValueError(f"{where}: {shape[0]} queries, but the counts per query do not match")


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
    path: Path,
    measured: Mapping[str, Mapping[str, Estimate]],
    *,
    data: Mapping[str, Any],
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    seconds: Mapping[str, float],
) -> None:
    """Write ``metrics.json``, whole or not at all; what is not finite is written as null."""
    content = {
        "format": FORMAT,
        "data": data,
        "config": config,
        "seconds": seconds,
        "metrics": {
            catalogue: {
                key: {"value": e.value, "interval_95": [e.low, e.high]} for key, e in rows.items()
            }
            for catalogue, rows in measured.items()
        },
        "history": list(history),
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


class RunError(XMCError):
    """A run folder that cannot be read, or runs that cannot be compared."""


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
    """

    name: str
    predictions: Splits
    fingerprint: str
    data: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    history: list[Mapping[str, float]] = field(default_factory=list)
    seconds: Mapping[str, float] = field(default_factory=dict)
    folder: Path | None = None


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
    )


def load_baseline(folder: Path, fingerprint: str) -> Scored | None:
    """The TF-IDF yardstick kept beside a run, if it is there and of the data ``fingerprint``."""
    if not (folder / BASELINE).is_file():
        return None
    try:
        predictions, found = load_predictions(folder / BASELINE)
    except (OSError, ValueError) as error:
        raise RunError(str(error)) from error
    return Scored(BASELINE_NAME, predictions, found) if found == fingerprint else None


# Settings that do not change what is learned, beside the seed.
UNIMPORTANT = ("seed", "checkpoint_every", "tensorboard")


def settings_key(config: Mapping[str, Any]) -> str:
    """Equal for runs that differ in their seed only."""
    return json.dumps({k: v for k, v in config.items() if k not in UNIMPORTANT}, sort_keys=True)
