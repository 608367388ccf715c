"""Features of product codes, sizes and other tokens with a digit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from alc_kernels.acceptance.evidence import has_digit
from alc_kernels.acceptance.similarity import passes, rarity_of, row_max
from alc_kernels.acceptance.tokens import BARE, Tokens, Vocabulary

SHORTEST, LONGEST = 4, 24  # characters of a code that is compared with spaces left out
SPAN = 3  # words of one


class CodeFeatures:
    """Which codes and numbers the two sides share, lack, or have with a small difference.

    Args:
        labels: tokens of the L labels.
    """

    def __init__(self, labels: Sequence[Tokens]) -> None:
        self.codes = Vocabulary([_codes(one) for one in labels])
        self.joined = Vocabulary([_joined(one) for one in labels])
        self.numbers = Vocabulary([map(_number, one.numbers) for one in labels])
        self.units = Vocabulary([_units(one) for one in labels])

    def __call__(
        self, tokens: Sequence[Tokens], rows: np.ndarray, labels: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Columns of the pairs (P,): query ``rows[p]``, label ``labels[p]``."""
        return {
            **self._shared(tokens, rows, labels),
            **self._spelt_apart(tokens, rows, labels),
            **self._units(tokens, rows, labels),
        }

    def _shared(
        self, tokens: Sequence[Tokens], rows: np.ndarray, labels: np.ndarray
    ) -> dict[str, np.ndarray]:
        queries, names, new = self.codes.rows([_codes(one) for one in tokens])
        rarity = rarity_of(names)
        known = np.arange(queries.shape[1]) < len(self.codes.columns)
        length = np.array([len(code) for code in [*self.codes.columns, *new]], np.float64)
        in_query, in_label = queries.getnnz(axis=1)[rows], names.getnnz(axis=1)[labels]
        query_rarity = row_max(queries, np.where(known, rarity, 0.0))[rows]
        unknown = (queries @ (~known).astype(np.float64))[rows]
        words = [*self.codes.columns, *new]
        shared, best, longest, near, begins = (np.zeros(len(rows)) for _ in range(5))
        for part in passes(len(rows)):
            of_query, of_label = queries[rows[part]], names[labels[part]]
            both = of_query.multiply(of_label).tocsr()
            alone = [(side - both).tocsr() for side in (of_query, of_label)]
            for side in alone:
                side.eliminate_zeros()
            near[part], begins[part] = _nearest(alone[0], alone[1], words)
            shared[part] = both.getnnz(axis=1)
            best[part], longest[part] = row_max(both, rarity), row_max(both, length)
        same = (best >= query_rarity).astype(np.float64)
        return {
            "digits_shared": shared,
            "digits_query": in_query - shared,
            "digits_label": in_label - shared,
            "code_rarity": best,
            "query_rarity": query_rarity,
            "rarest_shared": np.where(query_rarity > 0, same, np.nan),
            "longest_code": longest,
            "codes_unknown": unknown,
            "near_code": near,
            "code_begins": begins,
        }

    def _units(
        self, tokens: Sequence[Tokens], rows: np.ndarray, labels: np.ndarray
    ) -> dict[str, np.ndarray]:
        queries, names, new = self.numbers.rows([map(_number, one.numbers) for one in tokens])
        units, label_units, new_units = self.units.rows([_units(one) for one in tokens])
        column = {unit: at for at, unit in enumerate([*self.units.columns, *new_units])}
        of = np.array(
            [column[name.partition(" ")[2]] for name in [*self.numbers.columns, *new]], np.int64
        )
        member = csr_matrix(
            (np.ones(len(of), np.float32), (np.arange(len(of)), of)),
            (queries.shape[1], units.shape[1]),
        )
        agree, conflict, bare = (np.zeros(len(rows)) for _ in range(3))
        for part in passes(len(rows)):
            numbers = queries[rows[part]].multiply(names[labels[part]]).tocsr() @ member
            both = units[rows[part]].multiply(label_units[labels[part]]).tocsr()
            same = numbers.astype(bool).astype(np.float32)
            against = (both - same).tocsr()
            of_bare = 0.0
            if BARE in column:
                of_bare = against[:, [column[BARE]]].toarray().ravel()
            agree[part] = same.sum(axis=1).A1
            conflict[part] = against.sum(axis=1).A1 - of_bare
            bare[part] = of_bare
        return {"units_agree": agree, "units_conflict": conflict, "bare_conflict": bare}

    def _spelt_apart(
        self, tokens: Sequence[Tokens], rows: np.ndarray, labels: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Codes compared with spaces left out: "bhbf 50 nk" is "bhbf50nk"."""
        queries, names, new = self.joined.rows([_joined(one) for one in tokens])
        rarity = rarity_of(names)
        length = np.array([len(code) for code in [*self.joined.columns, *new]], np.float64)
        best, longest = np.zeros(len(rows)), np.zeros(len(rows))
        for part in passes(len(rows)):
            both = queries[rows[part]].multiply(names[labels[part]]).tocsr()
            best[part], longest[part] = row_max(both, rarity), row_max(both, length)
        return {"joined_rarity": best, "joined_length": longest}


def _nearest(
    left: csr_matrix, right: csr_matrix, words: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """How alike the most alike codes of two rows are, and of those that one begins the other.

    Args:
        left, right: (P, W) tokens that only one of the sides has.
        words: the W tokens.

    Returns:
        (P,) and (P,): common beginning and end over the longer length; 0 for none.
    """
    counts = right.getnnz(axis=1)[_rows_of(left)]
    pair = np.repeat(_rows_of(left), counts)
    first = np.repeat(left.indices, counts)
    place = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
    second = right.indices[right.indptr[pair] + place]
    both, which = np.unique(first.astype(np.int64) * len(words) + second, return_inverse=True)
    values = _alike(words, both // len(words), both % len(words))[:, which]
    near, begins = np.zeros(left.shape[0]), np.zeros(left.shape[0])
    np.maximum.at(near, pair, values[0])
    np.maximum.at(begins, pair, values[1])
    return near, begins


def _rows_of(matrix: csr_matrix) -> np.ndarray:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _alike(words: Sequence[str], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(2, P) how alike the words ``first[p]`` and ``second[p]`` are, and if one begins the other.

    Common beginning and end over the longer length; 0 where a word is too short to be a code.
    """
    used, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    texts = [words[word] for word in used.tolist()]
    length = np.array(list(map(len, texts)), np.int64)
    made = np.zeros((2, len(first)))
    one, other = place[: len(first)], place[len(first) :]
    shorter, longer = (pick(length[one], length[other]) for pick in (np.minimum, np.maximum))
    # Words by their length, so that one long text does not make all rows as long.
    widths = np.unique(longer[shorter >= SHORTEST])
    for width in widths.tolist():
        rows = np.flatnonzero((longer == width) & (shorter >= SHORTEST))
        for part in passes(len(rows)):
            pairs = rows[part]
            a, b = (_letters(texts, side[pairs], width) for side in (one, other))
            short = shorter[pairs]
            start = np.minimum(_run(a[0] == b[0]), short)
            end = np.minimum(_run(a[1] == b[1]), short - start)
            made[0, pairs] = (start + end) / width
            made[1, pairs] = np.where(start == short, made[0, pairs], 0.0)
    return made


def _letters(texts: Sequence[str], which: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(P, width) characters of texts from their beginnings, and from their ends."""
    used, place = np.unique(which, return_inverse=True)
    kept = [texts[text] for text in used.tolist()]
    ways = (kept, [text[::-1] for text in kept])
    first, last = (
        np.array(way, f"<U{width}").view(np.uint32).reshape(len(kept), width) for way in ways
    )
    return first[place], last[place]


def _run(same: np.ndarray) -> np.ndarray:
    """(P,) how many columns of (P, w) are true before the first that is not."""
    return np.where(same.all(axis=1), same.shape[1], same.argmin(axis=1))


def _codes(tokens: Tokens) -> list[str]:
    return [word for word in tokens.words if has_digit(word)] + list(tokens.codes)


def _number(pair: tuple[str, str]) -> str:
    return f"{pair[0]} {pair[1]}"


def _units(tokens: Tokens) -> list[str]:
    return [unit for _, unit in tokens.numbers]


def _joined(tokens: Tokens) -> list[str]:
    """Codes of up to three words with a digit in one of them, spaces left out."""
    words = tokens.words
    digits = [has_digit(word) for word in words]
    if not any(digits):
        return []
    made = [
        "".join(words[start : start + span])
        for span in range(1, SPAN + 1)
        for start in range(len(words) - span + 1)
        if True in digits[start : start + span]
    ]
    return [one for one in made if SHORTEST <= len(one) <= LONGEST]
