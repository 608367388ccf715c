"""Spreadsheets (.xlsx): a sheet, its cells as the program shows them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from alc_kernels.trainer.data.tables.number_format import plain_number, show_date, show_number
from alc_kernels.trainer.data.tables.table import (
    ABOVE_HEADER,
    Pass,
    Table,
    TableOptions,
    normalize_text,
    short_list,
)
from alc_kernels.trainer.errors import DataError, counted, first_line, needs, suggestion

BLOCK = 1 << 20
SHOWN = 10  # names of sheets in a message
LOOK_BELOW = 50  # rows
_FORMULA = re.compile(rb"<(?:\w+:)?f[\s>/]")


class ExcelTable(Table):
    """One sheet; the first row that holds anything is the header."""

    def __init__(self, path: Path, options: TableOptions) -> None:
        self.path, self.options = path, options
        with needs(f"{path}: an .xlsx file", "openpyxl", "tables", DataError):
            import openpyxl  # noqa: F401
        self.formulas = self._holds_formulas()
        with self._workbook() as workbook:
            titles = [sheet.title for sheet in workbook.worksheets]
        if not titles:
            raise DataError(f"{path}: holds no sheet, expected a table")
        wanted, assumed = options.sheet or titles[0], []
        # Spreadsheet programs tell no names apart by case.
        same = [title for title in titles if _plain(title) == _plain(wanted)]
        same = [wanted] if wanted in titles else same
        if len(same) != 1:
            raise DataError(
                f"{path}: found sheets {short_list(titles)}, expected {wanted!r} (--sheet "
                f"names it){suggestion(wanted, titles)}"
            )
        self.sheet = same[0]
        self.others = [title for title in titles if title != self.sheet]
        name = f"{path}, sheet {self.sheet!r}" if len(titles) > 1 else str(path)
        if options.sheet is None and len(titles) > 1:
            assumed.append(f"{path}: read its first sheet, {titles[0]!r} (--sheet names another)")
        self.name, self.columns = name, ()
        header = next(self._shown_rows(Pass()), None)
        if header is None:
            raise DataError(
                f"{name}: the sheet is empty, expected a header of column names{self._sheets()}"
            )
        super().__init__(name, header[1], header=options.header)
        self._assumed = assumed

    def _cells(self, columns: Sequence[int], found: Pass) -> Iterator[tuple[int, list[str]]]:
        rows = self._shown_rows(found, set(columns))
        if self.options.header:
            next(rows)
        for number, cells in rows:
            yield number, [cells[i] for i in columns]

    def _pass_notes(self, found: Pass) -> list[str]:
        made, counts = [], found.counts
        if counts["empty"]:
            made.append(
                f"{self.name}: {counted(counts['empty'], 'rows')} without any text, left out"
            )
        if counts["computed"]:
            made.append(
                f"{self.name}: {counted(counts['computed'], 'cells hold', 'cell holds')} formulas, "
                "read by the values that were saved with them"
            )
        if counts["unsure"]:
            values = counted(counts["unsure"], "numbers or dates", "number or date")
            made.append(
                f"{self.name}: {values} in a format that depends on the "
                "country or is not understood, read as plain digits or year-month-day"
            )
        return made

    def hint(self) -> str:
        made = ""
        if self.has_header:
            made = self._above_header() or "; --no-header if the first row is one like others"
        return made + self._sheets()

    def _sheets(self) -> str:
        if not self.others:
            return ""
        shown = ", ".join(map(repr, self.others[:SHOWN]))
        return f"; other sheets are {shown} (--sheet names one)"

    def _above_header(self) -> str:
        """A hint where the first row has one cell only, and one below has several."""
        if sum(map(bool, self.columns)) != 1:
            return ""
        rows = islice(self._rows(), LOOK_BELOW)
        several = any(sum(map(_is_filled, values)) > 1 for _, values, _ in rows)
        return ABOVE_HEADER if several else ""

    def _shown_rows(
        self, found: Pass, wanted: set[int] | None = None
    ) -> Iterator[tuple[int, list[str]]]:
        """(row of the sheet, its cells as shown) of the rows that hold anything.

        Cells of columns that are not wanted are left empty.
        """
        waiting: list[int] = []  # rows without text, which count where another one follows
        width = 0
        for number, values, formulas in self._rows():
            filled = [i for i, cell in enumerate(values) if _is_filled(cell)]
            if formulas is not None:
                filled += [i for i, cell in enumerate(formulas) if _is_filled(cell)]
            if not filled:
                waiting += [number] if width else []
                continue
            last = max(filled) + 1
            if not width:
                width = last
            elif last > width:
                raise DataError(
                    f"{self.name}, row {number}: found a cell in column {last}, expected "
                    f"{counted(width, 'columns')} ({short_list(self.columns)})"
                    f"{ABOVE_HEADER if width == 1 and self.options.header else ''}"
                )
            if self.keep_empty_rows:
                yield from ((empty, [""] * width) for empty in waiting)
            else:
                found.counts["empty"] += len(waiting)
            waiting = []
            made = []
            for i in range(width):
                if wanted is not None and i not in wanted:
                    made.append("")
                    continue
                cell = values[i] if i < len(values) else None
                formula = formulas[i] if formulas is not None and i < len(formulas) else None
                made.append(self._shown((number, i), cell, formula, found))
            yield number, made

    def _shown(self, place: tuple[int, int], cell: Any, formula: Any, found: Pass) -> str:
        """The text of one cell."""
        number, column = place
        value = None if cell is None else cell.value
        if value is None:
            if formula is not None and formula.data_type == "f":
                raise DataError(
                    f"{self.name}, row {number}, column {column + 1}: found a formula without its "
                    "value, expected text (open and save the file in the spreadsheet program)"
                )
            return ""
        found.counts["computed"] += formula is not None and formula.data_type == "f"
        if isinstance(value, str):
            if cell.data_type == "e":
                raise DataError(
                    f"{self.name}, row {number}, column {column + 1}: found the error {value}, "
                    "expected text"
                )
            return value
        if isinstance(value, bool):
            return "TRUE" if value else "FALSE"
        if isinstance(value, (int, float)):
            shown = show_number(value, cell.number_format)
            if shown is None:
                found.counts["unsure"] += 1
                shown = plain_number(value)
            return shown
        shown = show_date(value, cell.number_format)
        if shown is None:
            found.counts["unsure"] += 1
            shown = _iso(value)
        return shown

    def _rows(self) -> Iterator[tuple[int, Any, Any]]:
        """(row, cells with values, cells with formulas or None) of every row of the sheet."""
        with self._workbook() as workbook:
            rows = self._sheet(workbook).iter_rows()
            if not self.formulas:
                for number, values in enumerate(self._sound(rows), 1):
                    yield number, values, None
                return
            # A formula's value alone does not tell an absent one from an empty cell.
            with self._workbook(formulas=True) as other:
                both = zip_longest(
                    self._sound(rows), self._sound(self._sheet(other).iter_rows()), fillvalue=()
                )
                for number, (values, formulas) in enumerate(both, 1):
                    yield number, values, formulas

    def _sheet(self, workbook: Any) -> Any:
        sheet = workbook[self.sheet]
        sheet.reset_dimensions()  # some programs write wrong ones
        return sheet

    def _sound(self, rows: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:  # openpyxl lets every kind of fault through
                raise self._damaged(error) from None
            yield row

    @contextmanager
    def _workbook(self, *, formulas: bool = False) -> Iterator[Any]:
        import openpyxl

        try:
            workbook = openpyxl.load_workbook(
                self.path, read_only=True, data_only=not formulas, keep_links=False
            )
        except FileNotFoundError:
            raise DataError(f"{self.path}: no such file, expected an .xlsx file") from None
        except Exception as error:
            raise self._damaged(error) from None
        try:
            yield workbook
        finally:
            workbook.close()

    def _damaged(self, error: Exception) -> DataError:
        return DataError(f"{self.path}: not a sound .xlsx file ({first_line(error)})")

    def _holds_formulas(self) -> bool:
        """Whether any sheet has a formula: then a cell without a value may be one."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                for name in archive.namelist():
                    if not name.startswith("xl/worksheets/") or not name.endswith(".xml"):
                        continue
                    with archive.open(name) as file:
                        rest = b""
                        while block := file.read(BLOCK):
                            if _FORMULA.search(rest + block):
                                return True
                            rest = block[-16:]
        except FileNotFoundError:
            raise DataError(f"{self.path}: no such file, expected an .xlsx file") from None
        except Exception as error:
            with self.path.open("rb") as file:
                if file.read(4) == b"\xd0\xcf\x11\xe0":  # the container of both
                    raise DataError(
                        f"{self.path}: is protected by a password, or an old .xls file by its "
                        "content; expected an .xlsx file that opens without one"
                    ) from None
            raise self._damaged(error) from None
        return False


def _is_filled(cell: Any) -> bool:
    value = cell.value
    return value is not None and not (isinstance(value, str) and not value.strip())


def _plain(name: str) -> str:
    return normalize_text(name).casefold()


def _iso(value: datetime | date | time | timedelta) -> str:
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time(0) else value.isoformat(" ")
    return str(value)
