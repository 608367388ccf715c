"""People's decisions about titles, in an SQLite file beside a run: each title once.

    RUN/decisions.sqlite
        decision   title, suggested, verdict (label, none, wrong), label, audit, accepted, promise,
                   round
        round      number, source

A transaction holds all of a file or nothing of it, so a command that is killed leaves no half.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from alc_kernels.trainer.data import Dataset, Split
from alc_kernels.trainer.data.beside import Columns, column_line
from alc_kernels.trainer.errors import XMCError, counted

FILE = "decisions.sqlite"
VERSION = 1
LABEL, NONE, WRONG = "label", "none", "wrong"
_SCHEMA = """
CREATE TABLE round (number INTEGER PRIMARY KEY, source TEXT NOT NULL);
CREATE TABLE decision (
    title TEXT PRIMARY KEY,
    suggested TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('label', 'none', 'wrong')),
    label TEXT NOT NULL,
    audit INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    promise REAL,
    round INTEGER NOT NULL REFERENCES round (number)
);
"""
SHOWN = 40


class DecisionsError(XMCError):
    """A file of decisions that cannot be used; one line that names it."""


class Decision(NamedTuple):
    """What somebody decided about a title.

    Attributes:
        title: normalised.
        suggested: text of the label that was suggested first; "" where that is not known.
        verdict: ``"label"``: ``label`` is right; ``"none"``: the catalogue has no right one;
            ``"wrong"``: the suggested one is wrong, the right one is not known.
        label: text of the right label; "" for the other verdicts.
        audit: whether the title was drawn at random for the certificate, not for what it teaches.
        accepted: whether it would have been accepted.
        promise: the precision that was promised of what is accepted; None where none was.
        round: in which file it came, from 1; 0 before it is kept.
    """

    title: str
    suggested: str
    verdict: str
    label: str = ""
    audit: bool = False
    accepted: bool = False
    promise: float | None = None
    round: int = 0

    @property
    def correct(self) -> bool:
        """Whether the suggested label is right."""
        return self.verdict == LABEL and self.label == self.suggested

    @property
    def product(self) -> str:
        """Names the product; where it is not known, what was suggested stands for it."""
        return f"= {self.label}" if self.verdict == LABEL else f"? {self.suggested}"

    @property
    def told(self) -> str:
        """The verdict in words."""
        if self.verdict == LABEL:
            return repr(self.label[:SHOWN])
        return "none of the catalogue" if self.verdict == NONE else "not the suggested label"


@dataclass
class Added:
    """What :meth:`Decisions.add` did.

    Attributes:
        new: titles decided for the first time.
        again: decisions that were known already.
        changed: a sentence for each title that was decided in another way before.
    """

    new: int = 0
    again: int = 0
    changed: list[str] = field(default_factory=list)


class Decisions:
    """The file of decisions of a run.

    Args:
        path: of the file; made when something is first added.

    Raises:
        DecisionsError: it is no such file, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            with self._open() as database:
                self._check(database)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """In one transaction: all of it is kept, or nothing where an error or a kill comes."""
        try:
            database = sqlite3.connect(self.path)
        except sqlite3.Error as error:
            raise DecisionsError(f"{self.path}: cannot be opened ({error})") from None
        try:
            with database:
                yield database
        except sqlite3.Error as error:
            raise DecisionsError(
                f"{self.path}: no file of decisions, or damaged ({error})"
            ) from None
        finally:
            database.close()

    def _check(self, database: sqlite3.Connection) -> None:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
        if version != VERSION or not {"round", "decision"} <= tables:
            raise DecisionsError(f"{self.path}: is no file of decisions of this version")

    def add(self, decisions: Sequence[Decision], source: str) -> Added:
        """Keep decisions as one round; a title that is known keeps its place.

        Where a title was decided in another way before, the later decision counts: it may correct
        the earlier. Its round and whether it was drawn at random stay.
        """
        added = Added()
        fresh = not self.path.exists()
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            if fresh:
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {VERSION}")
            self._check(database)
            last = database.execute("SELECT coalesce(max(number), 0) FROM round").fetchone()[0]
            for one in decisions:
                before = self._find(database, one.title)
                if before is None:
                    if not added.new:
                        database.execute("INSERT INTO round VALUES (?, ?)", (last + 1, source))
                    database.execute(
                        "INSERT INTO decision VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        (*one[:4], int(one.audit), int(one.accepted), one.promise, last + 1),
                    )
                    added.new += 1
                elif (before.verdict, before.label) == (one.verdict, one.label):
                    added.again += 1
                else:
                    database.execute(
                        "UPDATE decision SET verdict = ?, label = ? WHERE title = ?",
                        (one.verdict, one.label, one.title),
                    )
                    added.changed.append(
                        f"{source}: {one.title[:SHOWN]!r} is decided as {one.told}, before it was "
                        f"{before.told}; the later decision counts"
                    )
        return added

    def _find(self, database: sqlite3.Connection, title: str) -> Decision | None:
        rows = database.execute("SELECT * FROM decision WHERE title = ?", (title,))
        return next(map(_decision, rows), None)

    def all(self) -> list[Decision]:
        """All decisions, by round, in the order in which they came."""
        if not self.path.exists():
            return []
        with self._open() as database:
            rows = database.execute("SELECT * FROM decision ORDER BY round, rowid")
            return list(map(_decision, rows))


def _decision(row: tuple[Any, ...]) -> Decision:
    title, suggested, verdict, label, audit, accepted, promise, number = row
    return Decision(title, suggested, verdict, label, bool(audit), bool(accepted), promise, number)


# Decisions as training pairs.


def with_decisions(dataset: Dataset, decisions: Iterable[Decision]) -> tuple[Dataset, list[str]]:
    """A data set with decisions as further training titles.

    Titles that validation or test have stay there alone, and where products were kept apart so do
    products: a decision about one that validation or test have, and training has not, is left out.
    So is what names no label of the data set, or one that is held out.

    Returns:
        The data set, and what was taken and left out, a sentence each.
    """
    labels = {text: number for number, text in enumerate(dataset.labels)}
    judged = {text for name in ("validation", "test") for text in dataset.splits[name].queries}
    train = dataset.train
    known = {text: row for row, text in enumerate(train.queries)}
    trained = np.diff(train.relation.tocsc().indptr) > 0
    asked = np.zeros(dataset.num_labels, np.bool_)
    for name in ("validation", "test"):
        asked[dataset.splits[name].relation.indices] = True
    apart = not (trained & asked).any()
    titles, pairs = list(train.queries), []
    left = dict.fromkeys(_LEFT_OUT, 0)
    for one in decisions:
        number = labels.get(one.label, -1)
        if one.verdict != LABEL:
            left["say which label is not right only"] += 1
        elif number < 0 or dataset.held_out[number]:
            left["name a label that the data do not have, or hold out"] += 1
        elif one.title in judged:
            left["are of titles of validation or test"] += 1
        elif apart and asked[number]:
            left["are of products of validation or test"] += 1
        else:
            if one.title not in known:
                known[one.title] = len(titles)
                titles.append(one.title)
            pairs.append((known[one.title], number))
    new = len(titles) - len(train)
    more = csr_matrix((len(titles), dataset.num_labels), dtype=np.float32)
    if pairs:
        row, column = np.array(pairs).T
        more = csr_matrix((np.ones(len(pairs), np.float32), (row, column)), shape=more.shape)
    wide = csr_matrix(
        (train.relation.data, train.relation.indices,
         np.append(train.relation.indptr, [train.relation.nnz] * new)), more.shape,
    )  # fmt: skip
    relation = ((wide + more) > 0).astype(np.float32).tocsr()
    relation.sort_indices()
    excluded = train.excluded
    if excluded is not None:
        excluded = csr_matrix(
            (excluded.data, excluded.indices, np.append(excluded.indptr, [excluded.nnz] * new)),
            more.shape,
        )
        excluded = (excluded - excluded.multiply(relation)).tocsr()
        excluded.eliminate_zeros()
    columns = train.columns
    if columns is not None and new:
        columns = Columns(
            columns.names,
            [*columns.lines, *[column_line(dict.fromkeys(columns.names, ""))] * new],
        )
    split = Split(
        titles, relation, excluded, _padded(train.ids, new), columns, _padded(train.groups, new)
    )
    notes = [f"{counted(len(pairs), 'decisions')} became training pairs, {new:,} of new titles"]
    notes += [f"{counted(count, 'decisions')} left out that {why}" for why, count in left.items()
              if count]  # fmt: skip
    return replace(dataset, splits={**dataset.splits, "train": split}, folder=None,
                   _catalogues={}), notes  # fmt: skip


_LEFT_OUT = (
    "say which label is not right only",
    "name a label that the data do not have, or hold out",
    "are of titles of validation or test",
    "are of products of validation or test",
)


def _padded(values: Sequence[str] | None, count: int) -> Sequence[str] | None:
    return None if values is None else [*values, *[""] * count]
