"""The table of queries: one pass over its rows, of which digests and hashes are kept."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from alc_kernels.trainer.data.beside import SEPARATOR, Record
from alc_kernels.trainer.data.protocol import SHARE_STEPS
from alc_kernels.trainer.data.shapes.units import Hashes
from alc_kernels.trainer.data.source import ReadOptions, TextStream
from alc_kernels.trainer.data.tables import Changes, Table
from alc_kernels.trainer.data.text.texts import Digests, group
from alc_kernels.trainer.errors import DataError

# The table of products: ids, texts, and which of them are one label.


class ProductCatalogue:
    """One pass over a catalogue. Products with equal texts are one label, with all their ids.

    Nothing that sees texts only could tell them apart; a query of either is answered by both.

    Args:
        table: a product per row.
        id_column, label_column: places of its columns.

    Attributes:
        ids: (P, 2) uint64 digests of the distinct ids.
        label_of: (P,) int64, the label of each.
        id_lines: the ids of each label, a tab between several.
        num_labels: L.
        notes: what was found on the way.

    Raises:
        DataError: an empty cell, no rows, or an id with two texts; by line.
    """

    def __init__(self, table: Table, id_column: int, label_column: int) -> None:
        self.table, self.path = table, Path(table.name)
        self.column = label_column
        ids, texts, changes, lines = Digests(), Digests(), Changes(), array("q")
        names: list[str] = []
        for number, (name, text) in table.rows([id_column, label_column], changes):
            for cell, what, column in ((name, "id", id_column), (text, "label", label_column)):
                if not cell:
                    raise DataError(
                        f"{self.path}, {table.unit} {number}: found no {what} in column "
                        f"{table.columns[column]!r}, expected text"
                    )
            ids.add(name)
            texts.add(text)
            lines.append(number)
            names.append(name)
        if not names:
            raise DataError(f"{self.path}: found no rows below the header, expected products")
        number_of_text, self.rows = group(texts.array())
        self.num_labels = len(self.rows)
        number_of_id, firsts = group(ids.array())
        self._refuse_two_texts(number_of_text, number_of_id, firsts, lines, names)
        self.ids, self.label_of = ids.array()[firsts], number_of_text[firsts]
        self.id_lines = [""] * self.num_labels
        for row, label in zip(firsts.tolist(), self.label_of.tolist(), strict=True):
            before = self.id_lines[label]
            self.id_lines[label] = f"{before}{SEPARATOR}{names[row]}" if before else names[row]
        self.notes = [*table.notes]
        if repeated := len(names) - len(firsts):
            self.notes.append(
                f"{self.path.name}: rows that repeat an id and its text: {repeated:,}"
            )
        if twins := len(firsts) - self.num_labels:
            self.notes.append(
                f"{self.path.name}: products with the text of an earlier one: {twins:,}; each such "
                "text is one label with all its ids"
            )

    def _refuse_two_texts(
        self,
        text_of: np.ndarray,
        id_of: np.ndarray,
        firsts: np.ndarray,
        lines: array[int],
        names: list[str],
    ) -> None:
        differing = np.flatnonzero(text_of != text_of[firsts[id_of]])
        if len(differing):
            row = int(differing[0])
            earlier, unit = int(firsts[id_of[row]]), self.table.unit
            texts = dict(self._texts_of(sorted({earlier, row})))
            raise DataError(
                f"{self.path}, {unit} {lines[row]}: found id {names[row][:40]!r} with "
                f"{texts[row][:40]!r}, expected {texts[earlier][:40]!r} as in {unit} "
                f"{lines[earlier]}"
            )

    def _texts_of(self, rows: list[int]) -> Iterator[tuple[int, str]]:
        for row, (_, cells) in enumerate(self.table.rows([self.column])):
            if row in rows:
                yield row, cells[0]

    def texts(self) -> TextStream:
        """The label texts."""
        return column_texts(self.table, self.column, self.rows, "label texts")


def column_texts(table: Table, column: int, rows: np.ndarray, what: str) -> TextStream:
    """The texts of a column in some rows (ascending), read again from the table."""

    def read() -> Iterator[tuple[int, str]]:
        for number, cells in cells_at(table, [column], rows):
            yield number, cells[0]

    return TextStream(Path(table.name), read, what, ReadOptions(), unit=table.unit)


def cells_at(table: Table, columns: list[int], rows: np.ndarray) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of some rows, ascending."""
    wanted = iter(rows.tolist())
    at = next(wanted, None)
    for row, found in enumerate(table.rows(columns)):
        if row == at:
            yield found
            at = next(wanted, None)


SPLITS = ("train", "validation", "test")
# What a cell of the split column may say, in whatever letters.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), 0),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), 1),
    **dict.fromkeys(("test", "testing", "tst"), 2),
}
UNIT = "\x1f"  # between the parts of a query's identity; normalised texts hold none
QUERY, OWN_ID, SPLIT = "query", "own id", "split"  # roles of columns


class KeyColumn:
    """The cells of a column that are not empty.

    Attributes:
        rows: (p,) int64, their rows.
        digests: (p, 2) uint64.
        order: (p,) uint64, the first eight bytes of their sha1.
        step: (p,) int64, these modulo SHARE_STEPS.
    """

    def __init__(self) -> None:
        self._rows, self._digests, self._hashes = array("q"), Digests(), Hashes()

    def add(self, row: int, text: str) -> None:
        self._rows.append(row)
        self._digests.add(text)
        self._hashes.add(text)

    def close(self) -> None:
        self.rows = np.frombuffer(self._rows, np.int64)
        self.digests = self._digests.array()
        self.order, _ = self._hashes.arrays()
        # Labels are held out by sha1 modulo SHARE_STEPS: a split by the same number would hold out
        # every product of validation and none of test.
        self.step = (self.order % np.uint64(SHARE_STEPS)).astype(np.int64)


class QueryRows:
    """The rows of a table of queries.

    Equal texts with the same id and the same further columns are one query.

    Args:
        table: with a query in each row.
        places: role -> place of its column; ``QUERY``, and ``OWN_ID`` and ``SPLIT`` where there
            are such columns. Of every other role the cells are kept as a :class:`KeyColumn`.
        keep: places of further columns.
        split_name: of the split column, for messages.

    Attributes:
        texts: (rows, 2) uint64 digests of the texts.
        hashes: of the texts.
        identity: (rows, 2) digests, equal for rows of one query.
        splits: (rows,) int8 numbers of ``SPLITS``, or None.
        keys: role -> its column.
        changes: what normalising the cells changed; the first column is the query's.

    Raises:
        DataError: no rows, an empty query, an unknown split, or an id with two texts; by line.
    """

    def __init__(
        self,
        table: Table,
        places: Mapping[str, int],
        keep: Sequence[int] = (),
        split_name: str = "split",
    ) -> None:
        self.table, self.path, self.split_name = table, Path(table.name), split_name
        self.places, self.keep = dict(places), list(keep)
        self.columns = list(dict.fromkeys([*self.places.values(), *self.keep]))
        self.changes = Changes()
        self.keys = {
            role: KeyColumn() for role in self.places if role not in (QUERY, OWN_ID, SPLIT)
        }
        self._read()

    @property
    def has_ids(self) -> bool:
        return OWN_ID in self.places

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(self.table.columns[place] for place in self.keep)

    def at(self, role: str) -> int:
        """The place of a role's column among the cells that are read."""
        return self.columns.index(self.places[role])

    def _read(self) -> None:
        texts, identity, ids, hashes = Digests(), Digests(), Digests(), Hashes()
        lines, splits = array("q"), array("b")
        at = {role: self.at(role) for role in self.places}
        keys = [(column, at[role]) for role, column in self.keys.items()]
        beside = [at[OWN_ID]] if self.has_ids else []
        beside += [self.columns.index(place) for place in self.keep]
        for row, (number, cells) in enumerate(self.table.rows(self.columns, self.changes)):
            query = cells[at[QUERY]]
            if not query:
                raise DataError(self._where(number) + "found no query, expected text")
            texts.add(query)
            hashes.add(query)
            lines.append(number)
            if beside:
                identity.add(UNIT.join([query, *(cells[place] for place in beside)]))
            if self.has_ids:
                ids.add(cells[at[OWN_ID]])
            if SPLIT in at:
                splits.append(self._split(number, cells[at[SPLIT]]))
            for column, place in keys:
                if cells[place]:
                    column.add(row, cells[place])
        if not lines:
            raise DataError(f"{self.path}: found no rows below the header, expected queries")
        self.lines = np.frombuffer(lines, np.int64)
        self.texts, self.hashes = texts.array(), hashes.arrays()
        self.identity = identity.array() if beside else self.texts
        self.splits = np.frombuffer(splits, np.int8) if SPLIT in at else None
        for column in self.keys.values():
            column.close()
        self.text_of, self.first_rows = group(self.texts)
        if self.has_ids:
            self.ids = ids.array()
            self._refuse_two_texts()

    def _where(self, number: int) -> str:
        return f"{self.path}, {self.table.unit} {number}: "

    def _split(self, number: int, cell: str) -> int:
        code = SPLIT_NAMES.get(cell.casefold())
        if code is None:
            raise DataError(
                f"{self._where(number)}found {cell[:40]!r} as {self.split_name}, expected one of "
                f"{', '.join(SPLITS)}"
            )
        return code

    def _refuse_two_texts(self) -> None:
        id_of, firsts = group(self.ids)
        none = np.flatnonzero((self.ids == Digests([""]).array()).all(1))
        differing = self.text_of != self.text_of[firsts[id_of]]
        differing[none] = False
        if differing.any():
            row = int(np.flatnonzero(differing)[0])
            earlier = int(firsts[id_of[row]])
            columns = [self.places[OWN_ID], self.places[QUERY]]
            (_, (name, before)), (_, (_, after)) = cells_at(
                self.table, columns, np.array([earlier, row])
            )
            raise DataError(
                f"{self._where(self.lines[row])}found id {name[:40]!r} with {after[:40]!r}, "
                f"expected {before[:40]!r} as in {self.table.unit} {self.lines[earlier]} (an id "
                "names one query; --keep-columns keeps a column that does not)"
            )

    def beside(self, rows: np.ndarray) -> Iterator[tuple[str, Record]]:
        """(id, further columns) of some rows, ascending; ``""`` where there are no ids."""
        columns = [self.places[OWN_ID]] if self.has_ids else []
        names = self.column_names
        for _, cells in cells_at(self.table, columns + self.keep, rows):
            own = cells[0] if self.has_ids else ""
            yield own, dict(zip(names, cells[len(columns) :], strict=True))
