"""A trained run put to use: titles to labels of a catalogue, each accepted, for review, or new."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from alc_kernels.acceptance import AcceptanceModel, TextState
from alc_kernels.matching.catalogue import Catalogue, checked_labels
from alc_kernels.matching.evidence import CONFIDENCE, Certificate, Evidence
from alc_kernels.matching.files import ABOUT, Parts, load_saved, save_parts
from alc_kernels.matching.ranking import Ranked, Ranker, Titles
from alc_kernels.matching.rule import PRECISION, Rule, Wish
from alc_kernels.matching.run import Run
from alc_kernels.matching.table import ACCEPT, REVIEW, Matches
from alc_kernels.metrics import CertifiedThreshold
from alc_kernels.trainer.data.tables import normalize_text
from alc_kernels.trainer.errors import BadInput, DataError
from alc_kernels.trainer.evaluation.matching import known_labels
from alc_kernels.trainer.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from alc_kernels.trainer.data.dataset import Dataset

TITLES_PER_PASS = 4096
SHOWN = 40


class Matcher:
    """Finds the labels of titles and decides. Made by :meth:`load`.

    Nothing changes in it once it is made: other catalogues, labels more or less and other
    thresholds give new matchers, which share the model. So threads may share one, and a service
    replaces it by assigning a new one.

    Attributes:
        catalogue: the labels that are matched with.
        evidence: what thresholds rest on.
        wish, rule: how it is to decide, and how it does.
        notes: what the loading found, a sentence each.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        catalogue: Catalogue,
        evidence: Evidence,
        acceptance: tuple[AcceptanceModel, TextState | None] | None = None,
        vectors: Tensor | None = None,
        *,
        titles: Titles | None = None,
        wish: Wish | None = None,
    ) -> None:
        self.checkpoint, self.catalogue, self.evidence = checkpoint, catalogue, evidence
        self.acceptance = acceptance
        self.titles = titles or Titles(checkpoint.model)
        self.vectors = self.titles.labels(catalogue) if vectors is None else vectors
        self.notes: tuple[str, ...] = ()
        self.wish = wish or Wish()

    @classmethod
    def load(cls, folder: str | Path, *, data: str | Path | Dataset | None = None) -> Matcher:
        """From a run folder of ``alc train``, or from what :meth:`save` wrote.

        A run's matcher has all labels of the run's data, and accepts at the threshold that is
        certified for precision .9; :meth:`with_catalogue` and :meth:`accepting` change that.

        Args:
            folder: of the run or of a saved matcher.
            data: the run's data folder, where it is no longer where it was.

        Raises:
            XMCError, BadInput: what is missing, unfinished, damaged or was changed, in one line
                that names the file.
        """
        folder = Path(folder)
        if (folder / ABOUT).is_file():
            if data is not None:
                raise BadInput(f"{folder}: is a saved matcher, which needs no data folder")
            return cls.of(load_saved(folder))
        run = Run(folder)
        dataset = run.dataset(data)
        return cls.of(run.parts(run.own_labels(dataset), dataset))

    @classmethod
    def of(cls, parts: Parts) -> Matcher:
        """From what a run or a saved matcher holds."""
        made = cls(
            parts.checkpoint, parts.catalogue, parts.evidence, parts.acceptance, parts.vectors,
            wish=parts.wish,
        )  # fmt: skip
        made.notes = parts.notes
        return made

    def save(self, folder: str | Path) -> None:
        """Write all that :meth:`load` needs into one folder, with a checksum of every file.

        Neither the run nor its data are needed then. The folder is written whole or not at all; an
        earlier matcher in it is replaced.

        Raises:
            BadInput: the folder holds something else.
        """
        save_parts(
            Parts(
                self.checkpoint, self.catalogue, self.evidence, self.acceptance, self.vectors,
                self.wish, self.notes,
            ),
            Path(folder),
        )  # fmt: skip

    # What it decides by.

    @cached_property
    def rule(self) -> Rule:
        wish = self.wish
        if wish.threshold is None:
            precision = PRECISION if wish.precision is None else wish.precision
            certificate = self.certificate(precision, wish.confidence)
            rule = Rule(certificate.threshold, told=str(certificate))
        else:
            rule = Rule(wish.threshold, told=f"{wish.threshold:g}, as given")
        if wish.new is None:
            return rule
        if self._kind[1]:
            return replace(rule, told_new=f"none: {self._kind[1]}")
        found = self.certificate_of_new(wish.new, wish.confidence)
        if not found.certified:
            return replace(rule, told_new=f"none: {found.reason}")
        return replace(
            rule,
            new=-found.threshold,
            told_new=f"{-found.threshold:.3f} and below: at most {100 * wish.new:g} % of what is "
            f"called new has a label here, certified with {100 * wish.confidence:g} % confidence "
            f"({found.reason})",
        )

    @cached_property
    def _kind(self) -> tuple[list[str], str]:
        return self.evidence.other_kind(self.catalogue.texts)

    def certificate(
        self, precision: float = PRECISION, confidence: float = CONFIDENCE
    ) -> Certificate:
        """The certified threshold for a precision, with what speaks against it here.

        It is refused where more than half of the catalogue's labels are not in the run's data, or
        more than half of the validation titles' products are not in the catalogue, and warned of
        from a twentieth on.

        Raises:
            ValueError: a number that is not strictly between 0 and 1.
        """
        warnings, refused = self._kind
        return Certificate(self.evidence.certified(precision, confidence), tuple(warnings), refused)

    def certificate_of_new(
        self, share: float = 1 - PRECISION, confidence: float = CONFIDENCE
    ) -> CertifiedThreshold:
        """The same for *new*: at most ``share`` of the titles in it have a label here.

        Its threshold is of negated scores: *new* is what scores at most ``-threshold``.
        """
        return self.evidence.certified_new(share, confidence)

    def accepting(
        self,
        precision: float | None = None,
        *,
        threshold: float | None = None,
        confidence: float = CONFIDENCE,
        new: float | None = None,
    ) -> Matcher:
        """A matcher that decides in another way.

        Args:
            precision: accept from the threshold certified for it; .9 where nothing is said.
            threshold: accept from this score, certified or not.
            confidence: of what is certified.
            new: call *new* what scores so low that, certified, at most this share of it has a
                label here.

        Raises:
            ValueError: both a precision and a threshold, or numbers out of range.
        """
        if precision is not None and threshold is not None:
            raise ValueError("precision and threshold exclude each other")
        made = self._changed(wish=Wish(precision, threshold, confidence, new))
        made.rule  # noqa: B018 - numbers that are out of range are told here
        return made

    # Changes, each a new matcher.

    def _changed(
        self, catalogue: Catalogue | None = None, vectors: Tensor | None = None,
        wish: Wish | None = None,
    ) -> Matcher:  # fmt: skip
        same = catalogue is None
        made = Matcher(
            self.checkpoint,
            self.catalogue if catalogue is None else catalogue,
            self.evidence,
            self.acceptance,
            self.vectors if same else vectors,
            titles=self.titles,
            wish=wish or self.wish,
        )
        made.notes = self.notes
        if same and "_ranker" in self.__dict__:
            made.__dict__["_ranker"] = self._ranker
        return made

    def with_catalogue(
        self,
        texts: Sequence[str],
        ids: Sequence[str] | None = None,
        codes: Mapping[str, Sequence[str]] | None = None,
    ) -> Matcher:
        """A matcher with other labels; nothing is trained.

        Args:
            texts: of the labels. One that stands twice is one label.
            ids: of the labels, several with a tab between; None for none.
            codes: kind such as ``"gtin"`` or ``"mpn"`` -> product codes of the labels, "" for
                none. A title with an equal code matches first, see :meth:`match`.

        Raises:
            DataError: no label, a blank one, an id of two labels, or lengths that differ.
        """
        return self._changed(self._catalogue(texts, ids, codes, "with_catalogue"))

    def append(
        self,
        texts: Sequence[str],
        ids: Sequence[str] | None = None,
        codes: Mapping[str, Sequence[str]] | None = None,
    ) -> Matcher:
        """A matcher with further labels; arguments as for :meth:`with_catalogue`.

        Only the new ones are encoded. Text features are made again, since what is rare depends on
        all labels: about a second per 10,000 labels where there is an acceptance model.

        Raises:
            DataError: also a text or an id that the catalogue has.
        """
        import torch

        more = self._catalogue(texts, ids, codes, "append")
        vectors = torch.cat([self.vectors, self.titles.labels(more)])
        return self._changed(self.catalogue.plus(more), vectors)

    def remove(self, ids: Sequence[str]) -> Matcher:
        """A matcher without the labels of these ids; a label of several ids goes with its last.

        Raises:
            DataError: an id that no label has, or no label would be left.
        """
        rows = self.catalogue.without(ids)
        return self._changed(self.catalogue.take(rows, ids), self.vectors[rows])

    def _catalogue(
        self,
        texts: Sequence[str],
        ids: Sequence[str] | None,
        codes: Mapping[str, Sequence[str]] | None,
        what: str,
    ) -> Catalogue:
        names, lines = checked_labels(texts, ids, what)
        kept = {}
        if codes:
            row_of: dict[str, int] = {}
            for row, raw in enumerate(texts):
                row_of.setdefault(normalize_text(raw), row)
            for kind, values in codes.items():
                if len(values) != len(texts):
                    raise DataError(
                        f"{what}: found {len(values):,} codes {kind!r}, expected {len(texts):,}"
                    )
                kept[kind] = [values[row_of[name]] for name in names]
        return Catalogue(names, lines, known_labels(self.checkpoint, names, lines), kept)

    # Matching.

    @cached_property
    def _ranker(self) -> Ranker:
        return Ranker(self.titles, self.catalogue, self.vectors, *(self.acceptance or ()))

    def match(
        self,
        titles: Sequence[str],
        k: int = 1,
        *,
        codes: Mapping[str, Sequence[str]] | None = None,
    ) -> Matches:
        """The k best labels of titles, and a decision for each title.

        The same titles give the same table, whatever runs beside it. A title's labels do not
        depend on the others; memory beside the result is that of 4,096 titles.

        Args:
            titles: n texts.
            k: labels per title, >= 1; fewer where the catalogue has fewer.
            codes: kind -> n product codes of the titles, "" for none, as in
                :meth:`with_catalogue`. A label with an equal code, where exactly one has it, comes
                first with probability 1 and is accepted wherever anything is.

        Returns:
            The table. Its ``warnings`` say, with figures, where the catalogue, or the scores of
            these titles as a whole, are not like those of validation.

        Raises:
            ValueError: k below 1, or codes of another number.
        """
        parts, start = [], 0
        for part in self.batches(titles, k, codes=codes):
            parts.append(part)
            start += len(part)
        if not parts:
            parts = [self._table([], Ranked(*(np.empty((0, 1)) for _ in range(3))), k)]
        made = parts[0] if len(parts) == 1 else Matches.joined(parts)
        best = made.best()
        unusual = self.evidence.unusual(self.numbers(best))
        return replace(made, warnings=(*self._kind[0], *unusual))

    def batches(
        self,
        titles: Iterable[str],
        k: int = 1,
        *,
        codes: Mapping[str, Sequence[str]] | None = None,
        size: int = TITLES_PER_PASS,
    ) -> Iterator[Matches]:
        """The same for any number of titles, a table for each ``size`` of them, without warnings.

        Raises:
            ValueError: as for :meth:`match`.
        """
        if k < 1 or size < 1:
            raise ValueError(f"k={k}, size={size}: expected numbers >= 1")
        rest, start = iter(titles), 0
        while part := list(islice(rest, size)):
            own = {kind: values[start : start + size] for kind, values in (codes or {}).items()}
            for kind, values in own.items():
                if len(values) != len(part):
                    raise ValueError(f"codes {kind!r}: found fewer than titles")
            start += len(part)
            texts = [normalize_text(title) for title in part]
            yield self._table(part, self._ranker(texts, k, own), k)

    def numbers(self, best: Matches) -> dict[str, np.ndarray]:
        """What is compared with validation's, of titles' best labels; see ``Evidence.unusual``."""
        found = best.label >= 0
        return {"score": self.scores(best)[found], "cosine": best.cosine[found]}

    def scores(self, table: Matches) -> np.ndarray:
        """The column that decides: probabilities, or cosines where there is no model."""
        if not self.evidence.probabilities:
            exact = np.where(table.probability == 1.0, np.inf, table.cosine)
            return np.asarray(exact)
        return table.probability

    def _table(self, titles: list[str], ranked: Ranked, k: int) -> Matches:
        labels, cosines, sure = (one[:, :k] for one in ranked)
        blank = np.array([not title.strip() for title in titles], np.bool_)
        there = (labels >= 0) & ~blank[:, None]
        keep = there.copy()
        keep[:, 0] = True
        row, place = np.nonzero(keep)
        found = there[row, place]
        label = np.where(found, labels[row, place], -1).astype(np.int64)
        numbers = label.tolist()
        texts, ids = self.catalogue.texts, self.catalogue.ids
        made = Matches(
            titles=titles,
            query=row.astype(np.int64),
            rank=place.astype(np.int64) + 1,
            label=label,
            label_id=_objects(
                [""] * len(numbers) if ids is None else [ids[n] if n >= 0 else "" for n in numbers]
            ),
            text=_objects([texts[n] if n >= 0 else "" for n in numbers]),
            cosine=np.where(found, cosines[row, place], np.nan).astype(np.float64),
            probability=np.where(found, sure[row, place], np.nan).astype(np.float64),
            decision=np.empty(len(row), object),
        )
        first = made.rank == 1
        scores = np.where(found, self.scores(made), -np.inf)[first]
        decided = self.rule(scores)
        decided[~found[first]] = REVIEW
        every = decided[made.query]
        every[~first & (every == ACCEPT)] = ""
        return replace(made, decision=every)

    def explain(self, title: str, label: int | str | None = None) -> str:
        """Which features carried a match, in a line.

        Args:
            title: a text.
            label: number, id or text of a label of the catalogue; None for the best one.

        Raises:
            DataError: there is no such label.
        """
        number = label if isinstance(label, int) else None
        if isinstance(label, str):
            number = self.label_number(label)
        if label is not None and (number is None or not 0 <= number < len(self.catalogue)):
            raise DataError(
                f"found the label {str(label)[:SHOWN]!r}, expected a number, an id or a text of "
                "the catalogue"
            )
        return self._ranker.explain(normalize_text(title), number)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {text: number for number, text in enumerate(self.catalogue.texts)}

    @cached_property
    def _ids(self) -> dict[str, int]:
        return self.catalogue.place()

    def label_number(self, text_or_id: str) -> int | None:
        """The number of the label with this text, or else with this id; None where none has it."""
        text = normalize_text(text_or_id)
        return self._places.get(text, self._ids.get(text))


def _objects(values: list[str]) -> np.ndarray:
    made = np.empty(len(values), object)
    made[:] = values
    return made
