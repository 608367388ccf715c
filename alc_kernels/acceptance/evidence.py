"""Which tokens may differ between a title and its right label: learnt from pairs known to match.

A colour or "sim free" is often in the title alone, a brand in the label is hardly ever left out of
the title. How surprising a difference is comes from the data alone, no list of brands or noise
words: -log of how often a title (a label) with that token matches a label (a title) without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from alc_kernels.acceptance.models import Classifier, read_classifier
from alc_kernels.acceptance.tokens import Tokenizer

STRENGTH = 4.0  # pairs that the rate of all tokens counts as
LEAST = 2  # pairs that a token must be seen in to be kept


@dataclass
class Side:
    """One side's tokens: in how many matching pairs they stood, and stood alone.

    Attributes:
        counts: token -> (pairs, pairs in which the other side lacks it).
        rates: share lacked of tokens without and with a digit, for what is rare or new.
    """

    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    rates: tuple[float, float] = (0.5, 0.5)

    def surprise(self, tokens: Iterable[str]) -> np.ndarray:
        """(n,) how surprising it is that the other side of a match lacks each token; >= 0."""
        made = []
        for token in tokens:
            seen, lacked = self.counts.get(token, (0, 0))
            rate = self.rates[has_digit(token)]
            made.append((lacked + STRENGTH * rate) / (seen + STRENGTH))
        return -np.log(np.array(made, np.float64).reshape(-1))


class Evidence:
    """What matching pairs say about tokens that one side lacks.

    Args:
        queries, labels: the two sides; without any pair all tokens are alike.
    """

    def __init__(self, queries: Side | None = None, labels: Side | None = None) -> None:
        self.queries, self.labels = queries or Side(), labels or Side()

    @classmethod
    def learned(cls, queries: csr_matrix, labels: csr_matrix, names: Sequence[str]) -> Evidence:
        """From P matching pairs.

        Args:
            queries, labels: (P, W) ones for the tokens of each pair's two sides.
            names: the W tokens.
        """
        shared = np.asarray(queries.multiply(labels).sum(axis=0)).ravel()
        digits = np.array([has_digit(name) for name in names], np.bool_)
        sides = []
        for rows in (queries, labels):
            seen = np.asarray(rows.sum(axis=0)).ravel()
            lacked = seen - shared
            rates = tuple(
                float((lacked[kind].sum() + 1.0) / (seen[kind].sum() + 2.0))
                for kind in (~digits, digits)
            )
            kept = np.flatnonzero(seen >= LEAST)
            counts = {names[t]: (int(seen[t]), int(lacked[t])) for t in kept.tolist()}
            sides.append(Side(counts, (rates[0], rates[1])))
        return cls(*sides)

    def to_json(self) -> dict[str, Any]:
        """Counts and rates, for :meth:`from_json`."""
        return {
            name: {"counts": side.counts, "rates": list(side.rates)}
            for name, side in (("queries", self.queries), ("labels", self.labels))
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Evidence:
        """What :meth:`to_json` gave."""
        sides = []
        for name in ("queries", "labels"):
            counts = {str(t): (int(a), int(b)) for t, (a, b) in state[name]["counts"].items()}
            first, second = state[name]["rates"]
            sides.append(Side(counts, (float(first), float(second))))
        return cls(*sides)


@dataclass(frozen=True)
class TextState:
    """All that matching pairs taught about texts.

    Attributes:
        tokenizer: with the units that were found.
        evidence: which tokens may differ.
        titles, names: known titles and the texts of their labels.
        judge: a model over text features, fitted on known titles.
    """

    tokenizer: Tokenizer
    evidence: Evidence = field(default_factory=Evidence)
    titles: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    judge: Classifier | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it, for :meth:`from_json`."""
        judge = self.judge
        return {
            "units": sorted(self.tokenizer.units),
            "evidence": self.evidence.to_json(),
            "titles": list(self.titles),
            "names": list(self.names),
            "judge": None if judge is None else {"kind": judge.kind, **judge.to_json()},
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> TextState:
        """What :meth:`to_json` gave."""
        titles, names = (tuple(map(str, state[name])) for name in ("titles", "names"))
        if len(titles) != len(names):
            raise ValueError(f"{len(titles)} titles, {len(names)} names")
        judge = state["judge"]
        return cls(
            Tokenizer(map(str, state["units"])),
            Evidence.from_json(state["evidence"]),
            titles,
            names,
            None if judge is None else read_classifier(judge["kind"], judge),
        )


def has_digit(token: str) -> bool:
    """Whether a digit of any script is in it."""
    return not token.isalpha() and any(map(str.isdigit, token))
