"""A run folder as matching sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alc_kernels.matching.catalogue import Catalogue
from alc_kernels.matching.evidence import Evidence
from alc_kernels.matching.files import Acceptance, Parts, read_acceptance
from alc_kernels.matching.renewal import load_renewed
from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.data.text.texts import Digests
from alc_kernels.trainer.errors import BadInput
from alc_kernels.trainer.evaluation.matching import find_data, known_labels, numbers_for
from alc_kernels.trainer.evaluation.predictions import leading_catalogue
from alc_kernels.trainer.evaluation.results import Kept, Scored, load_scored
from alc_kernels.trainer.training.checkpoint import Checkpoint


class Run:
    """What a run folder holds for matching.

    Args:
        folder: of ``alc train``.

    Attributes:
        scored: its predictions.
        checkpoint: its model.
        renewed: what ``alc recertify`` made of it; None where it never ran on this state.

    Raises:
        XMCError, BadInput: missing, unfinished, damaged, or trained on since it was scored.
    """

    def __init__(self, folder: Path) -> None:
        from alc_kernels.trainer.finish import load_trained

        self.folder = folder
        self.scored: Scored = load_scored(folder)
        self.checkpoint: Checkpoint = load_trained(folder)
        if len(self.scored.history) != len(self.checkpoint.position.history):
            raise BadInput(
                f"{folder}: has trained on since it was scored; score it again: "
                f"alc evaluate {folder} --data DIR"
            )
        self.renewed = load_renewed(self)

    def dataset(self, data: str | Path | Dataset | None = None) -> Dataset:
        """The data that the run was scored on.

        Raises:
            BadInput: they are not where they were, or ``data`` are others.
            DataError: the folder cannot be read.
        """
        if isinstance(data, Dataset):
            return data
        dataset, missing = find_data(self.scored, None if data is None else Path(data))
        if dataset is None:
            raise BadInput(missing)
        return dataset

    def own_labels(self, dataset: Dataset) -> Catalogue:
        """All labels of the run's data."""
        numbers = numbers_for(self.checkpoint, dataset)
        if numbers is None:
            numbers = np.arange(dataset.num_labels)
        return Catalogue(dataset.labels, dataset.label_ids, numbers)

    def labels(self, texts: list[str], ids: list[str] | None) -> Catalogue:
        """Other labels, checked already."""
        return Catalogue(texts, ids, known_labels(self.checkpoint, texts, ids))

    def acceptance(self) -> Acceptance | None:
        """The model that decides; None where the cosine does.

        Raises:
            MatcherError: its file is damaged.
        """
        return self.base_acceptance() if self.renewed is None else self.renewed.acceptance

    def base_acceptance(self) -> Acceptance | None:
        """The one that ``alc train`` fitted."""
        if self.scored.accepted is None:
            return None
        return read_acceptance(Kept(self.folder).model)

    def evidence(self, dataset: Dataset | None) -> Evidence:
        """What thresholds rest on: validation, or what ``alc recertify`` made of it."""
        if self.renewed is not None:
            return self.renewed.evidence
        return self.validation(dataset)

    def validation(self, dataset: Dataset | None) -> Evidence:
        """The run's validation titles, in the open catalogue where there is one."""
        scored = self.scored
        leading = scored.accepted or scored.predictions
        own = leading[leading_catalogue(leading)]["validation"]
        known = self.checkpoint.parts["data"].get("labels")
        if dataset is None:  # another catalogue is matched: the data may be gone
            dataset, _ = find_data(self.scored, None)
        if dataset is not None:
            known = Digests(dataset.labels).array()
        return Evidence(
            own.scores[:, 0],
            own.correct,
            own.group,
            own.answerable,
            scored.accepted is not None,
            {
                "score": leading["closed"]["validation"].scores[:, 0],
                "cosine": scored.predictions["closed"]["validation"].scores[:, 0],
            },
            None if known is None else known.view(np.uint64),
            f"validation titles, {leading_catalogue(leading)} catalogue",
        )

    def parts(self, catalogue: Catalogue, dataset: Dataset | None) -> Parts:
        """What a matcher for a catalogue is made of."""
        notes = () if self.renewed is None else (self.renewed.told,)
        return Parts(
            self.checkpoint, catalogue, self.evidence(dataset), self.acceptance(), notes=notes
        )
