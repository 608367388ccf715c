"""What matching returns: a table whose columns are arrays, read by column, row or title."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from alc_kernels.acceptance import one_to_one
from alc_kernels.matching.catalogue import Catalogue

ACCEPT, REVIEW, NEW = "accept", "review", "new"
COLUMNS = ("query", "rank", "label", "label_id", "text", "cosine", "probability", "decision")


class Match(NamedTuple):
    """A label found for a title: a row of :class:`Matches`.

    Attributes:
        query: number of the title.
        rank: from 1.
        label: number of the label in the catalogue, -1 where none was found.
        label_id: its id, several with a tab between; "" for none.
        text: its text, "" where none was found.
        cosine: similarity of the embeddings; NaN where no label was found.
        probability: of being right, by the acceptance model; NaN without one, and for labels
            beyond the candidates that it looks at.
        decision: ``"accept"``, ``"review"`` or ``"new"`` at rank 1 and for all labels of a title
            that is not accepted; empty for the further labels of an accepted one.
    """

    query: int
    rank: int
    label: int
    label_id: str
    text: str
    cosine: float
    probability: float
    decision: str


@dataclass(frozen=True)
class Matches:
    """The labels found for n titles, R rows: title after title, best label first.

    ``matches["text"]`` is a column; ``for title, rows in matches`` goes by title; ``len`` counts
    titles. A blank title, or one for which nothing was found, has one row without a label.

    Attributes:
        titles: the n titles as given.
        query, rank, label: (R,) int64.
        label_id, text, decision: (R,) object, texts.
        cosine, probability: (R,) float64.
        warnings: in a sentence each, in what way titles or catalogue differ from those that the
            threshold was certified on; see :meth:`~alc_kernels.matching.Matcher.match`.
    """

    titles: Sequence[str]
    query: np.ndarray
    rank: np.ndarray
    label: np.ndarray
    label_id: np.ndarray
    text: np.ndarray
    cosine: np.ndarray
    probability: np.ndarray
    decision: np.ndarray
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.titles)

    def __getitem__(self, column: str) -> np.ndarray:
        """A column by name.

        Raises:
            KeyError: no such column; the message has those that there are.
        """
        if column not in COLUMNS:
            raise KeyError(f"{column!r}: expected one of {', '.join(COLUMNS)}")
        return np.asarray(getattr(self, column))

    def columns(self) -> dict[str, np.ndarray]:
        """All columns by name, in order."""
        return {name: self[name] for name in COLUMNS}

    def rows(self) -> Iterator[Match]:
        """Row by row."""
        return map(Match._make, zip(*(self[name].tolist() for name in COLUMNS), strict=True))

    def __iter__(self) -> Iterator[tuple[str, list[Match]]]:
        """(title, its rows), title by title."""
        ends = np.cumsum(np.bincount(self.query, minlength=len(self.titles))).tolist()
        rows, start = list(self.rows()), 0
        for title, end in zip(self.titles, ends, strict=True):
            yield title, rows[start:end]
            start = end

    def best(self) -> Matches:
        """The best label of each title alone, n rows."""
        return self.take(self.rank == 1)

    def take(self, rows: np.ndarray) -> Matches:
        """Some of the rows, by a mask (R,) or by numbers; the titles stay."""
        kept = {name: self[name][rows] for name in COLUMNS}
        return Matches(titles=self.titles, **kept, warnings=self.warnings)

    def to_pandas(self) -> Any:
        """A data frame of the columns, with the titles as ``title`` in front.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas  # type: ignore[import-untyped,unused-ignore]

        titles = np.array([*self.titles, ""], object)[self.query]
        return pandas.DataFrame({"title": titles, **self.columns()})

    @classmethod
    def joined(cls, parts: Sequence[Matches]) -> Matches:
        """Several tables one below the other; titles are numbered on."""
        starts = np.cumsum([0, *(len(part) for part in parts)])
        made: dict[str, Any] = {
            name: np.concatenate([part[name] for part in parts]) for name in COLUMNS
        }
        made["query"] = np.concatenate(
            [part.query + start for part, start in zip(parts, starts, strict=False)]
        )
        warnings = dict.fromkeys(text for part in parts for text in part.warnings)
        return cls([t for part in parts for t in part.titles], **made, warnings=tuple(warnings))

    @classmethod
    def of(
        cls,
        titles: Sequence[str],
        ranked: tuple[np.ndarray, np.ndarray, np.ndarray],
        k: int,
        catalogue: Catalogue,
    ) -> Matches:
        """From ranked labels, cosines and probabilities, (n, m) each; nothing is decided yet."""
        labels, cosines, sure = (one[:, :k] for one in ranked)
        blank = np.array([not title.strip() for title in titles], np.bool_)
        there = (labels >= 0) & ~blank[:, None]
        keep = there.copy()
        keep[:, 0] = True
        row, place = np.nonzero(keep)
        found = there[row, place]
        label = np.where(found, labels[row, place], -1).astype(np.int64)
        texts, ids = catalogue.texts, catalogue.ids
        numbers = label.tolist()
        return cls(
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
            decision=_objects([""] * len(row)),
        )

    def one_to_one(self, scores: np.ndarray) -> tuple[Matches, np.ndarray]:
        """Each label for one title at most, and (n,) bool, which titles go without one.

        Args:
            scores: (R,) of the rows; the sum of the chosen ones is the largest that there is.
        """
        count, width = len(self), int(self.rank.max(initial=1))
        place = self.rank - 1
        labels = np.full((count, width), -1, np.int64)
        values = np.zeros((count, width))
        labels[self.query, place] = self.label
        values[self.query, place] = np.minimum(scores, 2.0)  # an equal code counts as infinite
        chosen = one_to_one(labels, values)
        mine = chosen[self.query]
        first = place == mine
        rank = self.rank + ((mine >= 0) & (place < mine))
        rank[first] = 1
        order = np.lexsort((rank, self.query))
        made = replace(self.take(order), rank=rank[order])
        return made, chosen < 0


def _objects(values: list[str]) -> np.ndarray:
    made = np.empty(len(values), object)
    made[:] = values
    return made
