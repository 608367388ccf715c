"""The acceptance model of a run: fitted on validation, scored, and kept in the run folder.

    RUN/acceptance.json        the model and what its text features were taught; no such file where
                               the cosine decides
    RUN/acceptance.npz         its predictions: labels by falling probability, as predictions.npz
    RUN/tfidf-acceptance.json  the same over TF-IDF's candidates alone: a baseline that needs no
    RUN/tfidf-acceptance.npz   encoder

To use one: ``model, state = load_acceptance(path)``, ``TextFeatures(catalogue, state)``, a
:class:`~alc_kernels.trainer.evaluation.candidates.CandidateSearch`, ``model.rank(features)``.
Probabilities of validation titles are out of fold: what a threshold is certified on. They are kept
as float32, so compare with a threshold in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from alc_kernels.acceptance import AcceptanceModel, Features, TextFeatures, fit_acceptance
from alc_kernels.metrics.inputs import as_relation
from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.data.text.texts import TextRows
from alc_kernels.trainer.evaluation.candidates import CandidateSearch
from alc_kernels.trainer.evaluation.predictions import Predictions, save_predictions
from alc_kernels.trainer.evaluation.results import Kept
from alc_kernels.trainer.evaluation.scoring import Judge

TITLES_PER_PASS = 1 << 14  # whose features are held at once


@dataclass(frozen=True)
class Accepted:
    """What an acceptance model makes of a data set.

    Attributes:
        model: fitted on all of validation; its kind ``"none"`` where the score decides.
        texts: the text features of the leading catalogue.
        predictions: catalogue -> split -> predictions, labels by falling probability. Those of
            validation are out of fold in every catalogue; the model is that of the leading one.
        reason: which model, and why.
    """

    model: AcceptanceModel
    texts: TextFeatures
    predictions: dict[str, dict[str, Predictions]]
    reason: str


def save_accepted(kept: Kept, accepted: Accepted | str, fingerprint: str) -> None:
    """Write both files of an acceptance model, in place of earlier ones.

    Args:
        kept: which two files.
        accepted: what to keep; neither file where that is no model but the reason for none, or
            where the score decides.
        fingerprint: of the data set.
    """
    for path in (kept.predictions, kept.model):
        path.unlink(missing_ok=True)
    if not isinstance(accepted, str) and accepted.model.kind != "none":
        accepted.model.save(kept.model, accepted.texts)
        save_predictions(kept.predictions, accepted.predictions, fingerprint, kept.digest())


class Acceptance:
    """Fits acceptance models on a data set's validation titles.

    Args:
        dataset: texts and relations; what may differ within a match is learnt from its training
            pairs, once for all models.

    Raises:
        ImportError: a package of ``alc-kernels[trainer]`` is missing.
        DataError: the data set's propensity cannot be computed.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.judge = Judge(dataset)
        self.catalogues = dataset.catalogues()
        leading, *others = self.catalogues.values()
        pairs = dataset.train.relation[:, leading.label_ids].tocoo()
        names = list(leading.texts)
        if pairs.nnz:
            titles = [dataset.train.queries[row] for row in pairs.row.tolist()]
            taught = TextFeatures.learned(names, titles, pairs.col)
        else:
            taught = TextFeatures(names)
        self.texts = {leading.name: taught}
        self.texts |= {one.name: TextFeatures(list(one.texts), taught.state) for one in others}

    def fit(
        self,
        encode: Callable[[Sequence[str]], Tensor] | None = None,
        labels: Tensor | None = None,
        *,
        kind: str = "auto",
        device: torch.device | str | None = None,
    ) -> Accepted:
        """One model, over an embedding's candidates and TF-IDF's, or over TF-IDF's alone.

        Args:
            encode: n titles to vectors (n, d); None for TF-IDF alone.
            labels: (L, d) vectors of all labels of the data set.
            kind: of :func:`~alc_kernels.acceptance.fit_acceptance`.
            device: where vectors are searched.

        Raises:
            ValueError: the kind asked for cannot be fitted: too few products.
        """
        searches = self.searches(encode, labels, device)
        leading = next(iter(self.catalogues))
        made: dict[str, dict[str, Predictions]] = {name: {} for name in searches}
        features = self.features(leading, "validation", searches[leading])
        right = as_relation(self.catalogues[leading].relations["validation"], "relation").contains(
            features.candidates
        )
        groups = self.dataset.validation.group_numbers()
        fitted = fit_acceptance(features, right, groups, kind=kind)
        for name, search in searches.items():
            if name != leading:
                features = self.features(name, "validation", search)
            made[name]["validation"] = self.judged(
                name, "validation", features.candidates, fitted.out_of_fold(features)
            )
            made[name]["test"] = self.scored(name, "test", search, fitted.model)
        return Accepted(fitted.model, self.texts[leading], made, fitted.reason)

    def searches(
        self,
        encode: Callable[[Sequence[str]], Tensor] | None = None,
        labels: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> dict[str, CandidateSearch]:
        """Catalogue -> what finds its candidates; arguments as for :meth:`fit`."""
        made = {}
        for name, own in self.catalogues.items():
            vectors = None if labels is None else labels[torch.from_numpy(own.label_ids)]
            made[name] = CandidateSearch(self.texts[name], encode, vectors, device)
        return made

    def judged(
        self, catalogue: str, split: str, candidates: np.ndarray, probabilities: np.ndarray
    ) -> Predictions:
        """Predictions from candidates (n, m) in the catalogue's numbering, in any order."""
        order = np.argsort(np.where(candidates < 0, np.inf, -probabilities), axis=1, kind="stable")
        found = np.take_along_axis(candidates, order, axis=1)
        sure = np.take_along_axis(probabilities, order, axis=1)
        numbers = self.catalogues[catalogue].label_ids
        return self.judge(
            catalogue, split, np.where(found < 0, -1, numbers[found]),
            np.where(found < 0, -np.inf, sure),
        )  # fmt: skip

    def features(self, name: str, split: str, search: CandidateSearch) -> Features:
        """Of every title of a split; memory grows with their number."""
        parts = [search(*part).features for part in self._parts(name, split)]
        width = max(part.candidates.shape[1] for part in parts)
        return Features(
            parts[0].names,
            np.concatenate([_widened(part.values, width, np.nan) for part in parts]),
            np.concatenate([_widened(part.candidates, width, -1) for part in parts]),
        )

    def scored(
        self, name: str, split: str, search: CandidateSearch, model: AcceptanceModel
    ) -> Predictions:
        """What a fitted model makes of a split that it was not fitted on."""
        labels, probabilities = [], []
        for part in self._parts(name, split):
            features = search(*part).features
            labels.append(features.candidates)
            probabilities.append(model.probabilities(features))
        width = max(part.shape[1] for part in labels)
        return self.judged(
            name,
            split,
            np.concatenate([_widened(part, width, -1) for part in labels]),
            np.concatenate([_widened(part, width, 0.0) for part in probabilities]),
        )

    def _parts(self, name: str, split: str) -> Iterator[tuple[Sequence[str], csr_matrix]]:
        """Some titles at a time, with the pairs that are left out."""
        texts, excluded = self.dataset.splits[split].queries, self.catalogues[name].excluded[split]
        for start in range(0, len(texts), TITLES_PER_PASS):
            stop = min(start + TITLES_PER_PASS, len(texts))
            yield TextRows(texts, np.arange(start, stop)), excluded[start:stop]


def _widened(rows: np.ndarray, width: int, value: float) -> np.ndarray:
    """(n, width, ...) with ``value`` in the places behind."""
    missing = [(0, 0)] * rows.ndim
    missing[1] = (0, width - rows.shape[1])
    return np.pad(rows, missing, constant_values=value)
