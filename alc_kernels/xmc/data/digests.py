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


def member(digests: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) bool: which rows of (n, 2) are rows of ``others`` (m, 2) as well."""
    groups, _ = group(np.concatenate([others, digests]))
    known = np.zeros(len(groups), np.bool_)
    known[groups[: len(others)]] = True
    return known[groups[len(others) :]]
