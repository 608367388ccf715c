"""TF-IDF over character n-grams and words: cosines of given pairs, and the best labels of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags

PAIRS_PER_PASS = 1 << 16
QUERIES_PER_PASS = 256
WORDS_KEPT = 1 << 17  # whose n-grams are kept
KNOWN_PER_LABEL = 16  # titles of a label that are looked at, the first ones


class CharacterGrams:
    """TF-IDF of character 3-4-grams within words, document frequencies of the labels.

    Args:
        labels: L label texts.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        # Imported here: scikit-learn is an optional package.
        from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

        # scikit-learn's "char_wb", cut word by word: words stand in many texts.
        cut = lru_cache(WORDS_KEPT)(_grams)
        counter = CountVectorizer(
            analyzer=lambda text: [gram for word in text.lower().split() for gram in cut(word)],
            dtype=np.float32,
        )
        counts = counter.fit_transform(labels)
        self.tfidf = TfidfTransformer(sublinear_tf=True).fit(counts)
        self.columns: dict[str, int] = counter.vocabulary_
        self.labels: csr_matrix = self.tfidf.transform(counts, copy=False)  # (L, G), of length 1
        self._of_word = lru_cache(WORDS_KEPT)(self._known)
        self._columns = self.labels.T.tocsr()
        self._last: tuple[tuple[str, ...], csr_matrix] | None = None

    def queries(self, texts: Sequence[str]) -> csr_matrix:
        """(n, G), rows of length 1, or 0 where no n-gram is known.

        The last ones are kept: titles are searched for first, then compared with what was found.
        """
        asked = tuple(texts)
        last = self._last  # read once: another thread may put its own in its place
        if last is None or last[0] != asked:
            last = self._last = (asked, self._vectors(asked))
        return last[1]

    def _known(self, word: str) -> list[int]:
        """The columns of a word's n-grams, those that a label has."""
        return [self.columns[gram] for gram in _grams(word) if gram in self.columns]

    def _vectors(self, texts: Sequence[str]) -> csr_matrix:
        each = [list(map(self._of_word, text.lower().split())) for text in texts]
        starts = np.cumsum([0, *(sum(map(len, words)) for words in each)])
        flat = chain.from_iterable(chain.from_iterable(each))
        indices = np.fromiter(flat, np.int32, starts[-1])
        shape = (len(each), len(self.columns))
        counts = csr_matrix((np.ones(len(indices), np.float32), indices, starts), shape)
        counts.sum_duplicates()
        return self.tfidf.transform(counts, copy=False)

    def topk(self, queries: csr_matrix, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best labels of each query.

        Returns:
            Label numbers (n, k) int64 and cosines (n, k) float32, best first, ties to the smaller
            label; k is at most the number of labels.
        """
        k = min(k, self.labels.shape[0])
        columns = self._columns
        found = np.empty((queries.shape[0], k), np.int64)
        scores = np.empty((queries.shape[0], k), np.float32)
        for start in range(0, len(found), QUERIES_PER_PASS):
            part = slice(start, start + QUERIES_PER_PASS)
            dense = (queries[part] @ columns).toarray()  # (part, L)
            found[part], scores[part] = _largest(dense, k)
        return found, scores


def _grams(word: str) -> list[str]:
    """The 3-grams of a word with a space at both its ends, then the 4-grams; short ones once."""
    spaced = f" {word} "
    made = [spaced[start : start + 3] for start in range(len(spaced) - 2)]
    if len(spaced) > 3:
        made += [spaced[start : start + 4] for start in range(len(spaced) - 3)]
    return made


def _largest(dense: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values (n, k) of the k largest of each row, ties to the smaller column."""
    # torch finds the largest of many equal numbers several times faster than NumPy.
    top = torch.from_numpy(dense).topk(min(k + 1, dense.shape[1]), dim=1)
    values, columns = top.values.numpy(), top.indices.numpy()
    order = np.lexsort((columns[:, :k], -values[:, :k]), axis=1)
    found = np.take_along_axis(columns[:, :k], order, axis=1)
    scores = np.take_along_axis(values[:, :k], order, axis=1)
    if values.shape[1] > k:
        # Where the next one is as large, all that tie with it compete.
        tied = np.flatnonzero(values[:, k] == values[:, k - 1])
        row, column = np.nonzero(dense[tied] >= values[tied, k - 1, None])
        order = np.lexsort((column, -dense[tied[row], column], row))
        first = np.searchsorted(row, np.arange(len(tied)))
        taken = order[first[:, None] + np.arange(k)]
        found[tied] = column[taken]
        scores[tied] = np.take_along_axis(dense[tied], found[tied], axis=1)
    return found, scores


class KnownTitles:
    """Titles known to match each label.

    Args:
        grams: of the catalogue.
        titles: K titles.
        labels: (K,) the label of each, -1 for one that is not in the catalogue.
        count: L.
    """

    def __init__(
        self, grams: CharacterGrams, titles: Sequence[str], labels: np.ndarray, count: int
    ) -> None:
        order = np.argsort(labels, kind="stable")
        order = order[labels[order] >= 0]
        starts = np.searchsorted(labels[order], np.arange(count + 1))
        place = np.arange(len(order)) - starts[labels[order]]
        self.order = order[place < KNOWN_PER_LABEL]
        self.starts = np.searchsorted(labels[self.order], np.arange(count + 1))
        self.count = np.diff(starts)
        self.any = len(titles) > 0
        self.vectors = grams.queries([titles[row] for row in self.order]) if len(order) else None

    def __call__(
        self, queries: csr_matrix, rows: np.ndarray, labels: np.ndarray
    ) -> dict[str, np.ndarray]:
        """``known`` and ``known_count`` of the pairs (P,); nothing where no title was given.

        Of which titles there are, none need be of this catalogue: the columns stay the same.
        """
        if not self.any:
            return {}
        if self.vectors is None:
            return {"known": np.full(len(rows), np.nan), "known_count": np.zeros(len(rows))}
        start, counts = self.starts[labels], np.diff(self.starts)[labels]
        pair = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
        title = np.repeat(start, counts) + within
        cosines = pair_cosines(queries, self.vectors, rows[pair], title).astype(np.float64)
        best = np.full(len(rows), -1.0)
        np.maximum.at(best, pair, cosines)
        return {
            "known": np.where(best < 0, np.nan, best),
            "known_count": np.log1p(self.count[labels]),
        }


def rarity_of(labels: csr_matrix) -> np.ndarray:
    """(W,) log(L / labels with the token), at most log(L + 1) for a token that none has."""
    count = labels.getnnz(axis=0)
    return np.log((labels.shape[0] + 1.0) / np.maximum(count, 1)).astype(np.float64)


def weighted(rows: csr_matrix, weights: np.ndarray) -> csr_matrix:
    """Rows (n, V) with columns weighted by (V,), scaled to length 1 (0 stays 0)."""
    made = (rows @ diags(weights)).tocsr().astype(np.float32)
    length = np.sqrt(made.multiply(made).sum(axis=1).A1)
    return (diags(1.0 / np.where(length > 0, length, 1.0)) @ made).tocsr().astype(np.float32)


def passes(count: int, size: int = PAIRS_PER_PASS) -> Iterator[slice]:
    """Slices of at most ``size`` that cover ``count``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def pair_cosines(
    left: csr_matrix, right: csr_matrix, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """(P,) float32 inner products of ``left[rows[p]]`` and ``right[columns[p]]``."""
    made = np.empty(len(rows), np.float32)
    for part in passes(len(rows)):
        made[part] = left[rows[part]].multiply(right[columns[part]]).sum(axis=1).A1
    return made


def row_max(matrix: csr_matrix, weights: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """(n,) the largest of ``weights`` (V,) over each row's stored columns; ``empty`` for none."""
    if not matrix.nnz:
        return np.full(matrix.shape[0], empty)
    starts = matrix.indptr[:-1]
    filled = np.diff(matrix.indptr) > 0
    made = np.full(matrix.shape[0], empty)
    made[filled] = np.maximum.reduceat(weights[matrix.indices], starts[filled])
    return made


def drawn(count: int, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of ``count`` rows, ascending, each as likely as the others."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])
