"""Sequences of texts that stay on the disk: a file's lines, and a choice of rows of them.

A million titles as Python strings take some 150 MiB and more; mapped into memory they take
eight bytes each, and the operating system's cache holds what is used.
"""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from alc_kernels.trainer.data.text.lines import BYTE_ORDER_MARK, decode, line_blocks
from alc_kernels.trainer.errors import DataError

# Arrays in files: mapped into memory where they are small, read piece by piece where not.


MAPPED = 1 << 26  # bytes: files of up to 64 MiB are read through the mapping


class MappedFile:
    """A file's content as an array that need not fit into memory.

    A page that is touched through a mapping counts as the process's memory, and the system maps
    up to megabytes around it: random rows of a large file soon hold all of it. So those are read
    at their positions instead, some microseconds each, out of the same file cache.

    Args:
        array: (n,) mapped, of a file that must not change while it is open.

    Attributes:
        array: the same as a plain array.
    """

    def __init__(self, array: np.memmap) -> None:
        self.array, self._offset = np.asarray(array), array.offset
        large = array.nbytes > MAPPED and hasattr(os, "preadv")
        self._file = open(str(array.filename), "rb") if large else None  # noqa: SIM115

    def read(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """``array[start:start + length]`` of every pair (both (n,) int64), one after the other."""
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        if self._file is None:
            at = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
            return self.array[at]
        made = np.empty(total, self.array.dtype)
        size, descriptor = made.itemsize, self._file.fileno()
        view = made.view(np.uint8).data
        places = (starts * size + self._offset).tolist()
        bounds = (ends * size).tolist()
        begin = 0
        for place, end in zip(places, bounds, strict=True):
            if end > begin:
                got = os.preadv(descriptor, [view[begin:end]], place)
                if got != end - begin:
                    raise OSError(f"{self._file.name}: became shorter while it was read")
            begin = end
        return made


T = TypeVar("T")
CHUNK = 8192  # items read at once when all are


class Rows(Sequence[T]):
    """Items that are read when they are asked for, several at a time where that is cheaper."""

    @abstractmethod
    def _read(self, start: int, stop: int) -> list[T]:
        """Items start to stop - 1, at least one."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if not isinstance(index, slice):
            at = range(len(self))[index]
            return self._read(at, at + 1)[0]
        rows = range(len(self))[index]
        if rows.step == 1:
            return self._read(rows.start, rows.stop) if len(rows) else []
        return [self[row] for row in rows]

    def __iter__(self) -> Iterator[T]:
        for start in range(0, len(self), CHUNK):
            yield from self[start : start + CHUNK]


class Texts(Rows[str]):
    """Texts that know a fingerprint of their content; equal to any sequence of equal texts.

    Attributes:
        token_cache: folder where an encoder keeps them tokenised, None for nowhere.
    """

    token_cache: Path | None = None

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal digits over the content."""

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class TextFile(Texts):
    """The lines of a UTF-8 file, mapped into memory: int64 offsets, strings made on demand.

    Opening reads the file once, in blocks, and checks every line. The file must not change while
    it is open; replace it by renaming.

    Args:
        path: the file; LF and CRLF end a line, a byte order mark is left out.
        what: what it holds, for messages.
        token_cache: see :class:`Texts`.
        allow_blank: admit lines of white space only.

    Raises:
        DataError: file and line of bytes that are not UTF-8, a blank line, a last line without
            its end (truncated), or an empty file.
    """

    def __init__(
        self,
        path: Path,
        *,
        what: str,
        token_cache: Path | None = None,
        allow_blank: bool = False,
    ) -> None:
        self.path, self.token_cache, self.allow_blank = path, token_cache, allow_blank
        digest = hashlib.sha256()
        ends: list[np.ndarray] = []
        lines, size, first = 0, 0, 0
        for block in line_blocks(path):
            if not size and block.startswith(BYTE_ORDER_MARK):
                first = len(BYTE_ORDER_MARK)
            text = decode(path, block, first_line=lines + 1)
            found = text.split("\n")
            if found.pop():
                raise DataError(
                    f"{path}, line {lines + len(found) + 1}: the last line does not end, expected "
                    "a line break (truncated? if not, add it)"
                )
            for number, line in enumerate(found, lines + 1):
                if not (allow_blank or line.strip()):
                    raise DataError(f"{path}, line {number}: found a blank line, expected {what}")
            ends.append(np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + size + 1)
            digest.update(block)
            lines, size = lines + len(found), size + len(block)
        if not lines:
            raise DataError(f"{path}, line 1: the file is empty, expected {what}")
        self._starts = np.concatenate([[first], *ends])  # (n + 1,), the last one is the file's end
        self._file = MappedFile(np.memmap(path, np.uint8, "r"))
        self._fingerprint = digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._starts) - 1

    def _read(self, start: int, stop: int) -> list[str]:
        first, end = self._starts[start : start + 1], self._starts[stop] - 1  # without the last LF
        raw = self._file.read(first, end - first).tobytes()
        return [line.removesuffix("\r") for line in raw.decode("utf-8").split("\n")]

    def __deepcopy__(self, memo: Any) -> TextFile:
        return self

    def __reduce__(self) -> Any:
        return _reopen, (self.path, self.token_cache, self.allow_blank)


def _reopen(path: Path, token_cache: Path | None, allow_blank: bool) -> TextFile:
    return TextFile(path, what="texts", token_cache=token_cache, allow_blank=allow_blank)


class TextRows(Texts):
    """Some rows of other texts, in the given order, without a copy.

    Args:
        texts: the others.
        rows: (n,) int64 indices into them.
    """

    def __init__(self, texts: Sequence[str], rows: np.ndarray) -> None:
        self.texts, self.rows = texts, np.asarray(rows, np.int64)
        self.token_cache = getattr(texts, "token_cache", None)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(fingerprint(self.texts).encode())
        digest.update(self.rows.astype("<i8").tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def _read(self, start: int, stop: int) -> list[str]:
        return [self.texts[row] for row in self.rows[start:stop].tolist()]


def add_texts(digest: hashlib._Hash, texts: Iterable[str]) -> None:
    """Feed texts to a digest, each behind its length, so that no two lists run together."""
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)


def fingerprint(texts: Sequence[str]) -> str:
    """Hexadecimal digits over the content of any texts; :class:`Texts` know theirs."""
    if isinstance(texts, Texts):
        return texts.fingerprint
    digest = hashlib.sha256()
    add_texts(digest, texts)
    return digest.hexdigest()


# Equal texts found without holding them: by 128-bit digests, sixteen bytes a text.


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
