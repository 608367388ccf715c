"""Features from the texts of titles and labels, in any language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_matrix

from alc_kernels.acceptance.codes import CodeFeatures
from alc_kernels.acceptance.evidence import Evidence, TextState
from alc_kernels.acceptance.models import LEAST_LOGISTIC, Classifier, fit_classifier
from alc_kernels.acceptance.similarity import (
    CharacterGrams,
    KnownTitles,
    drawn,
    pair_cosines,
    passes,
    rarity_of,
    row_max,
    weighted,
)
from alc_kernels.acceptance.table import BY_NAME, Features, with_gaps
from alc_kernels.acceptance.tokens import Tokenizer, Tokens, Vocabulary, widened

KNOWN_PAIRS = 200_000  # kept at most, drawn evenly
JUDGE_TITLES = 10_000  # that the model over known titles is fitted on, at most
JUDGE_CANDIDATES = 10


class TextFeatures:
    """Text features of candidates, against one catalogue.

    Args:
        labels: L label texts.
        state: what matching pairs have taught (:meth:`learned`); None for nothing.
    """

    def __init__(self, labels: Sequence[str], state: TextState | None = None) -> None:
        if not len(labels):
            raise ValueError("labels: found none, expected at least one")
        self.state = TextState(Tokenizer.learned(labels)) if state is None else state
        self.tokenizer = self.state.tokenizer
        tokens = [self.tokenizer(text) for text in labels]
        self.words = Vocabulary([one.words for one in tokens])
        self.codes = CodeFeatures(tokens)
        self.first = np.array([self.words.columns.get(_first(one), -1) for one in tokens])
        # What queries do not change, for the catalogue's words; their own come behind them.
        self.rarity = rarity_of(self.words.labels)
        self.vectors = weighted(self.words.labels, self.rarity)
        sides = self.state.evidence.queries, self.state.evidence.labels
        self.surprise = [side.surprise(self.words.columns) for side in sides]
        self.grams = CharacterGrams(labels)
        self.known = KnownTitles(self.grams, self.state.titles, self._numbers(labels), len(labels))

    def _numbers(self, labels: Sequence[str]) -> np.ndarray:
        """(K,) the label of each known title; -1 where the catalogue does not have it."""
        first: dict[str, int] = {}
        for number, text in enumerate(labels):
            first.setdefault(text, number)
        return np.array([first.get(name, -1) for name in self.state.names], np.int64)

    @classmethod
    def learned(
        cls, labels: Sequence[str], titles: Sequence[str], of: np.ndarray, *, seed: int = 0
    ) -> TextFeatures:
        """Taught by titles known to match: the pairs of training.

        They teach which tokens may differ, are compared with new titles themselves, and a model
        over the text features of their n-gram candidates is fitted, whose logit is a feature
        (``text``). None of it looks at an embedding, which has seen these titles.

        Args:
            labels: L label texts.
            titles: K titles, one again for each of its labels.
            of: (K,) number of the label that each matches.
            seed: of the titles drawn for the model where there are many, and of its trees.

        Raises:
            ValueError: lengths that differ, or a label that there is not.
        """
        of = np.asarray(of, np.int64)
        if of.shape != (len(titles),) or (len(of) and not 0 <= of.min() <= of.max() < len(labels)):
            raise ValueError(
                f"of: found shape {of.shape}, expected ({len(titles)},) numbers from 0 to "
                f"{len(labels) - 1}"
            )
        tokenizer = Tokenizer.learned([*labels, *titles])
        words = Vocabulary([tokenizer(text).words for text in labels])
        queries, names, new = words.rows([tokenizer(text).words for text in titles])
        evidence = Evidence.learned(queries, names[of], [*words.columns, *new])
        kept = drawn(len(titles), KNOWN_PAIRS, seed)
        state = TextState(
            tokenizer, evidence, tuple(titles[row] for row in kept),
            tuple(labels[of[row]] for row in kept),
        )  # fmt: skip
        made = cls(labels, state)
        made.state = replace(state, judge=made._judge(titles, of, seed))
        return made

    def _judge(self, titles: Sequence[str], of: np.ndarray, seed: int) -> Classifier | None:
        """A model over the text features of known titles; None where they are few."""
        labels_of: dict[str, list[int]] = {}
        for title, label in zip(titles, of.tolist(), strict=True):
            labels_of.setdefault(title, []).append(label)
        texts = list(labels_of)
        texts = [texts[row] for row in drawn(len(texts), JUDGE_TITLES, seed)]
        if len(texts) < LEAST_LOGISTIC:
            return None
        candidates, _ = self.search(texts, JUDGE_CANDIDATES)
        width = max(len(labels_of[text]) for text in texts)
        right_labels = np.full((len(texts), width), -2)
        for row, text in enumerate(texts):
            right_labels[row, : len(labels_of[text])] = labels_of[text]
        right = (candidates[:, :, None] == right_labels[:, None]).any(axis=2)
        features = self(texts, candidates)
        values = features.select(self._judged_by(features.names)).values[candidates >= 0]
        if right.all() or not right.any():
            return None
        return fit_classifier(len(texts), values, right[candidates >= 0], seed)

    @staticmethod
    def _judged_by(names: Sequence[str]) -> list[str]:
        """What the model over known titles looks at.

        Not the known titles themselves: its own are among them.
        """
        own = [name for name in BY_NAME if BY_NAME[name].group not in ("score", "known", "text")]
        return [name for name in names if name.removesuffix("_gap") in own]

    def search(self, queries: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best labels by TF-IDF of n-grams: numbers (n, k) and cosines (n, k)."""
        return self.grams.topk(self.grams.queries(queries), k)

    def __call__(
        self,
        queries: Sequence[str],
        candidates: np.ndarray,
        given: Mapping[str, np.ndarray] | None = None,
    ) -> Features:
        """Features of every candidate.

        Args:
            queries: n titles.
            candidates: (n, m) label numbers, -1 for none.
            given: further columns (n, m), such as ``score``; ``rank`` is added to a score.

        Raises:
            ValueError: shapes that do not fit, or a label number too large.
        """
        if candidates.ndim != 2 or len(candidates) != len(queries):
            raise ValueError(
                f"candidates: found shape {candidates.shape}, expected ({len(queries)}, m)"
            )
        if candidates.max(initial=-1) >= len(self.first):
            raise ValueError(
                f"candidates: found label {candidates.max()}, expected at most "
                f"{len(self.first) - 1}"
            )
        columns = _given(given or {}, candidates)
        place = np.nonzero(candidates >= 0)
        rows, labels = place[0], candidates[place]
        tokens = [self.tokenizer(text) for text in queries]
        grams = self.grams.queries(queries)
        words = self.words.rows([one.words for one in tokens])
        found = self._similarity(grams, (tokens, *words), rows, labels)
        found |= self._rivals(words[:2], candidates, columns, found["chars"])
        found |= self.known(grams, rows, labels)
        found |= self.codes(tokens, rows, labels)
        for name, values in found.items():
            column = np.full(candidates.shape, np.nan)
            column[place] = values
            columns[name] = column
        made = with_gaps(columns, candidates)
        judge = self.state.judge
        if judge is None:
            return made
        logit = np.full(candidates.shape, np.nan)
        logit[place] = judge.logits(made.select(self._judged_by(made.names)).values[place])
        return with_gaps({**columns, "text": logit}, candidates)

    def _rarity(self, width: int) -> np.ndarray:
        """(W,) of the catalogue's words, then of those that no label has."""
        unknown = np.full(width - len(self.rarity), len(self.first) + 1.0)
        return np.concatenate([self.rarity, np.log(unknown)])

    def _similarity(
        self,
        grams: csr_matrix,
        words: tuple[Sequence[Tokens], csr_matrix, csr_matrix, list[str]],
        rows: np.ndarray,
        labels: np.ndarray,
    ) -> dict[str, np.ndarray]:
        tokens, queries, names, new = words
        query_surprise, label_surprise = (
            np.concatenate([known, side.surprise(new)])
            for known, side in zip(
                self.surprise, (self.state.evidence.queries, self.state.evidence.labels),
                strict=True,
            )
        )  # fmt: skip
        query_vectors = weighted(queries, self._rarity(names.shape[1]))
        label_vectors = widened(self.vectors, names.shape[1])
        in_query, in_label = queries.getnnz(axis=1)[rows], names.getnnz(axis=1)[labels]
        first = np.array([self.words.columns.get(_first(one), -1) for one in tokens])
        firsts = _has(names, labels, first[rows]) + _has(queries, rows, self.first[labels])
        made = {name: np.empty(len(rows)) for name in _WORDS}
        for part in passes(len(rows)):
            of_query, of_label = queries[rows[part]], names[labels[part]]
            both = of_query.multiply(of_label).tocsr()
            shared = both.getnnz(axis=1)
            either = in_query[part] + in_label[part] - shared
            made["jaccard"][part] = shared / np.maximum(either, 1)
            total = self.grams.labels[labels[part]].multiply(self.grams.labels[labels[part]])
            has = grams[rows[part]].astype(bool).astype(np.float32)
            made["chars_covered"][part] = total.multiply(has).sum(axis=1).A1
            squared = label_vectors[labels[part]].power(2)
            made["words_covered"][part] = squared.multiply(of_query).sum(axis=1).A1
            for side, own, surprise in (
                ("query", of_query, query_surprise), ("label", of_label, label_surprise)
            ):  # fmt: skip
                alone = own - both
                alone.eliminate_zeros()
                made[f"{side}_surprise"][part] = alone @ surprise
                made[f"{side}_surprise_max"][part] = row_max(alone, surprise)
        return {
            "chars": pair_cosines(grams, self.grams.labels, rows, labels),
            "words": pair_cosines(query_vectors, label_vectors, rows, labels),
            **made,
            "query_words": in_query,
            "label_words": in_label,
            "first_word": firsts,
        }

    def _rivals(
        self,
        words: tuple[csr_matrix, csr_matrix],
        candidates: np.ndarray,
        given: Mapping[str, np.ndarray],
        chars: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """What the query's other candidates have."""
        rows, at = np.nonzero(candidates >= 0)
        labels = candidates[rows, at]
        queries, names = words
        rarity = self._rarity(names.shape[1])
        ones = np.ones(len(rows), np.float32)
        of = csr_matrix((ones, (rows, labels)), (len(candidates), names.shape[0]))
        anywhere = (of @ names).multiply(queries).tocsr().sign()  # (n, W)
        elsewhere = (anywhere @ rarity)[rows]
        likeness = np.full(candidates.shape, -np.inf)
        likeness[rows, at] = chars
        if "score" in given:
            likeness = np.where(np.isnan(given["score"]), likeness, given["score"])
        order = np.argsort(-likeness, axis=1, kind="stable")
        rival = np.where(
            at == order[rows, 0], order[rows, min(1, candidates.shape[1] - 1)], order[rows, 0]
        )
        other = candidates[rows, rival]
        alone = (other < 0) | (rival == at)
        twin = pair_cosines(self.grams.labels, self.grams.labels, labels, np.maximum(other, 0))
        for part in passes(len(rows)):
            both = queries[rows[part]].multiply(names[labels[part]]).tocsr()
            elsewhere[part] -= both @ rarity
        return {"elsewhere": elsewhere, "twin": np.where(alone, np.nan, twin)}


_WORDS = ("jaccard", "chars_covered", "words_covered", "query_surprise", "query_surprise_max",
          "label_surprise", "label_surprise_max")  # fmt: skip


def _given(given: Mapping[str, np.ndarray], candidates: np.ndarray) -> dict[str, np.ndarray]:
    for name, values in given.items():
        if np.shape(values) != candidates.shape:
            raise ValueError(
                f"{name}: found shape {np.shape(values)}, expected {candidates.shape} as candidates"
            )
    # Rounded first, so that values that were kept as float32 give the same gaps.
    columns = {
        name: np.asarray(values, np.float32).astype(np.float64) for name, values in given.items()
    }
    if "score" in columns:
        score = np.where(np.isnan(columns["score"]) | (candidates < 0), -np.inf, columns["score"])
        order = np.argsort(-score, axis=1, kind="stable")
        columns["rank"] = np.argsort(order, axis=1).astype(np.float64)
    return columns


def _has(rows: csr_matrix, which: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(P,) whether row ``which[p]`` has column ``columns[p]``; -1 is in none."""
    width = rows.shape[1]
    keys = np.repeat(np.arange(rows.shape[0], dtype=np.int64), rows.getnnz(axis=1)) * width
    keys += rows.indices
    asked = which.astype(np.int64) * width + columns
    if not len(keys):
        return np.zeros(len(which))
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return ((keys[place] == asked) & (columns >= 0)).astype(np.float64)


def _first(tokens: Tokens) -> str:
    return tokens.words[0] if tokens.words else ""
