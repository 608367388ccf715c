"""A trained model for other programs: a sentence-transformers folder, label vectors, an index."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from alc_kernels.trainer.encoders.base import Encoder
from alc_kernels.trainer.encoders.huggingface import HuggingFaceEncoder
from alc_kernels.trainer.errors import EncoderError, XMCError

SAMPLE = ("nova phone 8 64 GB red", "", "a", "An unusually long title, " * 40)
LARGEST_DIFFERENCE = 1e-5


def save_sentence_transformer(encoder: Encoder, folder: Path) -> float:
    """Write an encoder as a folder that ``SentenceTransformer(folder)`` loads.

    The text model, its pooling and a normalisation: its ``encode`` gives the encoder's vectors.

    Args:
        encoder: in evaluation mode.
        folder: exists, and is empty.

    Returns:
        The largest difference between an entry of the vectors of some texts, encoded by the
        encoder and by what was written.

    Raises:
        EncoderError: the encoder is no Hugging Face model, or sentence-transformers is missing.
        XMCError: what was written gives other vectors.
    """
    if not isinstance(encoder, HuggingFaceEncoder):
        raise EncoderError(
            "the n-gram encoder cannot be written for sentence-transformers, which has no module "
            "that hashes n-grams: npy and faiss export its label vectors, alc predict encodes "
            "titles"
        )
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import (
            Normalize,
            Pooling,
            Transformer,
        )
    except ImportError:
        raise EncoderError(
            "this needs the package sentence-transformers: "
            "pip install 'alc-kernels[sentence-transformers]'"
        ) from None
    tokenizer = encoder.tokenizer
    # The encoder pads on the right, with whatever is masked; the other side would shift positions.
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    with _quiet(), tempfile.TemporaryDirectory() as parts:
        encoder.model.save_pretrained(parts)
        tokenizer.save_pretrained(parts)
        body = Transformer(parts, max_seq_length=encoder.max_length)
        pooling = Pooling(encoder.dim, pooling_mode=encoder.pooling)
        made = SentenceTransformer(modules=[body, pooling, Normalize()], device="cpu")
        made.save(str(folder), create_model_card=False)
        loaded = SentenceTransformer(str(folder), device="cpu")
        found = loaded.encode(list(SAMPLE), show_progress_bar=False)
    difference = float(np.abs(found - encoder.encode_texts(SAMPLE).numpy()).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise XMCError(
            f"sentence-transformers gives other vectors for {encoder.name} than the run, they "
            f"differ by up to {difference:.3g}; nothing was written"
        )
    return difference


def save_index(vectors: np.ndarray, ids: Sequence[str] | None, path: Path) -> np.ndarray:
    """Write a faiss index of inner products, exact, over the vectors (L, d) float32.

    Args:
        vectors: of the labels.
        ids: of the labels. Where all are different whole numbers the index returns them, else
            the labels' rows from 0.
        path: the file.

    Returns:
        (L,) int64: what the index returns for each label.

    Raises:
        ConfigError: faiss is not installed.
    """
    from alc_kernels.trainer.negatives.index import load_faiss

    faiss = load_faiss("export --to faiss")
    numbers = whole_ids(ids) if ids is not None else None
    index = faiss.IndexFlatIP(vectors.shape[1])
    if numbers is None:
        numbers = np.arange(len(vectors), dtype=np.int64)
        index.add(vectors)
    else:
        index = faiss.IndexIDMap2(index)
        index.add_with_ids(vectors, numbers)
    path.write_bytes(faiss.serialize_index(index).tobytes())
    return numbers


def whole_ids(ids: Sequence[str]) -> np.ndarray | None:
    """(L,) int64 where all ids are different whole numbers that can be told from their text."""
    try:
        numbers = np.array([int(one) for one in ids], np.int64)
    except (ValueError, OverflowError):
        return None
    same = all(str(number) == one for number, one in zip(numbers.tolist(), ids, strict=True))
    return numbers if same and len(np.unique(numbers)) == len(numbers) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars over a handful of files."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
