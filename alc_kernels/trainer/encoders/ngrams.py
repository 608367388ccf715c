"""The n-gram encoder: fast on a CPU, nothing to download, the default.

    text -> hashed words, word pairs, character n-grams, each with its bucket's learned weight
    sketch: weights added up at a fixed place and sign for each bucket -> unit vector
    table:  sum of the buckets' rows times their weights -> unit vector x
            -> x + MLP(x) -> unit vector

A vector is the sketch, the table's vector, or both side by side. Weights start as inverse document
frequencies, table rows as random directions and the MLP at zero: before training the similarity
is that of TF-IDF vectors, of the sketch with little noise. A few hundred titles can teach weights
of terms without harm to products that they do not name; a table takes thousands.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alc_kernels.trainer.encoders.base import Chunk, Encoder, TokenizedTexts

# Texts to hashed features: words, word pairs and character n-grams, all in NumPy.
#
# The hash is a polynomial over code points modulo 2^64 followed by a finaliser, in unsigned
# integer arithmetic only, so it gives the same buckets on every platform and Python version.


# Raise it when a text's features change: stored ones are then not taken for the new ones.
HASH_VERSION = 1
# A decimal number stays one word; otherwise words are runs of letters and digits.
_WORD = re.compile(r"\d+[.,]\d+|[^\W_]+")
_BASE = np.uint64(0x9E3779B97F4A7C15)
_SKETCH_SALT = np.uint64(0xD1B54A32D192ED03)
_WORD_SALT = np.uint64(0x5851F42D4C957F2D)
_CHUNK = 8192  # texts hashed at once: bounds the temporary arrays to some 100 MiB


def normalise(text: str) -> str:
    """Lower-cased words separated and surrounded by one space, compatibility forms unified."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    return f" {' '.join(words)} " if words else " "


def hash_texts(
    texts: Sequence[str], *, buckets: int, ngrams: Sequence[int] = (3, 4, 5)
) -> tuple[np.ndarray, np.ndarray]:
    """Hashed features of every text.

    A text's features are its words, its pairs of neighbouring words, and the character n-grams
    of each word with a space on either side. A pair hashes as its two words written together:
    "64 gb" and "64gb" share that feature.

    Args:
        texts: n texts.
        buckets: size of the table that the features index.
        ngrams: lengths of the character n-grams.

    Returns:
        ids (nnz,) int32 in [0, buckets), and offsets (n + 1,) int64: text i owns
        ``ids[offsets[i]:offsets[i + 1]]``, an empty range for a text without letters or digits.
    """
    parts = list(hash_chunks(texts, buckets=buckets, ngrams=ngrams))
    ids = np.concatenate([ids for ids, _ in parts]) if parts else np.zeros(0, np.int32)
    return ids, np.cumsum(np.concatenate([np.zeros(1, np.int64), *(sizes for _, sizes in parts)]))


def hash_chunks(
    texts: Sequence[str], *, buckets: int, ngrams: Sequence[int] = (3, 4, 5)
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """:func:`hash_texts` piece by piece: ids, and the number of features of each text."""
    for start in range(0, len(texts), _CHUNK):
        yield _hash_chunk(texts[start : start + _CHUNK], buckets, ngrams)


def _hash_chunk(
    texts: Sequence[str], buckets: int, ngrams: Iterable[int]
) -> tuple[np.ndarray, np.ndarray]:
    """ids of the chunk, text by text, and the number of features of each text (n,) int64."""
    clean = [normalise(text) for text in texts]
    lengths = np.fromiter(map(len, clean), np.int64, len(clean))
    chars = np.frombuffer("".join(clean).encode("utf-32-le"), np.uint32).astype(np.uint64)
    text_of = np.repeat(np.arange(len(clean)), lengths)
    space = chars == 32

    features = [_words_and_pairs(chars, space, text_of)]
    features += [_character_ngrams(chars, space, text_of, n) for n in ngrams]
    hashes = np.concatenate([hashed for hashed, _ in features])
    owners = np.concatenate([owner for _, owner in features])

    order = np.argsort(owners, kind="stable")
    ids = (_finalise(hashes[order]) % np.uint64(buckets)).astype(np.int32)
    return ids, np.bincount(owners, minlength=len(clean)).astype(np.int64)


def _words_and_pairs(
    chars: np.ndarray, space: np.ndarray, text_of: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and owning texts of all words, then of all pairs of neighbouring words."""
    starts = np.flatnonzero(~space & np.concatenate([[True], space[:-1]]))
    if not len(starts):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    ends = np.flatnonzero(~space & np.concatenate([space[1:], [True]])) + 1
    lengths = ends - starts
    within = np.flatnonzero(~space)
    powers = _powers(int(lengths.max()) + 1)
    place = within - np.repeat(starts, lengths)
    firsts = np.cumsum(lengths) - lengths
    words = np.add.reduceat(chars[within] * powers[place], firsts)
    owner = text_of[starts]
    same_text = np.flatnonzero(owner[:-1] == owner[1:])
    pairs = words[same_text] + powers[lengths[same_text]] * words[same_text + 1]
    hashes = np.concatenate([words, pairs]) ^ _WORD_SALT
    return hashes, np.concatenate([owner, owner[same_text]])


def _character_ngrams(
    chars: np.ndarray, space: np.ndarray, text_of: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and owning texts of all n-grams without a space inside (one at an end may be)."""
    count = len(chars) - n + 1
    if count <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    inside = np.zeros(count, np.bool_)
    for shift in range(1, n - 1):
        inside |= space[shift : shift + count]
    at = np.flatnonzero(~inside)
    powers = _powers(n)
    hashes = np.zeros(len(at), np.uint64)
    for shift in range(n):
        hashes += chars[at + shift] * powers[shift]
    return hashes, text_of[at]


def _powers(count: int) -> np.ndarray:
    """1, p, p^2, ... modulo 2^64."""
    factors = np.full(count, _BASE, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def _finalise(hashes: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: every input bit reaches the low bits."""
    mixed = hashes ^ (hashes >> np.uint64(30))
    mixed = mixed * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed = mixed * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


NGRAMS = (3, 4, 5)
CHUNK = 8192


class NgramBatch(NamedTuple):
    """The features of n texts over the distinct buckets that they use.

    Attributes:
        buckets: (U,) int64 distinct table rows, ascending.
        places: (nnz,) int64 into ``buckets``, text by text.
        offsets: (n + 1,) int64: text i owns ``places[offsets[i]:offsets[i + 1]]``.
    """

    buckets: Tensor
    places: Tensor
    offsets: Tensor

    def to(self, device: torch.device) -> NgramBatch:
        return NgramBatch(*(part.to(device) for part in self))


@dataclass(frozen=True)
class NgramCollate:
    """From hashed features to the batch: its distinct buckets, and places among them."""

    num_buckets: int

    def __call__(self, ids: np.ndarray, offsets: np.ndarray) -> NgramBatch:
        # Distinct buckets through a bitmap: the gradient then has each row once, unsorted
        # duplicates would cost more than the rest of the step.
        used = np.zeros(self.num_buckets, np.bool_)
        used[ids] = True
        buckets = np.flatnonzero(used)
        place_of = np.empty(self.num_buckets, np.int64)
        place_of[buckets] = np.arange(len(buckets))
        return NgramBatch(
            torch.from_numpy(buckets), torch.from_numpy(place_of[ids]), torch.from_numpy(offsets)
        )


def document_frequencies(texts: TokenizedTexts, num_buckets: int) -> np.ndarray:
    """(num_buckets,) int64: in how many of the texts each bucket occurs."""
    counts = np.zeros(num_buckets, np.int64)
    for start in range(0, len(texts), CHUNK):  # bounds the temporary arrays to some 50 MiB
        ids, offsets = texts.gather(np.arange(start, min(start + CHUNK, len(texts))))
        owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        distinct = np.unique(owners * num_buckets + ids)
        counts += np.bincount(distinct % num_buckets, minlength=num_buckets)
    return counts


# Length of the table's vector beside the sketch's, before training.
GATE = 0.5


class NgramEncoder(Encoder):
    """Hashed n-grams: a sketch of their weighted counts, an embedding table with a residual MLP.

    Args:
        dim: width of the table, 0 for none.
        buckets: rows of the table, and term weights.
        hidden_dim: width of the MLP.
        dropout: share of a text's features left out in training.
        sketch_dim: width of the sketch (count sketch, Charikar et al., ICALP 2002: an inner
            product is kept up to noise of ``1 / sqrt(sketch_dim)``), 0 for none.

    Parameters are initialised from PyTorch's global generator: seed it for repeatability.

    Raises:
        ValueError: neither a table nor a sketch.
    """

    place: Tensor  # (buckets,) int64, where the sketch adds a bucket
    sign: Tensor  # (buckets,) 1 or -1

    def __init__(
        self,
        dim: int = 256,
        buckets: int = 2**17,
        hidden_dim: int = 512,
        dropout: float = 0.0,
        sketch_dim: int = 0,
    ) -> None:
        super().__init__()
        if dim + sketch_dim < 1:
            raise ValueError("dim and sketch_dim are both 0: expected one of them above 0")
        self.table_dim, self.sketch_dim, self.dim = dim, sketch_dim, dim + sketch_dim
        self.buckets, self.hidden_dim, self.dropout = buckets, hidden_dim, dropout
        if dim:
            self.table = nn.Parameter(torch.randn(buckets, dim) / dim**0.5)
        self.bucket_weight = nn.Parameter(torch.ones(buckets, 1))
        if dim:
            widen, narrow = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, dim)
            nn.init.zeros_(narrow.weight)
            nn.init.zeros_(narrow.bias)
            self.mlp = nn.Sequential(widen, nn.GELU(), narrow)
        if sketch_dim:
            hashes = _finalise(np.arange(buckets, dtype=np.uint64) ^ _SKETCH_SALT)
            place = ((hashes >> np.uint64(1)) % np.uint64(sketch_dim)).astype(np.int64)
            sign = 1 - 2 * (hashes & np.uint64(1)).astype(np.float32)
            self.register_buffer("place", torch.from_numpy(place), persistent=False)
            self.register_buffer("sign", torch.from_numpy(sign), persistent=False)
        if dim and sketch_dim:
            self.gate = nn.Parameter(torch.tensor([GATE]))

    def token_settings(self) -> dict[str, Any]:
        return {"kind": "ngrams", "hash": HASH_VERSION, "buckets": self.buckets, "ngrams": NGRAMS}

    def token_chunks(self, texts: Sequence[str]) -> Iterator[Chunk]:
        return hash_chunks(texts, buckets=self.buckets, ngrams=NGRAMS)

    def token_dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    def collate(self) -> NgramCollate:
        return NgramCollate(self.buckets)

    def adapt(self, *texts: TokenizedTexts) -> None:
        """Set every bucket's weight to its inverse document frequency in ``texts``, mean 1.

        To its square where there is a sketch: without training that ranks as well and separates
        right from wrong better.
        """
        count = 0
        frequency = np.zeros(self.buckets, np.int64)
        for part in texts:
            count += len(part)
            frequency += document_frequencies(part, self.buckets)
        inverse = np.log((1 + count) / (1 + frequency)) + 1
        if self.sketch_dim:
            inverse = inverse**2
        with torch.no_grad():
            self.bucket_weight[:, 0] = torch.from_numpy(inverse / inverse.mean())

    def table_parameters(self) -> list[nn.Parameter]:
        return [self.table, self.bucket_weight] if self.table_dim else [self.bucket_weight]

    def forward(self, batch: NgramBatch) -> Tensor:
        batch = batch.to(self.bucket_weight.device)
        weight = F.embedding(batch.buckets, self.bucket_weight, sparse=True)  # (U, 1)
        keep = None
        if self.training and self.dropout > 0:
            chance = torch.rand(len(batch.places), device=weight.device)
            keep = (chance >= self.dropout).to(weight.dtype)
        if not self.sketch_dim:
            return self._table(batch, weight, keep)
        sketch = self._sketch(batch, weight[:, 0], keep)
        if not self.table_dim:
            return sketch
        both = torch.cat([sketch, self.gate * self._table(batch, weight, keep)], dim=1)
        return F.normalize(both, dim=1)

    def _sketch(self, batch: NgramBatch, weight: Tensor, keep: Tensor | None) -> Tensor:
        """(n, sketch_dim) unit vectors from the weights (U,) of the batch's buckets."""
        buckets, places, offsets = batch
        count = len(offsets) - 1
        owner = torch.arange(count, device=places.device).repeat_interleave(offsets.diff())
        at = owner * self.sketch_dim + self.place[buckets][places]
        value = (weight * self.sign[buckets])[places]
        if keep is not None:
            value = value * keep
        made = value.new_zeros(count * self.sketch_dim).index_add(0, at, value)
        return F.normalize(made.view(count, self.sketch_dim), dim=1)

    def _table(self, batch: NgramBatch, weight: Tensor, keep: Tensor | None) -> Tensor:
        """(n, table_dim) unit vectors from the weights (U, 1) of the batch's buckets."""
        buckets, places, offsets = batch
        rows = F.embedding(buckets, self.table, sparse=True) * weight  # (U, d)
        x = F.embedding_bag(
            places, rows, offsets, mode="sum", include_last_offset=True, per_sample_weights=keep
        )  # (n, d)
        x = F.normalize(x, dim=1)
        # The MLP sees entries of size 1; a text without features stays the zero vector.
        present = (offsets[1:] > offsets[:-1]).to(x.dtype)[:, None]
        scaled = x * self.table_dim**0.5
        return F.normalize((scaled + self.mlp(scaled)) * present, dim=1)

    def config(self) -> dict[str, Any]:
        return {
            "dim": self.table_dim,
            "buckets": self.buckets,
            "hidden_dim": self.hidden_dim,
            "dropout": self.dropout,
            "sketch_dim": self.sketch_dim,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], folder: Path) -> NgramEncoder:
        return cls(**config)
