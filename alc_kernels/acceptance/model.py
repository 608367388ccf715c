"""The acceptance model: probabilities, reasons, and its file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from alc_kernels.acceptance.candidates import best_first
from alc_kernels.acceptance.evidence import TextState
from alc_kernels.acceptance.models import Classifier, read_classifier, sigmoid
from alc_kernels.acceptance.table import Features
from alc_kernels.acceptance.text import TextFeatures
from alc_kernels.whole import write_whole

REASONS = 3  # features named for a match
FORMAT = 1


class AcceptanceError(ValueError):
    """An acceptance file that cannot be used; one line that names it."""


class AcceptanceModel:
    """How likely each candidate is right. Made by :func:`~alc_kernels.acceptance.fit_acceptance`.

    Args:
        names: the features that it looks at.
        classifier: fitted; None where the feature ``score`` decides.
        answered: validation queries with a right candidate that it was fitted on.

    Raises:
        ValueError: no classifier and no feature ``score``.
    """

    def __init__(
        self, names: tuple[str, ...], classifier: Classifier | None, answered: int
    ) -> None:
        if classifier is None and "score" not in names:
            raise ValueError("features: without a model the feature 'score' decides: it is missing")
        if classifier is not None and classifier.num_features != len(names):
            raise ValueError(f"{len(names)} names for {classifier.num_features} features")
        self.names, self.classifier, self.answered = tuple(names), classifier, answered

    @property
    def kind(self) -> str:
        """``"logistic"``, ``"boosting"`` or ``"none"``."""
        return "none" if self.classifier is None else self.classifier.kind

    def probabilities(self, features: Features) -> np.ndarray:
        """(n, m) float64 of being right, 0 where there is no candidate.

        Without a classifier the scores, -inf where there is none.

        Raises:
            ValueError: a feature is missing.
        """
        taken = features.select(self.names)
        there = taken.candidates >= 0
        if self.classifier is None:
            score = taken.values[:, :, self.names.index("score")].astype(np.float64)
            return np.where(there & ~np.isnan(score), score, -np.inf)
        made = np.zeros(there.shape)
        made[there] = sigmoid(self.classifier.logits(taken.values[there]))
        return made

    def rank(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        """Labels (n, m) and their probabilities (n, m), the most likely first; -1 for none."""
        made = self.probabilities(features)
        order = best_first(made, features.candidates)
        return (
            np.take_along_axis(features.candidates, order, axis=1),
            np.take_along_axis(made, order, axis=1),
        )

    def explain(self, features: Features, places: np.ndarray | None = None) -> list[str]:
        """A line per query: the features that carried its match, and the strongest one against it.

        Args:
            features: of n queries.
            places: (n,) the candidate to explain; None for the best one.
        """
        taken = features.select(self.names)
        if places is None:
            places = best_first(self.probabilities(features), features.candidates)[:, 0]
        rows = np.arange(len(taken))
        values = taken.values[rows, places]
        found = taken.candidates[rows, places] >= 0
        if self.classifier is None:
            column = self.names.index("score")
            return [
                f"score {value[column]:.3g} (no acceptance model)" if there else "no candidate"
                for value, there in zip(values, found, strict=True)
            ]
        parts = self.classifier.contributions(values)
        return [
            _line(self.names, value, part) if there else "no candidate"
            for value, part, there in zip(values, parts, found, strict=True)
        ]

    def save(self, path: str | Path, text: TextFeatures | TextState | None = None) -> None:
        """Write one file, whole or not at all; the same model gives the same bytes.

        Args:
            path: usually ``acceptance.json``.
            text: what made its text features, or what those were taught, to be kept with it.
        """
        state = text.state if isinstance(text, TextFeatures) else text
        body: dict[str, Any] = {
            "kind": self.kind,
            "names": list(self.names),
            "answered": self.answered,
            "classifier": None if self.classifier is None else self.classifier.to_json(),
            "text": None if state is None else state.to_json(),
        }
        _save_body(Path(path), body)


def load_acceptance(path: str | Path) -> tuple[AcceptanceModel, TextState | None]:
    """The model that :meth:`AcceptanceModel.save` wrote, and what its text features were taught.

    No code of the file is run. Text features of a catalogue are then
    ``TextFeatures(labels, state)``.

    Raises:
        AcceptanceError: missing, cut off, changed, of another version; one line with the name.
    """
    path = Path(path)
    body = _load_body(path)
    try:
        kind, names = body["kind"], tuple(str(name) for name in body["names"])
        classifier = None if kind == "none" else read_classifier(kind, body["classifier"])
        model = AcceptanceModel(names, classifier, int(body["answered"]))
        state = None if body["text"] is None else TextState.from_json(body["text"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AcceptanceError(f"{path}: damaged ({error})") from error
    return model, state


def _line(names: tuple[str, ...], values: np.ndarray, parts: np.ndarray) -> str:
    order = np.argsort(-parts, kind="stable")

    def told(place: int) -> str:
        value = "missing" if np.isnan(values[place]) else f"{values[place]:.3g}"
        return f"{names[place]} {value} ({parts[place]:+.2f})"

    carried = [told(place) for place in order[:REASONS].tolist() if parts[place] > 0]
    against = told(int(order[-1])) if parts[order[-1]] < 0 else ""
    line = "for: " + (", ".join(carried) or "nothing")
    return f"{line}; against: {against}" if against else line


# One JSON file with a checksum: nothing in it is run when it is read.


def _save_body(path: Path, body: dict[str, Any]) -> None:
    """Write ``body``, whole or not at all."""
    text = _text(body)
    write_whole(path, json.dumps({"format": FORMAT, "sha256": _digest(text)})[:-1] + ', "body": '
                + text + "}\n")  # fmt: skip


def _load_body(path: Path) -> dict[str, Any]:
    """What :func:`_save_body` wrote.

    Raises:
        AcceptanceError: missing, cut off, changed, or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AcceptanceError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError:
        raise AcceptanceError(f"{path}: cut off, or not an acceptance file") from None
    if not isinstance(content, dict) or set(content) != {"format", "sha256", "body"}:
        raise AcceptanceError(f"{path}: not an acceptance file")
    if content["format"] != FORMAT:
        raise AcceptanceError(
            f"{path}: format {content['format']}, expected {FORMAT}: another version wrote it, "
            "fit it again"
        )
    body = content["body"]
    if not isinstance(body, dict) or _digest(_text(body)) != content["sha256"]:
        raise AcceptanceError(f"{path}: changed since it was written (its checksum does not fit)")
    return body


def _text(body: dict[str, Any]) -> str:
    # Numbers are written so that they read back to the same bits.
    return json.dumps(body, ensure_ascii=False, sort_keys=True, allow_nan=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
