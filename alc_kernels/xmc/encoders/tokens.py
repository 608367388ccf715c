"""Tokenised texts: one ragged array of ids, and views over several or over some of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from alc_kernels.xmc.data.text.texts import MappedFile

Collate = Callable[[np.ndarray, np.ndarray], Any]


class TokenizedTexts(ABC):
    """Texts made ready once; batches are then only slices of it.

    Attributes:
        collate: from ``ids`` and ``offsets`` of some texts, as :meth:`gather` returns them, to
            the batch that the encoder takes.
    """

    collate: Collate

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ids of the given rows.

        Args:
            rows: (n,) int64, repeats allowed.

        Returns:
            ids (nnz,) int64 and offsets (n + 1,) int64: row i owns
            ``ids[offsets[i]:offsets[i + 1]]``.
        """

    def select(self, rows: np.ndarray) -> Any:
        """The batch of the given rows (int64 (n,)), as :meth:`Encoder.forward` takes it."""
        return self.collate(*self.gather(rows))

    def __deepcopy__(self, memo: Any) -> TokenizedTexts:
        return self  # never changes, and a copy of a mapped file would be read into memory


class RaggedTokens(TokenizedTexts):
    """Ids of many texts as one ragged array, in memory or mapped from a file.

    Args:
        ids: (nnz,) of an integer type.
        offsets: (n + 1,) int64: text i owns ``ids[offsets[i]:offsets[i + 1]]``.
        collate: see :class:`TokenizedTexts`.
        file: what ``ids`` is mapped from, if it is.
    """

    def __init__(
        self,
        ids: np.ndarray,
        offsets: np.ndarray,
        collate: Collate,
        file: MappedFile | None = None,
    ) -> None:
        self.ids, self.offsets, self.collate, self._file = ids, offsets, collate, file

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        offsets = _offsets(lengths)
        if self._file is not None:
            return self._file.read(starts, lengths).astype(np.int64), offsets
        at = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return self.ids[at].astype(np.int64), offsets


class TokenRows(TokenizedTexts):
    """Some rows of other tokenised texts, without a copy.

    Args:
        tokens: the others.
        rows: (n,) int64 indices into them.
    """

    def __init__(self, tokens: TokenizedTexts, rows: np.ndarray) -> None:
        self.tokens, self.rows, self.collate = tokens, np.asarray(rows, np.int64), tokens.collate

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.tokens.gather(self.rows[rows])


class ConcatTokens(TokenizedTexts):
    """Several tokenised texts as one, in order, without a copy.

    Row i of the second is row ``len(first) + i`` of the whole. So a batch of queries and labels
    is a single pass of the encoder.

    Args:
        *parts: at least one, all from the same encoder.
    """

    def __init__(self, *parts: TokenizedTexts) -> None:
        if len({part.collate for part in parts}) != 1:
            raise ValueError("expected one or more parts, all tokenised by the same encoder")
        self.parts, self.collate = parts, parts[0].collate
        self._starts = _offsets(np.array([len(part) for part in parts]))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        owner = np.searchsorted(self._starts, rows, side="right") - 1  # (n,)
        lengths = np.zeros(len(rows), np.int64)
        found = []
        for number, part in enumerate(self.parts):
            places = np.flatnonzero(owner == number)
            ids, offsets = part.gather(rows[places] - self._starts[number])
            lengths[places] = np.diff(offsets)
            found.append(ids)
        # Each part's ids fill the places of its rows, in their order.
        whole = _offsets(lengths)
        by_id = np.repeat(owner, lengths)
        made = np.empty(whole[-1], np.int64)
        for number, ids in enumerate(found):
            made[by_id == number] = ids
        return made, whole


def ragged(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """One pair (ids, offsets) of several pairs (ids, lengths of the texts)."""
    ids = np.concatenate([ids for ids, _ in parts]) if parts else np.zeros(0, np.int64)
    lengths = np.concatenate([lengths for _, lengths in parts]) if parts else np.zeros(0, np.int64)
    return ids, _offsets(lengths)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    """(n + 1,) int64 running sums, beginning with 0."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
