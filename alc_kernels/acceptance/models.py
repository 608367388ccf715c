"""From the features of a candidate to the probability that it is right: two models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

ROUNDS = 200
BOOSTING = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.7,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbose": -1,
}
LEAST_LOGISTIC = 60  # queries with a right candidate; below, the score decides
LEAST_BOOSTING = 700
STRENGTH = 0.1  # inverse of the logistic regression's penalty, on features of variance 1


class Classifier(Protocol):
    """What both models can do; values (r, F) float32 with NaN for what is missing."""

    kind: str

    def logits(self, values: np.ndarray) -> np.ndarray: ...  # (r,) float64

    def contributions(self, values: np.ndarray) -> np.ndarray: ...  # (r, F), to the logit

    def to_json(self) -> dict[str, Any]: ...

    @property
    def num_features(self) -> int: ...


class Logistic:
    """Logistic regression on features of mean 0 and variance 1; what is missing counts as the mean.

    Args:
        mean, scale: (F,) of the fitted candidates.
        weights: (2F,) of the scaled features, then of "it is missing".
        bias: of the logit.
    """

    kind = "logistic"

    def __init__(
        self, mean: np.ndarray, scale: np.ndarray, weights: np.ndarray, bias: float
    ) -> None:
        self.mean, self.scale, self.weights, self.bias = mean, scale, weights, bias

    @classmethod
    def fit(cls, values: np.ndarray, right: np.ndarray) -> Logistic:
        """On r candidates, both kinds among them."""
        from sklearn.linear_model import LogisticRegression

        known = ~np.isnan(values)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, values, 0.0).sum(axis=0, dtype=np.float64) / count
        spread = np.where(known, values - mean, 0.0)
        scale = np.sqrt((spread**2).sum(axis=0) / count)
        scale = np.where(scale > 1e-9, scale, 1.0)
        made = cls(mean, scale, np.zeros(2 * len(mean)), 0.0)
        fitted = LogisticRegression(C=STRENGTH, max_iter=1000).fit(made._inputs(values), right)
        return cls(mean, scale, fitted.coef_[0], float(fitted.intercept_[0]))

    def _inputs(self, values: np.ndarray) -> np.ndarray:
        missing = np.isnan(values)
        scaled = np.where(missing, 0.0, (values - self.mean) / self.scale)
        return np.concatenate([scaled, missing], axis=1)

    def logits(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(self._inputs(values) @ self.weights + self.bias)

    def contributions(self, values: np.ndarray) -> np.ndarray:
        parts = self._inputs(values) * self.weights
        return np.asarray(parts[:, : len(self.mean)] + parts[:, len(self.mean) :])

    @property
    def num_features(self) -> int:
        return len(self.mean)

    def to_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "weights": self.weights.tolist(),
            "bias": self.bias,
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Logistic:
        """What :meth:`to_json` gave."""
        mean, scale, weights = (
            np.array(state[name], np.float64) for name in ("mean", "scale", "weights")
        )
        if mean.shape != scale.shape or weights.shape != (2 * len(mean),):
            raise ValueError("coefficients that do not fit together")
        return cls(mean, scale, weights, float(state["bias"]))


class Boosting:
    """Gradient-boosted trees (LightGBM), with one thread and the same bits on every run.

    Args:
        text: LightGBM's own text form.
    """

    kind = "boosting"

    def __init__(self, text: str) -> None:
        self.text = text
        self.booster = _lightgbm().Booster(model_str=text)

    @classmethod
    def fit(
        cls, values: np.ndarray, right: np.ndarray, seed: int = 0, rounds: int = ROUNDS
    ) -> Boosting:
        """On r candidates, both kinds among them."""
        package = _lightgbm()
        # A copy in C order: what the trees see must not depend on how the array was cut out.
        table = package.Dataset(np.ascontiguousarray(values, np.float64), right.astype(np.float64))
        booster = package.train({**BOOSTING, "seed": seed}, table, rounds)
        return cls(booster.model_to_string())

    def logits(self, values: np.ndarray) -> np.ndarray:
        return self._predict(values, raw_score=True)

    def contributions(self, values: np.ndarray) -> np.ndarray:
        return self._predict(values, pred_contrib=True)[:, :-1]

    def _predict(self, values: np.ndarray, **options: Any) -> np.ndarray:
        rows = np.ascontiguousarray(values, np.float64)
        if not len(rows):  # which LightGBM refuses
            return np.empty((0, rows.shape[1] + 1) if "pred_contrib" in options else 0)
        # A row's sum is of one thread, however many there are.
        options["num_threads"] = torch.get_num_threads()
        return np.asarray(self.booster.predict(rows, **options))

    @property
    def num_features(self) -> int:
        return int(self.booster.num_feature())

    def to_json(self) -> dict[str, Any]:
        return {"lightgbm": self.text}


def fit_classifier(answered: int, values: np.ndarray, right: np.ndarray, seed: int) -> Classifier:
    """Boosting where enough queries were answered, else logistic regression."""
    if answered < LEAST_BOOSTING:
        return Logistic.fit(values, right)
    return Boosting.fit(values, right, seed)


def read_classifier(kind: str, state: Mapping[str, Any]) -> Classifier:
    """What ``to_json`` of that kind gave.

    Raises:
        ValueError: no such kind, or numbers that do not fit together.
    """
    if kind == "logistic":
        return Logistic.from_json(state)
    if kind == "boosting":
        return Boosting(str(state["lightgbm"]))
    raise ValueError(f"found the kind {kind!r}, expected logistic or boosting")


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))


def _lightgbm() -> Any:
    try:
        import lightgbm
    except (ImportError, OSError) as error:  # OSError: its library needs another, such as libgomp
        raise ImportError(
            f"boosting needs the package lightgbm ({error}): pip install 'alc-kernels[trainer]', "
            "or take kind='logistic'"
        ) from None
    return lightgbm
