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
from alc_kernels.matching.evidence import Certificate, Evidence
from alc_kernels.matching.files import ABOUT, Parts, load_saved, save_parts
from alc_kernels.matching.ranking import Ranked, Ranker, Titles
from alc_kernels.matching.rule import (
    PRECISION,
    Rule,
    Wish,
    certificate,
    certificate_of_new,
    decided,
    made_rule,
)
from alc_kernels.matching.run import Run
from alc_kernels.matching.table import Matches
from alc_kernels.trainer.data.tables import normalize_text
from alc_kernels.trainer.errors import BadInput, DataError
from alc_kernels.trainer.evaluation.certificates import CONFIDENCE
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
        return made_rule(self.wish, self.evidence, self.kind)

    @cached_property
    def kind(self) -> tuple[list[str], str]:
        """Warnings about the catalogue, and why no certificate holds with it, "" if one does."""
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
        return certificate(self.evidence, self.kind, precision, confidence)

    def certificate_of_new(
        self, share: float = 1 - PRECISION, confidence: float = CONFIDENCE
    ) -> Certificate | str:
        """The same for *new*: at most ``share`` of the titles in it have a label here.

        Its threshold is of negated scores: *new* is what scores at most ``-threshold``.

        Returns:
            A certificate, or why there can be none.
        """
        return certificate_of_new(self.evidence, self.kind, share, confidence)

    def accepting(
        self,
        precision: float | None = None,
        *,
        threshold: float | None = None,
        cost: tuple[float, float] | None = None,
        new: float | None = None,
        confidence: float = CONFIDENCE,
    ) -> Matcher:
        """A matcher that decides in another way.

        Args:
            precision: accept from the threshold certified for it; .9 where nothing is said.
            threshold: accept from this score, certified or not.
            cost: (of a wrong match, of a review): accept from where both together cost least on
                the judged titles; no precision is promised.
            new: call *new* what scores so low that, certified, at most this share of it has a
                label here.
            confidence: of what is certified.

        Raises:
            ValueError: two of precision, threshold and cost, or numbers out of range.
        """
        made = self._changed(wish=Wish(precision, threshold, cost, new, confidence))
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
        made = checked_labels(texts, ids, codes or {}, what)
        return replace(made, numbers=known_labels(self.checkpoint, made.texts, made.ids))

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
        for kind, values in (codes or {}).items():
            if len(values) != len(titles):
                raise ValueError(f"codes {kind!r}: found {len(values)}, expected {len(titles)}")
        parts = list(self.batches(titles, k, codes=codes))
        if not parts:
            parts = [self._table([], Ranked(*(np.empty((0, 1)) for _ in range(3))), k)]
        made = parts[0] if len(parts) == 1 else Matches.joined(parts)
        unusual = self.evidence.unusual(self.numbers(made.best()))
        return replace(made, warnings=(*self.kind[0], *unusual))

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
            start += len(part)
            texts = [normalize_text(title) for title in part]
            yield self._table(part, self._ranker(texts, k, own), k)

    def one_to_one(self, table: Matches) -> Matches:
        """At most one title for each label: the choice with the largest sum of scores.

        For two lists in each of which a product stands once. A title's label comes first in the
        result; titles that have to go without one are for review. What is certified is certified
        of each title's best label, not of these.

        Args:
            table: of :meth:`match`, with several labels per title to choose among.
        """
        made, alone = table.one_to_one(self.scores(table))
        return decided(made, self.rule, self.scores(made), alone)

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
        made = Matches.of(titles, ranked, k, self.catalogue)
        return decided(made, self.rule, self.scores(made))

    def explain(self, title: str, label: int | str | None = None) -> str:
        """Which features carried a match, in a line.

        Args:
            title: a text.
            label: number, id or text of a label of the catalogue; None for the best one.

        Raises:
            DataError: there is no such label.
        """
        number = self.label_number(label) if isinstance(label, str) else label
        if label is not None and (number is None or not 0 <= number < len(self.catalogue)):
            raise DataError(
                f"found the label {str(label)[:SHOWN]!r}, expected a number, an id or a text of "
                "the catalogue"
            )
        return self._ranker.explain(normalize_text(title), number)

    def explain_all(self, titles: Sequence[str]) -> list[str]:
        """The same for the best labels of many titles."""
        return self._ranker.explain_best([normalize_text(title) for title in titles])

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

    def label_text(self, text_or_id: str) -> str | None:
        """The text of that label."""
        number = self.label_number(text_or_id)
        return None if number is None else self.catalogue.texts[number]
