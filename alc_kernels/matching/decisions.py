"""People's decisions about titles, in an SQLite file beside a run: each title once.

    RUN/decisions.sqlite
        decision   title, suggested, verdict (label, none, wrong), label, audit, accepted, promise,
                   round
        round      number, source

A transaction holds all of a file or nothing of it, so a command that is killed leaves no half.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from alc_kernels.trainer.errors import XMCError

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
