"""Counts in sentences."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, many: str, one: str = "") -> str:
    """``"2 rows left out"``, ``"1 row left out"``.

    Args:
        number: from 0.
        many: what is counted, a noun in the plural first.
        one: the same of one; else ``many`` with its first word in the singular.
    """
    if number == 1:
        noun, blank, rest = many.partition(" ")
        noun = f"{noun[:-3]}y" if noun.endswith("ies") else noun.removesuffix("s")
        return f"1 {one or noun + blank + rest}"
    return f"{number:,} {many}"


# Suggestions for a word that is not known: only names that a slip of the hand away.


def suggestion(word: str, known: Iterable[str]) -> str:
    """``"; did you mean X?"``, or nothing when no known word is near (:func:`nearest`)."""
    found = nearest(word, known)
    return f"; did you mean {found}?" if found is not None else ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The nearest of the known words, or None.

    Near is a word that begins with the other one, of at least 3 letters, or that differs in few:
    a letter that is missing, added or another, or two that changed places, once in up to 5
    letters, twice in up to 8, else three times. Case, ``-`` and ``_`` do not count.
    """
    plain = _plain(word)
    best, found = (4, 0), None
    for name in known:
        other = _plain(name)
        distance = _distance(plain, other)
        short, long = sorted((plain, other), key=len)
        if len(short) >= 3 and long.startswith(short):
            distance = min(distance, 1)
        allowed = 0 if len(plain) < 3 else min(max(1, len(plain) // 3), 3)
        rank = (distance, abs(len(other) - len(plain)))
        if distance <= allowed and rank < best:
            best, found = rank, name
    return found


def _plain(word: str) -> str:
    return word.casefold().replace("-", "").replace("_", "").replace(" ", "")


def _distance(a: str, b: str) -> int:
    """How many letters to remove, add, replace or swap with their neighbour."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        row = [i]
        for j, other in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
