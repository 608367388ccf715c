"""What every encoder offers to the trainer, the evaluation and the checkpoints."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

from alc_kernels.trainer.data.text.texts import MappedFile, TextRows, fingerprint
from alc_kernels.trainer.errors import DataError
from alc_kernels.whole import whole_folder

# Tokenised texts: one ragged array of ids, and views over several or over some of them.


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


# Ids and offsets of tokenised texts in memory-mapped files, written once.
#
#     CACHE/KEY/ids.npy        (nnz,) of the smallest integer type that holds them
#     CACHE/KEY/offsets.npy    (n + 1,) int64
#
# KEY is a digest of the tokenisation's settings and of the texts, so that a change of either makes
# new files. A folder takes its name only when it is complete.


Chunk = tuple[np.ndarray, np.ndarray]  # ids, and the number of ids of each text


def open_tokens(folder: Path, count: int) -> tuple[MappedFile, np.ndarray] | None:
    """Ids, mapped, and offsets of ``count`` texts; None where they are missing or damaged."""
    try:
        offsets = np.load(folder / "offsets.npy")
        ids = MappedFile(np.load(folder / "ids.npy", mmap_mode="r"))
    except (OSError, EOFError, ValueError):  # no such file; an empty or truncated one; no .npy
        return None
    if offsets.shape != (count + 1,) or ids.array.shape != (int(offsets[-1]),):
        return None
    return ids, offsets


def write_tokens(folder: Path, chunks: Iterable[Chunk], dtype: np.dtype) -> None:
    """Write the ids and lengths of texts, chunk by chunk.

    Raises:
        DataError: the folder cannot be written (no space, no permission).
    """
    try:
        with whole_folder(folder) as part:
            ids_file = (part / "ids.npy").open("wb")
            offsets_file = (part / "offsets.npy").open("wb")
            with ids_file, offsets_file:
                _header(ids_file, 0, dtype)
                _header(offsets_file, 0, np.dtype(np.int64))
                num_ids, num_texts = 0, 0
                np.zeros(1, np.int64).tofile(offsets_file)
                for ids, lengths in chunks:
                    ids.astype(dtype, copy=False).tofile(ids_file)
                    (num_ids + np.cumsum(lengths, dtype=np.int64)).tofile(offsets_file)
                    num_ids += len(ids)
                    num_texts += len(lengths)
                _header(ids_file, num_ids, dtype)
                _header(offsets_file, num_texts + 1, np.dtype(np.int64))
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror})") from None


def _header(file: IO[bytes], count: int, dtype: np.dtype) -> None:
    """Write the header of a one-dimensional array at the file's start.

    NumPy leaves room in it for the length to grow, so a later one takes the same bytes.
    """
    file.seek(0)
    about = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, about)
    file.flush()


REMEMBERED = 6  # tokenised texts that an encoder keeps at hand


class Encoder(nn.Module, ABC):
    """Text in, unit vectors out.

    Attributes:
        dim: width d of the vectors.
    """

    dim: int

    def __init__(self) -> None:
        super().__init__()
        self._tokenized: OrderedDict[str, TokenizedTexts] = OrderedDict()

    def tokenize(self, texts: Sequence[str], cache: Path | None = None) -> TokenizedTexts:
        """Prepare texts for batching. The same texts are tokenised once, as long as they are kept.

        Args:
            texts: any number, zero included. Rows of other texts (:class:`TextRows`) become rows
                of the others' tokens.
            cache: folder for memory-mapped files, which a later process finds again; None takes
                the texts' own (``token_cache``; a data set read from a folder has one), and where
                there is none either, the ids stay in memory.

        Raises:
            DataError: ``cache`` cannot be written.
        """
        if isinstance(texts, TextRows):
            return TokenRows(self.tokenize(texts.texts, cache), texts.rows)
        cache = cache or getattr(texts, "token_cache", None)
        settings = json.dumps(self.token_settings(), sort_keys=True)
        digest = hashlib.sha256(f"{settings}\n{fingerprint(texts)}".encode()).hexdigest()
        key = f"{cache}/{digest[:32]}"
        if key not in self._tokenized:
            self._tokenized[key] = self._tokenize(
                texts, None if cache is None else cache / digest[:32]
            )
            if len(self._tokenized) > REMEMBERED:
                self._tokenized.popitem(last=False)
        self._tokenized.move_to_end(key)
        return self._tokenized[key]

    def _tokenize(self, texts: Sequence[str], folder: Path | None) -> RaggedTokens:
        if folder is None:
            return RaggedTokens(*ragged(list(self.token_chunks(texts))), self.collate())
        found = open_tokens(folder, len(texts))
        if found is None:
            write_tokens(folder, self.token_chunks(texts), self.token_dtype())
            found = open_tokens(folder, len(texts))
        assert found is not None, f"{folder}: just written, and not readable"
        ids, offsets = found
        return RaggedTokens(ids.array, offsets, self.collate(), ids)

    @abstractmethod
    def token_settings(self) -> dict[str, Any]:
        """What the ids of a text depend on, as JSON values."""

    @abstractmethod
    def token_chunks(self, texts: Sequence[str]) -> Iterator[Chunk]:
        """(ids, number of ids of each text), a bounded number of texts at a time."""

    @abstractmethod
    def token_dtype(self) -> np.dtype:
        """The smallest integer type that holds every id."""

    @abstractmethod
    def collate(self) -> Collate:
        """From ids and offsets of some texts to the batch that :meth:`forward` takes."""

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Vectors (n, d) of unit length for a batch from :meth:`TokenizedTexts.select`.

        A text without any feature gives a zero vector, which the losses treat as similarity 0.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What :meth:`from_config` needs to build the same module, as JSON values."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: dict[str, Any], folder: Path) -> Encoder:
        """Rebuild an encoder, weights apart; ``folder`` holds what :meth:`save_assets` wrote."""

    def save_assets(self, folder: Path) -> None:
        """Write what neither the configuration nor the weights hold (a tokenizer's files)."""

    def adapt(self, *texts: TokenizedTexts) -> None:
        """Look once at the texts that training may see, before training; may set weights."""

    def table_parameters(self) -> list[nn.Parameter]:
        """Parameters with sparse gradients, which go to the table optimizer."""
        return []

    @torch.no_grad()
    def encode_texts(
        self,
        texts: Sequence[str],
        batch_size: int = 1024,
        progress: Callable[[int], None] | None = None,
        cache: Path | None = None,
    ) -> Tensor:
        """Unit vectors (len(texts), d) float32 on the CPU, in evaluation mode, without a graph.

        Args:
            texts: any number, zero included.
            batch_size: texts per forward pass.
            progress: called with the number of texts done after each batch.
            cache: as in :meth:`tokenize`.
        """
        tokenized = self.tokenize(texts, cache)
        made = torch.empty(len(texts), self.dim)
        was_training = self.training
        self.eval()
        try:
            for start in range(0, len(texts), batch_size):
                end = min(start + batch_size, len(texts))
                made[start:end] = self(tokenized.select(np.arange(start, end))).float().cpu()
                if progress is not None:
                    progress(end)
        finally:
            self.train(was_training)
        return made
