"""Sequences of texts that stay on the disk: a file's lines, and a choice of rows of them.

A million titles as Python strings take some 150 MiB and more; mapped into memory they take
eight bytes each, and the operating system's cache holds what is used.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from alc_kernels.xmc.data.mapped import MappedFile
from alc_kernels.xmc.data.text_lines import BYTE_ORDER_MARK, decode, line_blocks
from alc_kernels.xmc.errors import DataError

CHUNK = 8192  # texts decoded at once when all are read


class Texts(Sequence[str]):
    """Texts that know a fingerprint of their content; equal to any sequence of equal texts.

    Attributes:
        token_cache: folder where an encoder keeps them tokenised, None for nowhere.
    """

    token_cache: Path | None = None

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal digits over the content."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    @abstractmethod
    def __getitem__(self, index: int | slice) -> str | list[str]: ...

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), CHUNK):
            yield from self[start : start + CHUNK]

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
        self._file = MappedFile(path, np.dtype(np.uint8))
        self._fingerprint = digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if not isinstance(index, slice):
            at = range(len(self))[index]
            return self._read(at, at + 1)[0]
        rows = range(len(self))[index]
        if rows.step == 1:
            return self._read(rows.start, rows.stop) if len(rows) else []
        return [self[row] for row in rows]

    def _read(self, start: int, stop: int) -> list[str]:
        """Texts start to stop - 1, at least one."""
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

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self.texts[row] for row in self.rows[index].tolist()]
        return self.texts[int(self.rows[index])]


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
