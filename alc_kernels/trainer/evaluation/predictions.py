"""What a run predicted: the nearest labels of every query, kept in ``RUN/predictions.npz``.

Every figure and picture of a report comes from this file, so a run can be judged again, at
another precision or against another run, without its encoder and without its data.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from alc_kernels.whole import whole_file

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


def save_predictions(path: Path, predictions: Splits, fingerprint: str, model: str = "") -> None:
    """Write ``predictions`` to ``path``, whole or not at all.

    Args:
        path: of the file.
        predictions: what to keep.
        fingerprint: of the data set.
        model: digest of the acceptance file that made them; empty for those of a score.
    """
    arrays = {
        f"{catalogue}/{split}/{field.name}": getattr(splits[split], field.name)
        for catalogue, splits in predictions.items()
        for split in SPLITS
        for field in fields(Predictions)
    }
    arrays["catalogues"] = np.array([name for name in CATALOGUES if name in predictions])
    arrays["fingerprint"] = np.array(fingerprint)
    arrays["format"] = np.array(PREDICTIONS_FORMAT)
    arrays["model"] = np.array(model)
    arrays["sha256"] = np.array(_digest(arrays))
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def load_predictions(path: Path, model: str = "") -> tuple[dict[str, dict[str, Predictions]], str]:
    """Read what :func:`save_predictions` wrote: predictions and the data's fingerprint.

    Args:
        path: of the file.
        model: digest of the acceptance file that must have made them; empty for none.

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
            if "sha256" in archive:  # files of older versions have none
                arrays = {name: archive[name] for name in archive.files}
                if str(arrays.pop("sha256")) != _digest(arrays):
                    raise ValueError(
                        f"{path}: changed since it was written (its checksum does not fit)"
                    )
            catalogues = [str(name) for name in archive["catalogues"]]
            if model and ("model" not in archive or str(archive["model"]) != model):
                raise ValueError(
                    f"{path}: was not made by the acceptance model beside it; fit it again: "
                    f"alc evaluate {path.parent} --data DIR"
                )
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
