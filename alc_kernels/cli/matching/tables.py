"""Tables written row by row, so that pandas and other programs read the same rows back.

=========  =========================================================================
csv, tsv   UTF-8, a header, rows end in LF; a cell with a line break, a quote or the
           delimiter stands in quotes. A number that is absent is an empty cell.
jsonl      an object per line; a number that is absent is null.
parquet    text columns as string, whole numbers int64, others double, absent as null.
xlsx       one sheet; texts stay texts, whatever they begin with. A line break in a
           cell is LF, as Excel's own are, whatever it was.
=========  =========================================================================

Compressed files hold no time stamp, so equal rows give equal bytes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from alc_kernels.cli.arguments import Target, options_of
from alc_kernels.trainer.errors import BadInput, needs
from alc_kernels.whole import whole_file

if TYPE_CHECKING:
    from alc_kernels.trainer.data.tables import TableOptions

Row = Sequence["str | int | float | None"]
Write = Callable[[Row], None]

DIGITS = 6  # of a number that is not whole
ROWS_PER_GROUP = 1 << 15  # of a Parquet file
# Python's splitlines and other programs end a line at these as well.
_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
XLSX_ROWS, XLSX_CHARACTERS = 1_048_576, 32_767  # what a sheet and a cell hold
# Excel has no way to write control characters that other readers of the format know: they show
# its _x000D_, or take a text that says _x000D_ for one.
_NOT_IN_XLSX = re.compile(r"[\x00-\x08\x0b-\x1f\ufffe\uffff]|_x[0-9a-fA-F]{4}_")


@contextmanager
def table_writer(target: Target, columns: Mapping[str, type]) -> Iterator[Write]:
    """A function that writes one row, cells in the order of ``columns``.

    A file takes its name when it is complete; what was cut short leaves none.

    Args:
        target: where to, and how.
        columns: name -> ``str``, ``int`` or ``float``. A cell may be None except in a text column.

    Raises:
        BadInput: a text that the format cannot hold, with row and column; too many rows.
        Missing: the package that writes the format is not installed.
    """
    makers: dict[str, Any] = {"parquet": _parquet, "xlsx": _xlsx, "jsonl": _jsonl}
    make = makers.get(target.format, _delimited)
    with ExitStack() as stack:
        if target.path is None:
            write = stack.enter_context(make(sys.stdout, target, columns))
        else:
            partial = stack.enter_context(whole_file(target.path))
            file = stack.enter_context(_open(partial, target.packing))
            if target.format in ("parquet", "xlsx"):
                write = stack.enter_context(make(file, target, columns))
            else:
                text = io.TextIOWrapper(file, encoding="utf-8", newline="")
                stack.callback(text.detach)
                write = stack.enter_context(make(text, target, columns))
        number = 0

        def write_row(row: Row) -> None:
            nonlocal number
            number += 1
            for name, cell in zip(columns, row, strict=True):
                if isinstance(cell, str) and (fault := _fault(cell, target.format)):
                    raise BadInput(f"{target.name}, row {number}, {name}: {fault}")
            write([round(c, DIGITS) if isinstance(c, float) else c for c in row])

        yield write_row


def _fault(text: str, format: str) -> str:
    """Why a file of ``format`` cannot hold ``text``; nothing where it can."""
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        return "holds half a character (a lone surrogate), which no file can hold"
    if format in ("csv", "tsv") and "\0" in text:
        return f"holds a NUL character, which .{format} cannot hold; .jsonl and .parquet can"
    if format == "xlsx":
        if found := _NOT_IN_XLSX.search(_with_lf(text)):
            return f"holds {found[0]!r}, which .xlsx cannot hold; .csv, .jsonl and .parquet can"
        if len(text) > XLSX_CHARACTERS:
            return (
                f"has {len(text):,} characters, a cell of .xlsx holds {XLSX_CHARACTERS:,}; "
                ".csv, .jsonl and .parquet hold more"
            )
    return ""


def _with_lf(text: str) -> str:
    """``text`` with LF as its line break."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def _delimited(file: IO[str], target: Target, columns: Mapping[str, type]) -> Iterator[Write]:
    # csv quotes the line breaks that it ends rows with: told CRLF it quotes CR and LF alike.
    rows = csv.writer(
        _Ends(file), lineterminator="\r\n", delimiter="\t" if target.format == "tsv" else ","
    )
    floats = [kind is float for kind in columns.values()]
    started = False

    def write(row: Row) -> None:
        nonlocal started
        if not started:  # not before there is a row: a pipe stays empty when nothing can be read
            rows.writerow(columns)
            started = True
        rows.writerow(
            f"{cell:.{DIGITS}f}" if is_float and cell is not None else cell
            for cell, is_float in zip(row, floats, strict=True)
        )

    yield write
    if not started:
        rows.writerow(columns)


class _Ends:
    """Passes rows on with LF in place of the CRLF at their end."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def write(self, row: str) -> None:
        self.file.write(f"{row[:-2]}\n")


@contextmanager
def _jsonl(file: IO[str], target: Target, columns: Mapping[str, type]) -> Iterator[Write]:
    def write(row: Row) -> None:
        made = dict(zip(columns, row, strict=True))
        file.write(f"{json.dumps(made, ensure_ascii=False).translate(_LINE_ENDS)}\n")

    yield write


@contextmanager
def _parquet(file: IO[bytes], target: Target, columns: Mapping[str, type]) -> Iterator[Write]:
    with needs(".parquet", "pyarrow", "tables"):
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    waiting: list[Row] = []

    def flush() -> None:
        cells = [list(column) for column in zip(*waiting, strict=True)]
        arrays = [pyarrow.array(c, f.type) for c, f in zip(cells, schema, strict=True)]
        writer.write_batch(pyarrow.record_batch(arrays, schema=schema))
        waiting.clear()

    def write(row: Row) -> None:
        waiting.append(row)
        if len(waiting) == ROWS_PER_GROUP:
            flush()

    with ParquetWriter(file, schema) as writer:
        yield write
        if waiting:
            flush()


@contextmanager
def _xlsx(file: IO[bytes], target: Target, columns: Mapping[str, type]) -> Iterator[Write]:
    with needs(".xlsx", "openpyxl", "tables"):
        from openpyxl import Workbook
        from openpyxl.cell import WriteOnlyCell
    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    count = 1

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        made = WriteOnlyCell(sheet, _with_lf(value))
        made.data_type = "s"  # openpyxl would make a formula of =1+2 and an error of #N/A
        return made

    def write(row: Row) -> None:
        nonlocal count
        count += 1
        if count > XLSX_ROWS:
            raise BadInput(
                f"{target.name}: a sheet holds {XLSX_ROWS:,} rows; .csv, .jsonl and .parquet hold "
                "more"
            )
        sheet.append([cell(value) for value in row])

    sheet.append([cell(name) for name in columns])
    try:
        yield write
    finally:
        book.save(file)  # also after an error: openpyxl has temporary files to end


@contextmanager
def _open(path: Path, packing: str) -> Iterator[IO[bytes]]:
    """The file to fill, compressed on the way."""
    with path.open("wb") as plain:
        if packing == "gz":
            with gzip.GzipFile("", "wb", fileobj=plain, mtime=0) as packed:
                yield cast("IO[bytes]", packed)
        elif packing == "zst":
            with needs(".zst", "zstandard", "tables"):
                import zstandard
            with zstandard.ZstdCompressor().stream_writer(plain, closefd=False) as packed:
                yield packed
        else:
            yield plain


# The options with which every command reads a table.


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--delimiter``, ``--encoding``, ``--[no-]quoting``, ``--no-header`` and ``--sheet``."""
    add = parser.add_argument_group("how tables are read, where that is not found").add_argument
    add("--delimiter", metavar="CHARACTER", help="comma, semicolon, tab, pipe or the character")
    add(
        "--encoding",
        metavar="NAME",
        help="of text: utf-8, utf-16, cp1252, latin-1 or another of Python's",
    )
    add(
        "--quoting",
        action=argparse.BooleanOptionalAction,
        default=None,
        help='whether " encloses cells; with --no-quoting it is a character like others',
    )
    add(
        "--no-header",
        action="store_true",
        help="the first row is a row like others; columns are named by number, from 1",
    )
    add("--sheet", metavar="NAME", help="of an .xlsx file (the first)")


def table_options(arguments: argparse.Namespace) -> TableOptions:
    """The options as given.

    Raises:
        BadInput: a delimiter or an encoding that cannot be one.
    """
    from alc_kernels.trainer.data.tables import TableOptions

    options = {}
    for name in ("delimiter", "encoding"):
        options[name] = getattr(arguments, name)
        try:
            TableOptions(**{name: options[name]})
        except ValueError as error:
            raise BadInput(f"argument --{name}: {error}") from None
    return options_of(TableOptions, arguments, header=not arguments.no_header)
