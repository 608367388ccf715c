"""Tables as people have them: text, Parquet, JSON Lines, spreadsheets and data frames."""

from __future__ import annotations

import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from alc_kernels.trainer.data.tables import parquet
from alc_kernels.trainer.data.tables.delimited import DelimitedTable, JsonLinesTable
from alc_kernels.trainer.data.tables.table import Changes, Pass, Table, TableOptions, normalize_text
from alc_kernels.trainer.data.text.lines import TextInput
from alc_kernels.trainer.data.text.opening import COMPRESSED, MAGIC, plain_name
from alc_kernels.trainer.errors import DataError

__all__ = ["Changes", "Table", "TableOptions", "is_table", "normalize_text", "open_table"]

STDIN = "-"
DELIMITED = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
SPREADSHEETS = (".xlsx", ".xlsm")
TEXT = ".txt"  # a table only where it is opened as one
ENDINGS = (*DELIMITED, *JSON_LINES, *SPREADSHEETS, *parquet.ENDINGS)


def is_table(path: Path | str) -> bool:
    """Whether a file's name says that it is a table, or a folder holds parts of Parquet."""
    path = Path(path)
    if path.is_dir():
        return bool(parquet.parts_of(path))
    try:
        return plain_name(path).endswith(ENDINGS)
    except DataError:  # an archive of several files: to be told by who opens it
        return True


def open_table(source: Path | str | Any, options: TableOptions | None = None) -> Table:
    """Open a table; nothing of it is held.

    Args:
        source: a file .csv, .tsv, .tab, .txt, .jsonl or .ndjson, each perhaps in .gz, .zip or
            .zst; .parquet, .pq or a folder of them; .xlsx or .xlsm; ``"-"`` for a text table on
            standard input; or a data frame of pandas, polars or pyarrow.
        options: see :class:`TableOptions`.

    Raises:
        DataError: missing, unreadable or of no such kind, an option that its kind does not have,
            or a package that is not installed.
    """
    options = options or TableOptions()
    if isinstance(source, str) and source == STDIN:
        return _standard_input(options)
    if not isinstance(source, (str, Path)):
        _refuse_options("a data frame", options, ())
        return parquet.FrameTable(source)
    path = Path(source)
    if path.is_dir():
        _refuse_options(str(path), options, ())
        return parquet.ParquetTable(path)
    if not path.exists():
        raise DataError(f"{path}: no such file, expected a table")
    plain = plain_name(path)
    if plain.endswith((*parquet.ENDINGS, *SPREADSHEETS)) and path.name.lower().endswith(COMPRESSED):
        raise DataError(
            f"{path}: is compressed on the outside, expected the {Path(plain).suffix} file itself; "
            "unpack it"
        )
    if plain.endswith(parquet.ENDINGS):
        _refuse_options(str(path), options, ())
        return parquet.ParquetTable(path)
    if plain.endswith(SPREADSHEETS):
        from alc_kernels.trainer.data.tables.excel import ExcelTable

        _refuse_options(str(path), options, ("sheet", "header"))
        return ExcelTable(path, options)
    _check_start(path, str(path))
    if plain.endswith(JSON_LINES):
        _refuse_options(str(path), options, ("encoding",))
        return JsonLinesTable(path, options)
    suffix = Path(plain).suffix
    if suffix not in DELIMITED and suffix != TEXT:
        known = ", ".join((*DELIMITED, *JSON_LINES, *parquet.ENDINGS, *SPREADSHEETS))
        hint = "; save it as .xlsx" if suffix in (".xls", ".ods", ".xlsb") else ""
        raise DataError(f"{path}: expected a file that ends in one of {known}{hint}")
    _refuse_options(str(path), options, ("delimiter", "encoding", "quoting", "header"))
    return DelimitedTable(path, options, str(path), DELIMITED.get(suffix, "\t"))


def _standard_input(options: TableOptions) -> Table:
    """A table of text that is read twice needs a file; it is gone with the table."""
    _refuse_options("standard input", options, ("delimiter", "encoding", "quoting", "header"))
    with ExitStack() as stack:
        copy = stack.enter_context(copy_of_standard_input())
        _check_start(copy, "standard input")
        table = DelimitedTable(copy, options, "standard input", ",")
        weakref.finalize(table, stack.pop_all().close)
    return table


@contextmanager
def copy_of_standard_input() -> Iterator[Path]:
    """A file with all of standard input, for as long as it is used."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "standard-input"
        with copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield copy


class LinesTable(Table):
    """A text file with a text per line, ``"-"`` for standard input: one column, opened on reading.

    Its notes are those on the encoding.
    """

    unit = "line"

    def __init__(self, source: Path | str, encoding: str | None = None) -> None:
        super().__init__("standard input" if source == STDIN else str(source), [""], header=False)
        self.source, self.encoding = source, encoding

    @property
    def notes(self) -> list[str]:
        return self._assumed

    def _cells(self, columns: Sequence[int], found: Pass) -> Iterator[tuple[int, list[str]]]:
        with ExitStack() as stack:
            path = Path(self.source)
            if self.source == STDIN:
                path = stack.enter_context(copy_of_standard_input())
            file = TextInput(path, self.encoding, self.name)
            self._assumed = file.notes
            for number, line in file.lines():
                yield number, [line for _ in columns]


def _refuse_options(name: str, options: TableOptions, known: tuple[str, ...]) -> None:
    """Refuse what the kind of table does not have, instead of passing over it."""
    plain = TableOptions()
    for option in ("delimiter", "encoding", "quoting", "header", "sheet"):
        value = getattr(options, option)
        if option not in known and value != getattr(plain, option):
            flag = f"--no-{option}" if value is False else f"--{option}"
            raise DataError(f"{name}: is no table that {flag} applies to")


def _check_start(path: Path, name: str) -> None:
    """Refuse a file whose first bytes belong to another kind than its name."""
    with path.open("rb") as file:
        start = file.read(8)
    for magic, ending in {**MAGIC, b"PAR1": ".parquet", b"\xd0\xcf\x11\xe0": ".xls"}.items():
        if start.startswith(magic) and not path.name.lower().endswith(ending):
            what = ".zip or .xlsx" if ending == ".zip" else ending
            raise DataError(f"{name}: is a {what} file by its content, expected one by its name")
