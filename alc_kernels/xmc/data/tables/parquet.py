"""Parquet: a file, or a folder of parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from alc_kernels.xmc.data.tables.arrow_text import NotText, texts_of
from alc_kernels.xmc.data.tables.table import Pass, Table, short_list
from alc_kernels.xmc.errors import DataError

ENDINGS = (".parquet", ".pq")
BATCH = 8192
ABSENT = "__HIVE_DEFAULT_PARTITION__"


def parts_of(folder: Path) -> list[Path]:
    """The Parquet files in and below a folder, by name; what begins with ``_`` or ``.`` is none."""
    found = []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        hidden = any(part.startswith(("_", ".")) for part in inner)
        if not hidden and path.name.lower().endswith(ENDINGS) and path.is_file():
            found.append(path)
    return found


class ParquetTable(Table):
    """One file, or all parts of a folder in the order of their names.

    A folder ``key=value`` on the way to a part is a column (as Hive and Spark write them). Every
    part must have the same columns, in any order.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = parts_of(path) if path.is_dir() else [path]
        if not self.parts:
            raise DataError(f"{path}: holds no Parquet file, expected parts that end in .parquet")
        first = _open(self.parts[0])
        self.names = list(first.schema_arrow.names)
        self.folder_names = [key for key, _ in self._folder_cells(self.parts[0])]
        super().__init__(str(path), [*self.names, *self.folder_names])

    def _folder_cells(self, part: Path) -> list[tuple[str, str]]:
        """The columns that the folders on the way to a part stand for."""
        if part == self.path:
            return []
        cells = []
        for folder in part.relative_to(self.path).parts[:-1]:
            key, equals, value = folder.partition("=")
            if equals and key not in self.names:
                cells.append((unquote(key), "" if value == ABSENT else unquote(value)))
        return cells

    def _cells(self, columns: Sequence[int], found: Pass) -> Iterator[tuple[int, list[str]]]:
        number = 0
        for part in self.parts:
            for batch in self._batches(part, columns):
                cells = []
                for column, values in zip(columns, batch, strict=True):
                    if isinstance(values, list):
                        cells.append(values)
                        continue
                    try:
                        cells.append(texts_of(values, found.kinds[column]))
                    except NotText as error:
                        where = "" if error.row < 0 else f", row {number + error.row + 1}"
                        raise DataError(
                            f"{part}{where}: column {self.columns[column]!r} holds "
                            f"{error.found}, expected text"
                        ) from None
                for row in zip(*cells, strict=True):
                    number += 1
                    yield number, list(row)

    def _batches(self, part: Path, columns: Sequence[int]) -> Iterator[list[Any]]:
        """The columns asked for, batch by batch; those that a folder stands for as lists."""
        from pyarrow import ArrowException

        file = _open(part)
        if sorted(file.schema_arrow.names) != sorted(self.names):
            raise DataError(
                f"{part}: found columns {short_list(file.schema_arrow.names)}, expected "
                f"{short_list(self.names)} as in {self.parts[0].name}"
            )
        folder_cells = dict(self._folder_cells(part))
        if sorted(folder_cells) != sorted(self.folder_names):
            raise DataError(
                f"{part}: its folders stand for columns {short_list(list(folder_cells))}, expected "
                f"{short_list(self.folder_names)} as those of {self.parts[0]}"
            )
        inside = [column for column in columns if column < len(self.names)]
        # Of a table of folder columns alone the number of rows is still needed.
        names = list(dict.fromkeys(self.names[i] for i in inside)) or self.names[:1]
        try:
            for batch in file.iter_batches(batch_size=BATCH, columns=names):
                yield [
                    batch.column(self.names[i])
                    if i < len(self.names)
                    else [folder_cells[self.folder_names[i - len(self.names)]]] * len(batch)
                    for i in columns
                ]
        except (ArrowException, OSError) as error:
            raise DataError(f"{part}: cannot be read ({first_line(error)})") from None

    def _pass_notes(self, found: Pass) -> list[str]:
        return value_notes(self, found)


def value_notes(table: Table, found: Pass) -> list[str]:
    """A sentence for each column whose values were no texts and may have been meant as such."""
    notes = []
    for column, kinds in found.kinds.items():
        name = table.columns[column]
        if "floats" in kinds:
            notes.append(
                f"{table.name}: column {name!r} holds floats, of which whole ones are read "
                "without .0"
            )
        if "bytes" in kinds:
            notes.append(f"{table.name}: column {name!r} holds bytes, read as UTF-8")
    return notes


def first_line(error: BaseException) -> str:
    """What another library says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def need_pyarrow(what: str) -> None:
    """Raise :class:`DataError` where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise DataError(
            f"{what} needs the package pyarrow: pip install 'alc-kernels[tables]'"
        ) from None


def _open(path: Path) -> Any:
    need_pyarrow(f"{path}: a Parquet file")
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path, memory_map=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected a Parquet file") from None
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not a sound Parquet file ({first_line(error)})") from None
