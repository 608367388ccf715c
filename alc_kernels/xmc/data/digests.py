"""Equal texts found without holding them: by 128-bit digests, sixteen bytes a text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


class Digests:
    """Digests of texts, appended one at a time."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)
        self._bytes += digest.digest()

    def array(self) -> np.ndarray:
        """(n, 2) uint64."""
        return np.frombuffer(bytes(self._bytes), np.uint64).reshape(-1, 2)


def group(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct rows of (n, 2) in the order in which they first occur.

    Returns:
        The number of each row's group (n,) int64, and each group's first row (k,) int64,
        ascending.
    """
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal rows keep their order
    ranked = digests[order]
    opens = np.ones(len(order), np.bool_)
    opens[1:] = (ranked[1:] != ranked[:-1]).any(1)
    firsts = order[opens]  # of each group, in the order of the digests
    by_first = np.argsort(firsts)
    number = np.empty(len(firsts), np.int64)
    number[by_first] = np.arange(len(firsts))
    groups = np.empty(len(order), np.int64)
    groups[order] = number[np.cumsum(opens) - 1]
    return groups, firsts[by_first]


def find(digests: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) int64: the row of ``others`` (m, 2) that each row of (n, 2) equals, else -1.

    Of equal rows the first finds the first, the second the second and so on; where ``others`` has
    fewer, the rest find the first.
    """
    groups, firsts = group(np.concatenate([others, digests]))
    theirs, ours = groups[: len(others)], groups[len(others) :]
    width = len(groups) + 1
    there = theirs * width + _occurrence(theirs)  # different numbers
    order = np.argsort(there)
    wanted = ours * width + _occurrence(ours)
    first = np.where(firsts[ours] < len(others), firsts[ours], -1)
    if not len(others):
        return first
    at = np.searchsorted(there, wanted, sorter=order)
    found = order[np.minimum(at, len(others) - 1)]
    return np.where(there[found] == wanted, found, first)


def _occurrence(groups: np.ndarray) -> np.ndarray:
    """(n,) int64: how many earlier elements are of the same group."""
    order = np.argsort(groups, kind="stable")
    ranked = groups[order]
    starts = np.flatnonzero(np.diff(ranked, prepend=-1))
    lengths = np.diff(np.append(starts, len(groups)))
    made = np.empty(len(groups), np.int64)
    made[order] = np.arange(len(groups)) - np.repeat(starts, lengths)
    return made


def member(digests: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) bool: which rows of (n, 2) are rows of ``others`` (m, 2) as well."""
    return find(digests, others) >= 0
