"""The features of a candidate: each with its reason and how it is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Feature:
    """One feature.

    Attributes:
        name: of the column.
        reason: why it tells right candidates from wrong ones.
        how: the way it is computed.
        gap: 1 to take the difference to the largest of the query's other candidates as well, as
            ``name_gap``, -1 to the smallest, 0 for neither.
        group: ablations leave out a group at a time.
    """

    name: str
    reason: str
    how: str
    gap: int = 0
    group: str = "score"


FEATURES: tuple[Feature, ...] = (
    Feature("score", "what the search itself says", "cosine of the embeddings", 1),
    Feature("rank", "second best by the search is a bad sign", "place by score, from 0"),
    Feature("pair_logit", "the pair head was trained to tell matches", "logit, where given", 1),
    Feature("text", "what a model over the texts alone, fitted on known titles, says", "its logit",
            1, "text"),
    Feature(
        "chars", "spelling alone, sees what the embedding smooths over",
        "TF-IDF cosine of character 3-4-grams", 1, "similarity",
    ),
    Feature(
        "chars_covered", "all of the label stands in the title: nothing contradicts",
        "share of the label's n-gram weight that the title has", 1, "similarity",
    ),
    Feature(
        "words", "whole words, rare ones weigh more", "TF-IDF cosine of words", 1, "similarity"
    ),
    Feature(
        "words_covered", "the label's words stand in the title, weighed by rarity",
        "share of the label's squared word weights that the title has", 1, "similarity",
    ),
    Feature("jaccard", "shared words of all words", "|both| / |either|", 1, "similarity"),
    Feature(
        "known", "a title known to mean the label is close",
        "largest n-gram cosine with the label's known titles; missing without one", 1, "known",
    ),
    Feature(
        "known_count", "well-known labels are more often right", "log(1 + known titles)", 0,
        "known",
    ),
    Feature("elsewhere", "another candidate explains more of the title",
            "rarity of the title's words that this label lacks and another candidate has", 0,
            "rival"),
    Feature("twin", "labels that hardly differ are confused",
            "n-gram cosine with the best other candidate's label", 0, "rival"),
    Feature("query_words", "short titles say little", "distinct words of the title", 0, "count"),
    Feature("label_words", "short labels fit much", "distinct words of the label", 0, "count"),
    Feature("digits_shared", "model codes and sizes agree", "shared tokens with a digit", 1,
            "digits"),
    Feature("digits_query", "the label lacks a code of the title",
            "tokens with a digit that only the title has", 0, "digits"),
    Feature("digits_label", "the title lacks a code of the label",
            "tokens with a digit that only the label has", 0, "digits"),
    Feature("code_rarity", "a shared code of few labels identifies",
            "log(labels / labels with the rarest shared token with a digit); 0 for none", 1,
            "digits"),
    Feature("query_rarity", "what the title's rarest code could have told",
            "the same for the title's rarest code that the catalogue has", 0, "digits"),
    Feature("rarest_shared", "the title's rarest code is the label's",
            "1 if the two are the same, 0 if not, missing without a code", 0, "digits"),
    Feature("longest_code", "long codes are not shared by chance",
            "characters of the longest shared token with a digit", 0, "digits"),
    Feature("codes_unknown", "a code that no label has hints at a missing product",
            "tokens with a digit of the title that no label has", 0, "digits"),
    Feature("near_code", "GB6140 is not GM6140: another product of the same series",
            "likeness of the most alike codes that only one side has: common beginning and end "
            "over the longer length; 0 for none", 1, "codes"),
    Feature("code_begins", "GI81NAE30 may be sold as GI81NAE30G",
            "the same over codes of which one begins the other", 0, "codes"),
    Feature("joined_rarity", "BHBF 50 NK is BHBF50NK",
            "code_rarity over codes of up to three words, spaces left out", 1, "codes"),
    Feature("joined_length", "long codes are not shared by chance",
            "characters of the longest one shared", 1, "codes"),
    Feature("units_agree", "the same sizes", "units whose numbers agree", 0, "units"),
    Feature("units_conflict", "64gb is not 128gb",
            "units that both sides have with different numbers only", 0, "units"),
    Feature("bare_conflict", "iPhone 7 is not iPhone 8",
            "1 if both sides have numbers without a unit and share none", 0, "units"),
    Feature("query_surprise", "what only the title has: noise, or another product",
            "sum of -log(how often a match leaves it out of the label)", -1, "surprise"),
    Feature("query_surprise_max", "one strong contradiction is enough", "its largest term", 0,
            "surprise"),
    Feature("label_surprise", "what only the label has: brands are hardly ever left out",
            "sum of -log(how often a match leaves it out of the title)", -1, "surprise"),
    Feature("label_surprise_max", "one strong contradiction is enough", "its largest term", 0,
            "surprise"),
    Feature("first_word", "the first word is often the brand",
            "the label's first word stands in the title (1), and the reverse (1): 0 to 2", 0,
            "surprise"),
)  # fmt: skip
BY_NAME = {feature.name: feature for feature in FEATURES}


@dataclass(frozen=True)
class Features:
    """Numbers about every candidate.

    Attributes:
        names: F column names.
        values: (n, m, F) float32; NaN for what is missing.
        candidates: (n, m) label numbers, -1 where a query has fewer.
    """

    names: tuple[str, ...]
    values: np.ndarray
    candidates: np.ndarray

    def __post_init__(self) -> None:
        expected = (*self.candidates.shape, len(self.names))
        if self.candidates.ndim != 2 or self.values.shape != expected:
            raise ValueError(
                f"features: values have shape {self.values.shape}, expected {expected} "
                "(queries, candidates, names)"
            )
        if len(set(self.names)) < len(self.names):
            raise ValueError("features: a name stands twice")
        if np.isinf(self.values[self.candidates >= 0]).any():
            raise ValueError("features: found an infinite number, expected finite ones or NaN")

    def __len__(self) -> int:
        return len(self.candidates)

    def take(self, rows: np.ndarray) -> Features:
        """Some of the queries."""
        return Features(self.names, self.values[rows], self.candidates[rows])

    def select(self, names: Sequence[str]) -> Features:
        """Some of the columns, in that order.

        Raises:
            ValueError: one is missing.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise ValueError(
                f"features: {', '.join(missing)} missing, have {', '.join(self.names)}"
            )
        columns = [self.names.index(name) for name in names]
        return Features(tuple(names), self.values[:, :, columns], self.candidates)


def with_gaps(columns: Mapping[str, np.ndarray], candidates: np.ndarray) -> Features:
    """Features from columns (n, m), and the gaps that the table asks for."""
    made = dict(columns)
    for name, values in columns.items():
        if name in BY_NAME and (sign := BY_NAME[name].gap):
            made[f"{name}_gap"] = sign * gap(sign * values, candidates)
    values = np.stack([np.asarray(one, np.float32) for one in made.values()], axis=2)
    values[candidates < 0] = np.nan
    return Features(tuple(made), values, candidates)


def gap(values: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """(n, m) each value minus the largest of the other candidates; the value where it is alone."""
    known = np.where((candidates < 0) | np.isnan(values), -np.inf, values).astype(np.float64)
    if known.shape[1] < 2:
        return np.where(np.isinf(known), np.nan, known)
    order = np.sort(known, axis=1)
    best, second = order[:, -1, None], order[:, -2, None]
    other = np.where(known == best, second, best)
    other = np.where(np.isinf(other), 0.0, other)
    return np.where(np.isinf(known), np.nan, known - other)
