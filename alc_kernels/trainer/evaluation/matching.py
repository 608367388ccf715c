"""What a trained model is put to use with: its numbers of labels, and its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from alc_kernels.trainer.data import Dataset, load_dataset
from alc_kernels.trainer.data.beside import first_id
from alc_kernels.trainer.data.tables import normalize_text
from alc_kernels.trainer.data.text.texts import Digests, find
from alc_kernels.trainer.errors import BadInput, CheckpointError, DataError
from alc_kernels.trainer.evaluation.results import Scored, data_fingerprint
from alc_kernels.trainer.methods import LabelSide
from alc_kernels.trainer.model import Model
from alc_kernels.trainer.training.checkpoint import Checkpoint
from alc_kernels.trainer.training.training_set import TrainingSet

# By which numbers a trained model knows the labels of the data at hand.
#
# A method with label vectors of its own knows labels by their place in the data that it was
# trained on. Data that name the same labels in another order, or a catalogue of new ones, are
# matched by the labels' texts (else their ids), which the checkpoint holds as digests.


UNSEEN = -1  # number of a label that the model was not trained with
SHOWN = 60  # characters of a label in a message


def by_text_alone(model: Model) -> bool:
    """Whether a label's vector depends on nothing but its text."""
    return type(model.label_side) is LabelSide


def known_labels(
    checkpoint: Checkpoint, texts: Sequence[str], ids: Sequence[str] | None = None
) -> np.ndarray:
    """The numbers that a checkpoint's model knows labels by.

    Args:
        checkpoint: of any method.
        texts: n label texts.
        ids: their ids where they have some, as in ``Dataset.label_ids``; the first one of a label
            decides where its text is unknown.

    Returns:
        (n,) int64, -1 for labels that training did not have. Where a label's vector depends on
        its text alone, all are -1 and nothing is lost.

    Raises:
        CheckpointError: the checkpoint was written by a version that did not note its labels.
    """
    if by_text_alone(checkpoint.model):
        return np.full(len(texts), UNSEEN, np.int64)
    state = checkpoint.parts["data"]
    if "labels" not in state:
        raise CheckpointError(
            f"{checkpoint.folder}: does not say which labels its vectors belong to, since another "
            "version wrote it; expected the data that it was trained on, or a new training"
        )
    numbers = find(Digests(map(normalize_text, texts)).array(), state["labels"].view(np.uint64))
    if ids is not None and "label_ids" in state:
        first = [first_id(line) for line in ids]
        by_id = find(Digests(first).array(), state["label_ids"].view(np.uint64))
        taken = np.isin(by_id, numbers)  # of labels that are here under their text
        named = np.array([bool(one) for one in first])
        numbers = np.where((numbers < 0) & named & ~taken, by_id, numbers)
    return numbers


def numbers_for(checkpoint: Checkpoint, dataset: Dataset) -> np.ndarray | None:
    """The same for the labels of a data set; None where they are those of the training, in order.

    Raises:
        DataError: the method has label vectors of its own, and a label is missing on either side.
        CheckpointError: see :func:`known_labels`.
    """
    model, config = checkpoint.model, checkpoint.config
    if by_text_alone(model):
        same = dataset.num_labels == model.num_labels
        return None if same else known_labels(checkpoint, dataset.labels)
    state = checkpoint.parts["data"]
    if state["fingerprint"] == TrainingSet(dataset, config).fingerprint:
        return None
    numbers = known_labels(checkpoint, dataset.labels, dataset.label_ids)
    folder = dataset.folder
    where = f"data set {dataset.name!r}" if folder is None else str(folder / "labels.txt")
    reason = f"the label vectors of {config.method} belong to the labels it was trained with"
    if (unknown := np.flatnonzero(numbers < 0)).size:
        first = int(unknown[0])
        raise DataError(
            f"{where}, line {first + 1}: found {dataset.labels[first][:SHOWN]!r}, which the run "
            f"was not trained with ({unknown.size:,} such labels), expected only labels of its "
            f"training: {reason}"
        )
    missing = model.num_labels - len(np.unique(numbers))
    if missing:
        raise DataError(
            f"{where}: found {model.num_labels - missing:,} of the {model.num_labels:,} labels of "
            f"the run's training, expected all of them: {reason}"
        )
    return None if np.array_equal(numbers, np.arange(len(numbers))) else numbers


class Renumbered(nn.Module):
    """A model whose labels have other numbers here.

    Args:
        model: trained.
        numbers: (L,) int64, by which it knows the labels of the data at hand, -1 for none.
    """

    def __init__(self, model: Model, numbers: np.ndarray) -> None:
        super().__init__()
        self.model, self.numbers = model, numbers

    def encode_queries(self, texts: Sequence[str]) -> Tensor:
        return self.model.encode_queries(texts)

    def encode_labels(self, texts: Sequence[str], label_ids: np.ndarray | None = None) -> Tensor:
        return self.model.encode_labels(
            texts, self.numbers if label_ids is None else self.numbers[label_ids]
        )


# Where the data of a run are.


def find_data(run: Scored, folder: Path | None) -> tuple[Dataset | None, str]:
    """The data that ``run`` was scored on, or None and why there are none.

    Args:
        run: knows its data's fingerprint, and the folder that they were in.
        folder: of ``--data``; it must fit. The recorded one is used where it still does.

    Raises:
        BadInput: ``folder`` holds other data.
        DataError: ``folder`` cannot be read.
    """
    if folder is not None:
        dataset = load_dataset(folder)
        if data_fingerprint(dataset) != run.fingerprint:
            raise BadInput(f"{folder}: is not the data that {run.name} was scored on")
        return dataset, ""
    recorded = run.data.get("folder")
    if recorded is None:
        return None, "The run does not know the folder of its data: --data DIR names it."
    try:
        dataset = load_dataset(recorded)
    except DataError as error:
        return None, f"The data folder of the run cannot be read ({error}); --data DIR names it."
    if data_fingerprint(dataset) != run.fingerprint:
        return None, f"{recorded} has changed since the run; --data DIR names its data."
    return dataset, ""
