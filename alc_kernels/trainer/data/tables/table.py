"""What every kind of table offers: columns by name, rows as texts, notes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from alc_kernels.trainer.data.text.opening import check_encoding
from alc_kernels.trainer.data.text.texts import Digests, group
from alc_kernels.trainer.errors import DataError, counted, suggestion

# The one form in which a text is compared, hashed, split and written.


def normalize_text(raw: str) -> str:
    """Without white space at its ends; every line break and run of white space inside is a blank.

    White space is what Unicode calls so: LF, CR, tab, no-break space, U+2028 and the like.
    """
    return " ".join(raw.split())


class Changes:
    """The cells that :func:`normalize_text` changed: from them, how many texts became one."""

    def __init__(self) -> None:
        self._rows: dict[int, array[int]] = {}
        self._digests: dict[int, Digests] = {}

    def add(self, column: int, row: int, raw: str) -> None:
        """Note the text of a cell as it was; row counts the rows of the pass from 0."""
        self._rows.setdefault(column, array("q")).append(row)
        self._digests.setdefault(column, Digests()).add(raw)

    def became_one(self, column: int, digests: np.ndarray, rows: np.ndarray | None = None) -> int:
        """How many different texts of a column less there are than before.

        Args:
            column: its place among the columns that were read.
            digests: (n, 2) uint64, of the texts as they are now.
            rows: (n,) int64, ascending, the row of each; None: all rows.
        """
        if column not in self._rows:
            return 0
        at = np.frombuffer(self._rows[column], np.int64)
        before = self._digests[column].array()
        if rows is not None:
            known = np.isin(at, rows)
            at, before = np.searchsorted(rows, at[known]), before[known]
        raw = digests.copy()
        raw[at] = before
        return len(group(raw)[1]) - len(group(digests)[1])


SHOWN = 20  # names of columns in a message
ABOVE_HEADER = "; the header must be the first row: remove the rows above the header"


def short_list(names: Sequence[str]) -> str:
    """Names for a message, the first of many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name[:60] or "''" for name in names[:SHOWN]) + more


@dataclass
class Pass:
    """What one pass over a table finds beside its rows; each has its own, as several may be live.

    Attributes:
        counts: how often what was met; a number stands for an absent cell of that column.
        kinds: column -> of what its values are that are no texts.
    """

    counts: Counter[str | int] = field(default_factory=Counter)
    kinds: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))


class Table(ABC):
    """A table that can be read more than once, row by row, also by several readers at a time.

    Attributes:
        name: of its file, for messages.
        columns: their names, without white space at the ends; ``"1"`` to ``"n"`` without a header.
        unit: what the numbers of rows count, ``"line"`` of a file or ``"row"``.
        notes: what was assumed or normalised, one sentence each; the latter of the full pass that
            ended last.
        keep_empty_rows: whether a row of a text table or a sheet all of whose cells are empty is
            a row; else it is left out, and noted.
    """

    unit = "row"
    keep_empty_rows = False

    def __init__(self, name: str, columns: Sequence[str], *, header: bool = True) -> None:
        self.name = name
        given = columns if header else map(str, range(1, len(columns) + 1))
        self.columns = tuple(normalize_text(column) for column in given)
        self.has_header = header
        self._assumed: list[str] = []  # on opening
        self._found: list[str] = []  # in the last full pass

    @property
    def notes(self) -> list[str]:
        return self._assumed + self._found

    def has(self, name: str) -> bool:
        """Whether a column has this name, in whatever letters."""
        wanted = normalize_text(name).casefold()
        return any(column.casefold() == wanted for column in self.columns)

    def find(self, wanted: str, option: str) -> int:
        """The place of a column, by its name, by its name in other letters, or by its number.

        Args:
            wanted: the name; or a number from 1, where no column has it as its name.
            option: what the user sets it with, for messages.

        Raises:
            DataError: there is no such column, or more than one.
        """
        name = normalize_text(wanted)
        for fold in (str, str.casefold):
            places = [i for i, column in enumerate(self.columns) if fold(column) == fold(name)]
            if len(places) > 1:
                numbers = " and ".join(str(place + 1) for place in places)
                raise DataError(
                    f"{self.name}: found {len(places)} columns {wanted!r}, number {numbers}, "
                    f"expected one ({option} takes the number of a column as well)"
                )
            if places:
                return places[0]
        if name.isdecimal() and 1 <= int(name) <= len(self.columns):
            return int(name) - 1
        hint = suggestion(name, self.columns) or self.hint()
        raise DataError(
            f"{self.name}: found columns {short_list(self.columns)}, expected {wanted!r} "
            f"({option} names it){hint}"
        )

    def hint(self) -> str:
        """What may help where the columns are not those that are expected; ``""`` or ``"; ..."``.

        Only what has a header among its rows is read in another way.
        """
        return ""

    def rows(
        self, columns: Sequence[int], changes: Changes | None = None
    ) -> Iterator[tuple[int, list[str]]]:
        """(number, normalised texts of some columns) of every row; an absent value is ``""``.

        Args:
            columns: their places, in the order wanted.
            changes: takes note of every cell that normalising changed.

        Raises:
            DataError: what cannot be read, by line or row, on reaching it.
        """
        found, broken, blanks = Pass(), 0, 0
        for row, (number, cells) in enumerate(self._cells(columns, found)):
            for at, raw in enumerate(cells):
                text = normalize_text(raw)
                if text != raw:
                    cells[at] = text
                    if len(raw.strip().splitlines()) > 1:
                        broken += 1
                    else:
                        blanks += 1
                    if changes is not None:
                        changes.add(at, row, raw)
            yield number, cells
        notes = []
        if broken:
            notes.append(
                f"{self.name}: "
                + counted(broken, "cells hold line breaks", "cell holds line breaks")
                + ", read as blanks"
            )
        if blanks:
            notes.append(
                f"{self.name}: in {counted(blanks, 'cells')}, white space was removed at the ends "
                "or made a single blank between words"
            )
        self._found = notes + self._pass_notes(found)

    @abstractmethod
    def _cells(self, columns: Sequence[int], found: Pass) -> Iterator[tuple[int, list[str]]]:
        """Rows as they are; what is to be noted goes into ``found`` alone."""

    def _pass_notes(self, found: Pass) -> list[str]:
        """What a pass that has ended found, in sentences."""
        return []


# How to read a table, where its reader should not find it out by itself.


DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|"}


@dataclass(frozen=True)
class TableOptions:
    """How to read a table.

    Attributes:
        delimiter: one character between the cells of a text table, or its name: comma, semicolon,
            tab, pipe; None finds which of these.
        encoding: of a text table, as Python names it; None finds it.
        quoting: whether ``"`` encloses cells of a text table; False takes it as any other
            character, True trusts it wherever it opens a cell, None does so too but refuses a cell
            that seems to have swallowed rows.
        header: whether the first row has the names of the columns; without, they are 1 to n.
        sheet: name of the sheet of an .xlsx file, in whatever letters; None takes the first.

    Raises:
        ValueError: a delimiter or an encoding that cannot be one.
    """

    delimiter: str | None = None
    encoding: str | None = None
    quoting: bool | None = None
    header: bool = True
    sheet: str | None = None

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            made = DELIMITERS.get(self.delimiter.lower(), self.delimiter)
            if len(made) != 1 or made.isalnum() or made in '"\r\n':
                raise ValueError(
                    f"{self.delimiter!r}: expected one character that is no letter, digit or "
                    "quote, or one of comma, semicolon, tab, pipe"
                )
            object.__setattr__(self, "delimiter", made)
        if self.encoding is not None:
            object.__setattr__(self, "encoding", check_encoding(self.encoding))
