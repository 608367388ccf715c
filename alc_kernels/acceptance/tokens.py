"""Texts to tokens, of any language: words, product codes, numbers with their units.

What a unit is comes from the catalogue: letters that stand right behind numbers in several of its
names ("64gb", "128gb"). A number and a unit with a space between them ("64 gb") are then one word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from scipy.sparse import csr_matrix

_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"(?<![^\W_])(\d+(?:[.,]\d+)?)\s?([^\W\d_]*)(?![^\W_])")
_GLUED = re.compile(r"(?<![^\W_])\d+(?:[.,]\d+)?([^\W\d_]+)(?![^\W_])")
_COMPOUND = re.compile(r"[^\W_]+(?:[-./_][^\W_]+)+")
UNIT_LETTERS = 6  # at most
UNIT_NUMBERS = 3  # different words at least, "64gb" and "128gb" being two
BARE = ""  # the unit of a number without one


def normalized(text: str) -> str:
    """Compatibility forms and capitals made alike."""
    return unicodedata.normalize("NFKC", text).casefold()


@dataclass(frozen=True)
class Tokens:
    """The tokens of one text.

    Attributes:
        words: runs of letters and digits in order, repeats and all.
        codes: further tokens with a digit that punctuation splits, without it ("wh-1000" as
            "wh1000").
        numbers: (number, unit) pairs, each once.
    """

    words: tuple[str, ...]
    codes: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]


class Tokenizer:
    """Cuts texts into tokens.

    Args:
        units: letters that are units where they follow a number.
    """

    def __init__(self, units: Iterable[str] = ()) -> None:
        self.units = frozenset(units)
        spelt = "|".join(re.escape(unit) for unit in sorted(self.units))
        self._apart = re.compile(rf"(?<![^\W_])(\d+) ({spelt})(?![^\W_])") if spelt else None

    @classmethod
    def learned(cls, texts: Iterable[str]) -> Tokenizer:
        """With the units that ``texts`` show."""
        seen: dict[str, set[str]] = {}
        for text in texts:
            for match in _GLUED.finditer(normalized(text)):
                if len(match[1]) <= UNIT_LETTERS:
                    words = seen.setdefault(match[1], set())
                    if len(words) < UNIT_NUMBERS:
                        words.add(match[0])
        return cls(unit for unit, words in seen.items() if len(words) >= UNIT_NUMBERS)

    def __call__(self, text: str) -> Tokens:
        plain = normalized(text)
        if self._apart is not None:
            plain = self._apart.sub(r"\1\2", plain)
        words = tuple(_WORD.findall(plain))
        codes = tuple(
            code
            for compound in _COMPOUND.findall(plain)
            if any(map(str.isdigit, code := "".join(_WORD.findall(compound))))
        )
        numbers = dict.fromkeys(
            (match[1].replace(",", "."), match[2] if match[2] in self.units else BARE)
            for match in _NUMBER.finditer(plain)
        )
        return Tokens(words, codes, tuple(numbers))


class Vocabulary:
    """Tokens of the catalogue and their columns; tokens of queries get columns behind them.

    Args:
        rows: the tokens of each label.
    """

    def __init__(self, rows: Sequence[Iterable[str]]) -> None:
        self.columns: dict[str, int] = {}
        self.labels = _binary(rows, self.columns, {})  # (L, V), each token once

    def rows(self, rows: Sequence[Iterable[str]]) -> tuple[csr_matrix, csr_matrix, list[str]]:
        """Queries (n, W) and labels (L, W) over the same columns, and the W - V new tokens."""
        new: dict[str, int] = {}
        queries = _binary(rows, new, self.columns)
        return queries, widened(self.labels, len(self.columns) + len(new)), list(new)


def widened(rows: csr_matrix, width: int) -> csr_matrix:
    """The same rows with further columns, all empty."""
    return csr_matrix((rows.data, rows.indices, rows.indptr), (rows.shape[0], width))


def _binary(
    rows: Sequence[Iterable[str]], columns: dict[str, int], known: Mapping[str, int]
) -> csr_matrix:
    """(n, columns) of ones, each token of a row once; new tokens are added to ``columns``."""
    each = list(map(tuple, rows))
    indptr = np.cumsum([0, *map(len, each)])
    flat = list(chain.from_iterable(each))
    indices = np.array(list(map(known.get, flat, repeat(-1))), np.int64)
    for place in np.flatnonzero(indices < 0).tolist():
        indices[place] = columns.setdefault(flat[place], len(known) + len(columns))
    made = csr_matrix(
        (np.ones(len(flat), np.float32), indices, indptr), (len(each), len(known) + len(columns))
    )
    made.sum_duplicates()
    made.data[:] = 1.0
    return made
