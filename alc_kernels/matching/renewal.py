"""The loop: reviewed titles renew the acceptance model and the certificate of a run.

    RUN/decisions.sqlite   who decided what, each title once
    RUN/recertified/       the renewed model and its evidence, with a checksum of every file

What may enter what. All decisions teach the acceptance model: it is fitted on validation and on
them, by cross-fitting over products. Only titles that were drawn at random enter the certificate,
beside validation: those that were chosen for what they teach are no sample of anything. The
promise is watched on the accepted ones of those drawn at random, file by file, by a bound that
holds however often one looks. Once it is void, validation no longer speaks for the titles at hand:
from then on the certificate rests on titles drawn at random alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alc_kernels.acceptance import Features, TextFeatures, fit_acceptance
from alc_kernels.matching.catalogue import Catalogue
from alc_kernels.matching.decisions import FILE, LABEL, NONE, WRONG, Decision, Decisions
from alc_kernels.matching.evidence import Evidence
from alc_kernels.matching.files import (
    Acceptance,
    load_evidence,
    read_about,
    read_acceptance,
    save_acceptance,
    save_evidence,
    write_about,
)
from alc_kernels.matching.ranking import Titles
from alc_kernels.metrics import PrecisionMonitor
from alc_kernels.metrics.inputs import as_relation
from alc_kernels.trainer.data.text.texts import Digests, find
from alc_kernels.trainer.errors import XMCError, counted
from alc_kernels.trainer.evaluation.acceptance import Acceptance as Taught
from alc_kernels.trainer.evaluation.candidates import CandidateSearch
from alc_kernels.trainer.evaluation.certificates import CONFIDENCE
from alc_kernels.trainer.evaluation.results import PREDICTIONS
from alc_kernels.trainer.training.checkpoint import (
    STATE,
    checkpoint_folder,
    checksum,
    checksums,
    replacing,
)

if TYPE_CHECKING:
    from alc_kernels.matching.run import Run
    from alc_kernels.trainer.data.dataset import Dataset

FOLDER, PREVIOUS = "recertified", "recertified.previous"
ABOUT, EVIDENCE, ACCEPTANCE = "renewed.json", "evidence.npz", "acceptance.json"
TITLES_PER_PASS = 4096
LARGEST_GROUP = 3  # of the titles drawn at random


class RenewalError(XMCError):
    """A renewed certificate that cannot be used or made; one line."""


@dataclass(frozen=True)
class Renewed:
    """What ``alc recertify`` made.

    Attributes:
        acceptance: the model; None where the cosine decides.
        evidence: judged titles, scored by models that did not see their products.
        told: how it came about, in a sentence.
    """

    acceptance: Acceptance | None
    evidence: Evidence
    told: str


@dataclass(frozen=True)
class Watch:
    """What the titles drawn at random say of a promise.

    Attributes:
        state: ``"valid"``, ``"weakened"``, ``"void"``, or ``"unwatched"`` before any of them was
            accepted under a promise.
        told: the same in a sentence.
        void_before: whether an earlier file had voided a promise.
    """

    state: str
    told: str
    void_before: bool


def watch(
    decisions: Sequence[Decision], precision: float, largest_group: int = LARGEST_GROUP,
    confidence: float = CONFIDENCE,
) -> Watch:  # fmt: skip
    """The state of a promise after all decisions, file after file.

    Args:
        decisions: in the order in which they came.
        precision: that was promised; decisions under another promise are passed over.
        largest_group: titles of one product in a file, at most; more weigh as many. Titles drawn
            at random are seldom of one product, and the bound is the slower the more may be.
        confidence: of the promise.
    """
    own = [
        one for one in decisions
        if one.audit and one.accepted and one.promise is not None
        and abs(one.promise - precision) < 1e-9
    ]  # fmt: skip
    monitor = PrecisionMonitor(precision, confidence, largest_group)
    void_before, last = False, max((one.round for one in own), default=0)
    for number in sorted({one.round for one in own}):
        if monitor.state == "void":
            void_before, monitor = True, PrecisionMonitor(precision, confidence, largest_group)
        part = [one for one in own if one.round == number]
        monitor.update(
            np.array([one.correct for one in part]), np.array([one.product for one in part])
        )
    if not last:
        return Watch("unwatched", "no accepted title drawn at random was reviewed yet", False)
    limit = 1 / (1 - confidence)
    told = (
        f"{monitor.wrong} of {counted(monitor.reviewed, 'accepted titles')} drawn at random "
        f"{'was' if monitor.wrong == 1 else 'were'} wrong; evidence against {100 * precision:g} %: "
        f"{monitor.evidence:.2f} (weakened from {limit**0.5:.1f}, void from {limit:.0f})"
    )
    return Watch(monitor.state, told, void_before)


def renew(
    run: Run, dataset: Dataset, catalogue: Catalogue, decisions: Sequence[Decision],
    *, alone: bool = False,
) -> Renewed:  # fmt: skip
    """Fit the acceptance model again and collect the evidence for a certificate.

    Args:
        run: the run.
        dataset: its data.
        catalogue: with which titles are matched.
        decisions: all of them.
        alone: whether the certificate rests on titles drawn at random alone, without validation.

    Raises:
        RenewalError: nothing to rest on: ``alone`` and no title drawn at random.
    """
    base = run.validation(dataset)
    if alone and not any(one.audit for one in decisions):
        raise RenewalError("the promise is void, and no title drawn at random was reviewed")
    pool = _Pool(run, dataset)
    validation, right = pool.validation()
    asked, decided = pool.asked(catalogue, decisions)
    features = _joined(validation, asked)
    every = np.concatenate([_wide(right, features), _wide(decided, features)])
    groups = np.concatenate([base.groups, _products(decisions, dataset)])
    fitted = fit_acceptance(features, every, groups)
    top = np.take_along_axis(every, fitted.top[:, None], axis=1)[:, 0]
    scores = fitted.top_probability.astype(np.float32)
    count = len(validation)
    # Where only the suggested label is known to be wrong there may be a right one.
    answerable = np.array([one.verdict != NONE for one in decisions], np.bool_)
    enters = np.array([one.audit for one in decisions], np.bool_)
    kept = np.concatenate([np.full(count, not alone), enters])
    probabilities = fitted.model.kind != "none"
    usual = dict(base.usual)
    if probabilities != base.probabilities:
        usual["score"] = scores[:count]
    told = (
        f"certified on {'no validation titles' if alone else f'{count:,} validation titles'} and "
        f"{counted(int(enters.sum()), 'reviewed titles')} drawn at random; the acceptance model is "
        f"fitted on {count:,} validation titles and {counted(len(decisions), 'decisions')} "
        f"({fitted.reason})"
    )
    evidence = Evidence(
        scores[kept], top[kept], groups[kept],
        np.concatenate([base.answerable, answerable])[kept], probabilities, usual,
        base.known, told, True,
    )  # fmt: skip
    acceptance = (fitted.model, pool.state) if probabilities else None
    return Renewed(acceptance, evidence, told)


class _Pool:
    """Candidates and features of validation titles and of titles that were asked about."""

    def __init__(self, run: Run, dataset: Dataset) -> None:
        self.run, self.dataset = run, dataset
        self.titles = Titles(run.checkpoint.model)
        self.own = next(iter(dataset.catalogues().values()))
        found = run.base_acceptance()
        self.texts: TextFeatures | None = None
        if found is not None and found[1] is not None:
            self.state = found[1]
        else:  # the run had too few validation titles for a model
            self.state = Taught(dataset).texts[self.own.name].state

    def validation(self) -> tuple[Features, np.ndarray]:
        """Of the run's validation titles, in the open catalogue where there is one."""
        rows = self.own.label_ids
        labels = self.run.own_labels(self.dataset).take(rows)
        excluded = self.own.excluded["validation"]
        search = self._search(labels)
        queries = self.dataset.validation.queries
        parts = [
            search(list(queries[start : start + TITLES_PER_PASS]),
                   excluded[start : start + TITLES_PER_PASS]).features
            for start in range(0, len(queries), TITLES_PER_PASS)
        ]  # fmt: skip
        features = _joined(*parts)
        relation = as_relation(self.own.relations["validation"], "relation")
        return features, relation.contains(features.candidates)

    def asked(
        self, catalogue: Catalogue, decisions: Sequence[Decision]
    ) -> tuple[Features, np.ndarray]:
        """Of the titles decided about, with the candidates whose truth is known."""
        search = self._search(catalogue)
        texts = [one.title for one in decisions]
        parts = [
            search(texts[start : start + TITLES_PER_PASS]).features
            for start in range(0, max(1, len(texts)), TITLES_PER_PASS)
        ]
        features = _joined(*parts)
        place = {text: number for number, text in enumerate(catalogue.texts)}
        right = np.zeros(features.candidates.shape, np.bool_)
        candidates = features.candidates.copy()
        for row, one in enumerate(decisions):
            if one.verdict == LABEL:
                right[row] = candidates[row] == place.get(one.label, -2)
            elif one.verdict == WRONG:  # of the others nothing is known
                other = candidates[row] != place.get(one.suggested, -2)
                candidates[row, other] = -1
        return Features(features.names, features.values, candidates), right

    def _search(self, catalogue: Catalogue) -> CandidateSearch:
        texts = TextFeatures(list(catalogue.texts), self.state)
        vectors = self.titles.labels(catalogue)
        return CandidateSearch(texts, self.titles, vectors, self.titles.device)


def _products(decisions: Sequence[Decision], dataset: Dataset) -> np.ndarray:
    """(n,) int64: the label's number in the data where it is one of them, else above all."""
    known = Digests(dataset.labels).array()
    numbers = find(Digests(one.label for one in decisions).array(), known)
    first = max(dataset.num_labels, int(dataset.validation.group_numbers().max(initial=0)) + 1)
    names: dict[str, int] = {}
    return np.array([
        number if one.verdict == LABEL and number >= 0
        else first + names.setdefault(one.product, len(names))
        for one, number in zip(decisions, numbers.tolist(), strict=True)
    ], np.int64)  # fmt: skip


def _joined(*parts: Features) -> Features:
    width = max(part.candidates.shape[1] for part in parts)
    values = [
        np.pad(part.values, ((0, 0), (0, width - part.values.shape[1]), (0, 0)),
               constant_values=np.nan)
        for part in parts
    ]  # fmt: skip
    candidates = [
        np.pad(part.candidates, ((0, 0), (0, width - part.candidates.shape[1])), constant_values=-1)
        for part in parts
    ]
    return Features(parts[0].names, np.concatenate(values), np.concatenate(candidates))


def _wide(right: np.ndarray, features: Features) -> np.ndarray:
    return np.pad(right, ((0, 0), (0, features.candidates.shape[1] - right.shape[1])))


# The folder.


def save_renewed(run: Run, renewed: Renewed) -> None:
    """Write ``RUN/recertified``; whenever it is killed, the old or the new one is whole."""
    with replacing(run.folder / FOLDER, run.folder / PREVIOUS) as made:
        save_evidence(renewed.evidence, made / EVIDENCE)
        if renewed.acceptance is not None:
            save_acceptance(renewed.acceptance, made / ACCEPTANCE)
        about = {
            "told": renewed.told,
            "base": base_of(run.folder),
            "sha256": checksums(made),
        }
        write_about(made / ABOUT, about)


def load_renewed(run: Run) -> Renewed | None:
    """What :func:`save_renewed` wrote; None where nothing was, or for another state of the run.

    Raises:
        RenewalError: a file is missing or was changed; names it.
    """
    folder = run.folder / FOLDER
    if not folder.is_dir():
        folder = run.folder / PREVIOUS
        if not folder.is_dir():
            return None
    about = read_about(folder / ABOUT, RenewalError)
    if about["base"] != base_of(run.folder):
        return None
    try:
        evidence = load_evidence(folder / EVIDENCE)
    except (OSError, ValueError, KeyError) as error:
        raise RenewalError(f"{folder / EVIDENCE}: damaged ({error})") from None
    model = read_acceptance(folder / ACCEPTANCE) if ACCEPTANCE in about["sha256"] else None
    return Renewed(model, evidence, str(about["told"]))


def base_of(run: Path) -> str:
    """Which state of a run this is: changes when it is trained on, or scored on other data."""
    files = (run / PREDICTIONS, checkpoint_folder(run) / STATE)
    return " ".join(checksum(path) for path in files)


def decisions_of(run: Path) -> Decisions:
    """The decisions beside a run."""
    return Decisions(run / FILE)
