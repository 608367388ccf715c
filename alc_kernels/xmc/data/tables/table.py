"""What every kind of table offers: columns by name, rows as texts, notes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from alc_kernels.xmc.data.tables.text import Changes, normalize_text
from alc_kernels.xmc.errors import DataError
from alc_kernels.xmc.words import counted, suggestion

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
        self.columns = tuple(normalize_text(column) for column in columns)
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
