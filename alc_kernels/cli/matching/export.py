"""``alc export``: a run's encoder or label vectors for other programs."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alc_kernels.cli.arguments import Target, check_parents, one_of
from alc_kernels.cli.matching.catalogue import Labels, add_catalogue_options, read_labels
from alc_kernels.cli.matching.tables import add_table_options, table_options
from alc_kernels.trainer.encoders.base import Encoder
from alc_kernels.trainer.encoders.huggingface import HuggingFaceEncoder
from alc_kernels.trainer.errors import BadInput, EncoderError, XMCError, needs
from alc_kernels.whole import whole_folder

if TYPE_CHECKING:
    from alc_kernels.trainer.training.checkpoint import Checkpoint

# A trained model for other programs: a sentence-transformers folder, label vectors, an index.


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
    with needs("this", "sentence-transformers", "sentence-transformers", EncoderError):
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer import modules
    tokenizer = encoder.tokenizer
    # The encoder pads on the right, with whatever is masked; the other side would shift positions.
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    with _quiet(), tempfile.TemporaryDirectory() as parts:
        encoder.model.save_pretrained(parts)
        tokenizer.save_pretrained(parts)
        body = modules.Transformer(parts, max_seq_length=encoder.max_length)
        pooling = modules.Pooling(encoder.dim, pooling_mode=encoder.pooling)
        made = SentenceTransformer(modules=[body, pooling, modules.Normalize()], device="cpu")
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


KINDS = ("sentence-transformers", "npy", "faiss")
ABOUT = "export.json"  # marks a folder as one that an export may replace
VECTORS, INDEX, TABLE = "labels.npy", "labels.faiss", "labels.csv"


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "export",
        help="the encoder or the label vectors for other programs",
        description="Write a run for other programs into the folder DIR. sentence-transformers: "
        "the encoder, where it is a Hugging Face model, as SentenceTransformer(DIR) loads it. npy: "
        "the vectors that labels are ranked by, labels.npy, float32, and labels.csv, a row per "
        "vector. faiss: the same as an exact index of inner products, labels.faiss.",
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder of alc train")
    parser.add_argument(
        "--to",
        metavar="KIND",
        type=one_of(KINDS),
        required=True,
        help=f"{', '.join(KINDS)}",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an export in DIR")
    add_catalogue_options(parser)
    add_table_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from alc_kernels.trainer.evaluation import load_scored
    from alc_kernels.trainer.finish import load_trained

    _check_folder(arguments)
    if arguments.to == "sentence-transformers":
        for option in ("data", "catalogue", "catalogue_column", "catalogue_id_column"):
            if getattr(arguments, option) is not None:
                raise BadInput(
                    f"--{option.replace('_', '-')} has no effect with --to {arguments.to}, which "
                    "writes the encoder alone"
                )
        checkpoint = load_trained(arguments.run_folder)
        with whole_folder(arguments.folder) as folder:
            difference = save_sentence_transformer(checkpoint.model.encoder, folder)
            _write_about(folder, arguments, checkpoint)
        print(f"Loaded and compared: vectors differ by {difference:.1g} at most")
        _say_own_vectors(checkpoint)
    else:
        checkpoint = load_trained(arguments.run_folder)
        scored = load_scored(arguments.run_folder)
        labels = read_labels(arguments, scored, checkpoint, table_options(arguments))
        for note in labels.notes:
            print(note, file=sys.stderr)
        with whole_folder(arguments.folder) as folder:
            told = _write_labels(arguments.to, folder, checkpoint, labels)
            _write_about(folder, arguments, checkpoint)
        print(told)
    print(f"Written: {arguments.folder}")


def _write_labels(kind: str, folder: Path, checkpoint: Checkpoint, labels: Labels) -> str:
    """Vectors or index, and the table beside them; what was written, in words."""
    import numpy as np

    from alc_kernels.cli.matching.tables import table_writer

    vectors = checkpoint.model.encode_labels(labels.texts, labels.numbers).numpy()
    rows = np.arange(len(vectors))
    number = "row"
    if kind == "npy":
        np.save(folder / VECTORS, vectors)
    else:
        rows, number = save_index(vectors, labels.ids, folder / INDEX), "number"
    columns = {number: int, **({"label_id": str} if labels.ids is not None else {}), "label": str}
    with table_writer(Target(folder / TABLE, "csv"), columns) as write:
        for at, text in enumerate(labels.texts):
            ids = [] if labels.ids is None else [labels.ids[at]]
            write([int(rows[at]), *ids, text])
    return f"{labels.told}: {len(vectors):,} vectors of width {vectors.shape[1]}"


def _say_own_vectors(checkpoint: Checkpoint) -> None:
    from alc_kernels.trainer.evaluation.matching import by_text_alone

    if not by_text_alone(checkpoint.model):
        print(
            f"Labels are ranked by vectors of their own (method {checkpoint.config.method}), not "
            "by what this encoder makes of their texts: --to npy or faiss exports those."
        )


def _check_folder(arguments: argparse.Namespace) -> None:
    """Refuse a folder that is in use by something else."""
    folder = arguments.folder
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: is a file, expected a folder for the export")
    check_parents(folder)
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / ABOUT).is_file():
            raise BadInput(f"{folder}: holds something that is no export; choose another folder")
        if not arguments.overwrite:
            raise BadInput(f"{folder}: holds an export; choose another or give --overwrite")


def _write_about(folder: Path, arguments: argparse.Namespace, checkpoint: Checkpoint) -> None:
    about = {
        "to": arguments.to,
        "run": arguments.run_folder.resolve().name,
        "method": checkpoint.config.method,
        "encoder": checkpoint.config.encoder,
        "width": checkpoint.model.dim,
        "similarity": "inner product of vectors of unit length",
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
