"""The table of products: ids, texts, and which of them are one label."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alc_kernels.trainer.data.beside import SEPARATOR
from alc_kernels.trainer.data.source import ReadOptions, TextStream
from alc_kernels.trainer.data.tables import Changes, Table
from alc_kernels.trainer.data.text.texts import Digests, group
from alc_kernels.trainer.errors import DataError


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
