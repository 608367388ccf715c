"""Tables of text: CSV and its kin, read exactly or refused by line."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any, Literal

from alc_kernels.trainer.data.tables.table import (
    ABOVE_HEADER,
    Pass,
    Table,
    TableOptions,
    short_list,
)
from alc_kernels.trainer.data.text.lines import TextInput
from alc_kernels.trainer.errors import DataError, counted

# Which character parts the cells of a text table, and whether quotes enclose them.


CANDIDATES = (",", ";", "\t", "|")
QUOTE_MODES: dict[bool, Literal[0, 3]] = {True: csv.QUOTE_MINIMAL, False: csv.QUOTE_NONE}
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}


def delimiter_name(delimiter: str) -> str:
    """For messages."""
    return NAMES.get(delimiter, delimiter)


def find_delimiter(name: str, lines: Sequence[str], quoting: bool, by_name: str) -> str:
    """The delimiter of a table, from its first lines.

    The header must hold it, and no other may part as many of the rows below into as many cells as
    the header has. A header without any of them is that of a table with one column.

    Args:
        name: of the table, for messages.
        lines: whole lines, each with its end.
        quoting: whether quotes enclose cells.
        by_name: what the ending of the file's name stands for.

    Raises:
        DataError: two of them are as good.
    """
    scores = {}
    for delimiter in CANDIDATES:
        widths = _widths(lines, delimiter, quoting)
        if widths and widths[0] > 1:
            same = sum(width == widths[0] for width in widths[1:])
            scores[delimiter] = same / max(len(widths) - 1, 1) if len(widths) > 1 else 1.0
    if not scores:
        return by_name
    best = max(scores.values())
    winners = [delimiter for delimiter, score in scores.items() if score == best]
    if len(winners) == 1:
        return winners[0]
    if "\t" in winners and by_name == "\t":
        return "\t"
    shown = " or ".join(delimiter_name(delimiter) for delimiter in winners)
    raise DataError(
        f"{name}, line 1: its columns may be parted by {shown}, expected one of them "
        "(--delimiter says which)"
    )


def rows_are_wider(lines: Sequence[str], quoting: bool) -> bool:
    """Whether lines are rows of several cells, all of as many, perhaps below some of one."""
    for delimiter in CANDIDATES:
        widths = list(dropwhile(lambda width: width == 1, _widths(lines, delimiter, quoting)))
        if len(widths) > 1 and len(set(widths)) == 1:
            return True
    return False


def _widths(lines: Sequence[str], delimiter: str, quoting: bool) -> list[int]:
    """How many cells each row has; what stands after a fault does not count."""
    widths: list[int] = []
    try:
        for cells in csv.reader(
            lines, delimiter=delimiter, quoting=QUOTE_MODES[quoting], strict=True
        ):
            if cells and (len(cells) > 1 or cells[0].strip()):
                widths.append(len(cells))
    except csv.Error:
        pass
    return widths


def quotes_enclose(text: str, delimiter: str) -> bool:
    """Whether the start of a table shows that its quotes enclose cells.

    It does where a name of the header is quoted, or where a quoted cell that ends on its line
    holds a delimiter or a doubled quote: cells in which quotes are plain look like that by
    accident only.
    """
    mark = re.escape(delimiter)
    header = text.partition("\n")[0]
    cell = rf'(?:^|(?<={mark}))"(?:[^"\n]|"")*"(?={mark}|\r?$)'
    if re.search(cell, header):
        return True
    for found in re.finditer(cell, text, re.MULTILINE):
        inside = found[0][1:-1]
        if delimiter in inside or '""' in inside:
            return True
    return False


SAMPLE_LINES, SAMPLE_LETTERS = 500, 1 << 18
# Stands for a CR inside a line, which csv would take for a line's end: no decoded text holds it.
CR = "\udc0d"
LONGEST_CELL = 1000  # lines; a cell that swallows more of them was opened by a stray quote


class DelimitedTable(Table):
    """A text file with a row in each line, or in several where a quoted cell holds line breaks."""

    unit = "line"

    def __init__(self, path: Path, options: TableOptions, name: str, by_name: str) -> None:
        _allow_long_cells()
        self.options = options
        self.file = TextInput(path, options.encoding, name, by_first=True)
        sample = self._sample(name)
        self.skipped_lines = 0  # at the start
        self.delimiter = options.delimiter or ""
        assumed = list(self.file.notes)
        first = sample[0].strip() if sample else ""
        if first[:4].lower() == "sep=" and len(first) == 5:  # Excel's, for itself
            sample, self.skipped_lines = sample[1:], 1
            self.delimiter = self.delimiter or first[4]
        if not self.delimiter:
            quoting = options.quoting is not False
            self.delimiter = find_delimiter(name, sample, quoting, by_name)
            if self.delimiter != by_name:
                shown = delimiter_name(self.delimiter)
                assumed.append(f"{name}: columns parted by {shown} (--delimiter names another)")
        self.trusted = options.quoting is True or quotes_enclose("".join(sample), self.delimiter)
        self.name, self.num_columns = name, 0
        columns: list[str] = []
        for _, cells in islice(self._parsed(), 1):
            columns = cells
        if not columns:
            raise DataError(f"{name}, line 1: the file is empty, expected a header of column names")
        super().__init__(name, columns, header=options.header)
        self.num_columns = len(columns)
        self._assumed = assumed

    def _sample(self, name: str) -> list[str]:
        """The first lines, each with its end; a last one that may be cut is left out."""
        lines, letters = [], 0
        for number, line in self.file.lines():
            if "\0" in line:
                raise DataError(
                    f"{name}, line {number}: found a zero byte, expected a table of text"
                )
            lines.append(f"{line}\n".replace("\r", CR))
            letters += len(line)
            if len(lines) == SAMPLE_LINES or letters > SAMPLE_LETTERS:
                break
        return lines

    def _cells(self, columns: Sequence[int], found: Pass) -> Iterator[tuple[int, list[str]]]:
        rows = self._parsed()
        if self.options.header:
            next(rows)
        for number, cells in rows:
            if not any(cells) and self.num_columns > 1 and not self.keep_empty_rows:
                found.counts["empty"] += 1
                continue
            yield number, [cells[i] for i in columns]

    def _pass_notes(self, found: Pass) -> list[str]:
        if not found.counts["empty"]:
            return []
        rows = counted(found.counts["empty"], "rows")
        return [f"{self.name}: {rows} without any text, left out"]

    def _parsed(self) -> Iterator[tuple[int, list[str]]]:
        """(number of its first line, cells) of every row that is not blank, the header included."""
        held: list[str] = []  # the lines of the row at hand
        first = self.skipped_lines + 1
        quoting = QUOTE_MODES[self.options.quoting is not False]
        lines = self._lines(held)
        reader = csv.reader(lines, delimiter=self.delimiter, quoting=quoting, strict=True)
        try:
            for cells in reader:
                if any(CR in line for line in held):
                    cells = [cell.replace(CR, "\n") for cell in cells]
                if len(cells) > 1 or (cells and (cells[0].strip() or self.num_columns == 1)):
                    self._check(first, cells, held)
                    yield first, cells
                first += len(held)
                held.clear()
        except csv.Error as error:
            raise DataError(
                f"{self.name}, line {first}: {_reason(error)}, expected cells in the format of CSV"
                f"{self._hint(held)}"
            ) from None

    def _lines(self, held: list[str]) -> Iterator[str]:
        for number, line in islice(self.file.lines(), self.skipped_lines, None):
            line = line.replace("\r", CR)
            held.append(line)
            if len(held) > LONGEST_CELL and self.options.quoting is None:
                raise DataError(
                    f"{self.name}, line {number - LONGEST_CELL}: a quote opens a cell that does "
                    f"not end within {LONGEST_CELL} lines (--no-quoting takes quotes as plain "
                    "characters, --quoting allows cells of any length)"
                )
            yield f"{line}\n"

    def _check(self, first: int, cells: list[str], held: list[str]) -> None:
        expected = self.num_columns or len(cells)
        if len(cells) != expected:
            names = f" ({short_list(self.columns)})" if self.has_header else ""
            raise DataError(
                f"{self.name}, line {first}: found {counted(len(cells), 'columns')}, expected "
                f"{expected}{names}{self._above_header() or self._hint(held)}"
            )
        if len(held) == 1 or self.trusted or expected == 1:
            return
        # A stray quote at the start of a cell and one at the end of a later line merge rows.
        # (A cell of nothing but a quote is none: there the quote ended a cell with a line break.)
        by_itself = [line.split(self.delimiter) for line in held]
        if all(len(row) == expected and '"' not in row for row in by_itself):
            raise DataError(
                f"{self.name}, line {first}: a quote opens a cell that ends on line "
                f"{first + len(held) - 1}, and every line between would be a row by itself "
                "(--no-quoting if quotes are plain characters, --quoting if they enclose cells)"
            )

    def hint(self) -> str:
        if not self.has_header:
            return ""
        return self._above_header() or "; --no-header if the first line is a row"

    def _above_header(self) -> str:
        """A hint where the first line has one cell only, and those below are rows of several."""
        if not self.options.header or sum(map(bool, self.columns)) != 1:
            return ""
        below = self._sample(self.name)[self.skipped_lines + 1 :]
        return ABOVE_HEADER if rows_are_wider(below, self.options.quoting is not False) else ""

    def _hint(self, held: list[str]) -> str:
        """What may help, where a row cannot be read."""
        if self.options.quoting is not False and any('"' in line for line in held):
            return "; if quotes are plain characters here: --no-quoting"
        if self.options.delimiter is None:
            return f"; columns are parted by {delimiter_name(self.delimiter)}, or set --delimiter"
        return ""


def _reason(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a quote opens a cell that never ends"
    if "expected after" in str(error):
        return "a quote ends inside a cell"
    return str(error)


def _allow_long_cells() -> None:
    """Raise the csv module's limit, which is one for the whole process, as far as C's long goes."""
    if csv.field_size_limit() < (1 << 31) - 1:
        csv.field_size_limit((1 << 31) - 1)


# JSON Lines: an object in each line, whose keys are the columns.


SAMPLE = 1000  # lines whose keys are the columns


class JsonLinesTable(Table):
    """A file of objects; numbers stand as they are written, null and an absent key are empty."""

    unit = "line"

    def __init__(self, path: Path, options: TableOptions) -> None:
        self.file, self.name = TextInput(path, options.encoding), str(path)
        keys: dict[str, None] = {}
        for _, made in islice(self._objects(), SAMPLE):
            keys.update(dict.fromkeys(made))
        if not keys:
            raise DataError(f"{path}, line 1: the file is empty, expected JSON objects")
        self.keys = list(keys)
        super().__init__(str(path), self.keys)
        self._assumed = list(self.file.notes)

    def _cells(self, columns: Sequence[int], found: Pass) -> Iterator[tuple[int, list[str]]]:
        keys = [self.keys[column] for column in columns]
        for number, made in self._objects():
            cells = []
            for column, key in zip(columns, keys, strict=True):
                if key not in made:
                    found.counts[column] += 1
                    cells.append("")
                    continue
                cells.append(self._text(number, key, made[key]))
            yield number, cells

    def _text(self, number: int, key: str, value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        if not isinstance(value, str):
            what = "a list" if isinstance(value, list) else "an object"
            raise DataError(
                f"{self.name}, line {number}: found {what} for {key!r}, expected text or a number"
            )
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise DataError(
                    f"{self.name}, line {number}: found a lone surrogate in {key!r}, expected "
                    "valid Unicode"
                ) from None
        return value

    def _pass_notes(self, found: Pass) -> list[str]:
        return [
            f"{self.name}: {counted(count, 'lines have', 'line has')} no {self.columns[column]!r}, "
            "read as empty"
            for column, count in found.counts.items()
            if isinstance(column, int)
        ]

    def _objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(line number, object) of every line that is not blank."""
        decoder = json.JSONDecoder(
            object_pairs_hook=_unique, parse_int=str, parse_float=str, parse_constant=_no_constant
        )
        for number, line in self.file.lines():
            if not line.strip():
                continue
            try:
                made = decoder.decode(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{self.name}, line {number}: not JSON ({error.msg} at column {error.colno}), "
                    "expected an object on each line"
                ) from None
            except (_Fault, RecursionError) as error:
                raise DataError(
                    f"{self.name}, line {number}: found {error}, expected an object with each key "
                    "once"
                ) from None
            if not isinstance(made, dict):
                raise DataError(
                    f"{self.name}, line {number}: found no JSON object ({line.strip()[:20]!r}), "
                    "expected one on each line"
                )
            yield number, made


class _Fault(Exception):
    """What an object holds that it must not."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Fault(f"the key {twice!r} twice")
    return made


def _no_constant(name: str) -> Any:
    raise _Fault(f"{name}, which is no JSON")
