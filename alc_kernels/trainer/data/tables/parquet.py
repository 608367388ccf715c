"""Parquet: a file, or a folder of parts."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from alc_kernels.trainer.data.tables.table import Pass, Table, short_list
from alc_kernels.trainer.errors import DataError, first_line, needs

# Columns of Arrow, Parquet and data frames as texts, exactly as they stand.


# Whole numbers up to here are exact; of larger ones digits may have been lost.
EXACT = {"float": 1 << 24, "double": 1 << 53, "halffloat": 1 << 11}


class NotText(Exception):
    """What a column holds instead, and the row in the batch, or -1 for all of it."""

    def __init__(self, found: str, row: int = -1) -> None:
        super().__init__(found)
        self.found, self.row = found, row


def texts_of(values: Any, seen: set[str]) -> list[str]:
    """The texts of a pyarrow array; an absent value is ``""``.

    Args:
        values: Array of text, whole or decimal numbers, truth values, dates, times or dictionaries
            of them; bytes that are UTF-8; floats, of which whole ones are shown as such.
        seen: takes ``"floats"`` or ``"bytes"`` where such values were read.

    Raises:
        NotText: any other type, or a value that is not exact.
    """
    from pyarrow import ArrowException

    try:
        return _texts(values, seen)
    except ArrowException as error:
        raise NotText(f"{values.type} that cannot be read ({first_line(error)})") from None


def _texts(values: Any, seen: set[str]) -> list[str]:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        if "uuid" in str(kind):
            return ["" if value is None else str(value) for value in values.to_pylist()]
        values, kind = values.storage, values.storage.type
    if types.is_dictionary(kind):
        return _of_dictionary(values, seen)
    if types.is_run_end_encoded(kind):
        return _texts(pc.run_end_decode(values), seen)
    if types.is_null(kind):
        return [""] * len(values)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return [value or "" for value in values.to_pylist()]
    if types.is_integer(kind) or types.is_decimal(kind):
        made = values.to_pylist()
        return ["" if value is None else f"{value:f}" if types.is_decimal(kind) else str(value)
                for value in made]  # fmt: skip
    if types.is_boolean(kind):
        return ["" if v is None else "true" if v else "false" for v in values.to_pylist()]
    if types.is_floating(kind):
        return _floats(values, seen)
    if types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind):
        return [_without_zeros(value) for value in values.cast(pa.string()).to_pylist()]
    if types.is_binary(kind) or types.is_large_binary(kind) or str(kind) == "binary_view":
        return _bytes(values, seen)
    raise NotText(str(kind))


def _of_dictionary(values: Any, seen: set[str]) -> list[str]:
    # Not decoded by Arrow, which cannot do it for text views (a Categorical of polars).
    import pyarrow as pa

    indices, entries = values.indices.to_pylist(), values.dictionary
    used = sorted({i for i in indices if i is not None})
    if len(used) < len(entries):  # a small batch with the dictionary of a whole file
        entries = pa.array([entries[i].as_py() for i in used], entries.type)
    try:
        texts = dict(zip(used, _texts(entries, seen), strict=True))
    except NotText as error:
        raise NotText(error.found) from None
    return ["" if i is None else texts[i] for i in indices]


def _floats(values: Any, seen: set[str]) -> list[str]:
    # What a float of the column's own width shows, not of a wider one: 0.1, not 0.10000000149.
    kind = values.type.to_pandas_dtype()
    exact = EXACT[str(values.type)]
    made = []
    for row, value in enumerate(values.to_pylist()):
        if value is None or math.isnan(value):
            made.append("")
        elif float(value).is_integer():
            if abs(value) > exact:
                raise NotText(f"{value!r}, a number too large to be exact as {values.type}", row)
            made.append(str(int(value)))
            seen.add("floats")
        else:
            made.append(str(kind(value)))
    return made


def _bytes(values: Any, seen: set[str]) -> list[str]:
    seen.add("bytes")
    made = []
    for row, value in enumerate(values.to_pylist()):
        try:
            made.append((value or b"").decode("utf-8"))
        except UnicodeDecodeError:
            raise NotText("bytes that are not UTF-8", row) from None
    return made


def _without_zeros(value: str | None) -> str:
    """A time without the zeros of a fraction: 10:30:00.500000 is 10:30:00.5."""
    if value is None:
        return ""
    whole, point, fraction = value.partition(".")
    if not point:
        return value
    digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))]
    zone, kept = fraction[len(digits) :], digits.rstrip("0")
    return f"{whole}.{kept}{zone}" if kept else whole + zone


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


class ArrowTable(Table):
    """Columns that come as chunks of Arrow."""

    names_all_rows = False  # whether a fault of a whole column is that of a row

    @abstractmethod
    def _batches(self, columns: Sequence[int]) -> Iterator[tuple[str, list[list[Any]]]]:
        """What messages call it, and each column's chunks: arrays, or lists of texts."""

    def _cells(self, columns: Sequence[int], found: Pass) -> Iterator[tuple[int, list[str]]]:
        number = 0
        for name, batch in self._batches(columns):
            cells = []
            for column, chunks in zip(columns, batch, strict=True):
                texts: list[str] = []
                for values in chunks:
                    try:
                        plain = isinstance(values, list)
                        texts += values if plain else texts_of(values, found.kinds[column])
                    except NotText as error:
                        at = number + len(texts) + max(error.row, 0) + 1
                        where = f", row {at}" if error.row >= 0 or self.names_all_rows else ""
                        raise DataError(
                            f"{name}{where}: column {self.columns[column]!r} holds "
                            f"{error.found}, expected text"
                        ) from None
                cells.append(texts)
            for row in zip(*cells, strict=True):
                number += 1
                yield number, list(row)

    def _pass_notes(self, found: Pass) -> list[str]:
        """A sentence for each column whose values were no texts and may have been meant as such."""
        notes = []
        for column, kinds in found.kinds.items():
            name = self.columns[column]
            if "floats" in kinds:
                notes.append(
                    f"{self.name}: column {name!r} holds floats, of which whole ones are read "
                    "without .0"
                )
            if "bytes" in kinds:
                notes.append(f"{self.name}: column {name!r} holds bytes, read as UTF-8")
        return notes


class ParquetTable(ArrowTable):
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

    def _batches(self, columns: Sequence[int]) -> Iterator[tuple[str, list[list[Any]]]]:
        for part in self.parts:
            for batch in self._of_part(part, columns):
                yield str(part), [[values] for values in batch]

    def _of_part(self, part: Path, columns: Sequence[int]) -> Iterator[list[Any]]:
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


def _open(path: Path) -> Any:
    with needs(f"{path}: a Parquet file", "pyarrow", "tables", DataError):
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path, memory_map=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected a Parquet file") from None
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not a sound Parquet file ({first_line(error)})") from None


# Data frames: pandas, polars, pyarrow and whatever else hands out Arrow's C stream.


NAME = "data frame"


class FrameTable(ArrowTable):
    """A data frame; a column is turned into Arrow when it is read, the others never are."""

    names_all_rows = True

    def __init__(self, frame: Any) -> None:
        with needs("a data frame", "pyarrow", "tables", DataError):
            import pyarrow as pa

        # pandas: columns may be of mixed types
        self._by_place = hasattr(frame, "iloc") and hasattr(frame, "columns")
        if not self._by_place:
            column = hasattr(frame, "iloc") or type(frame).__name__ in ("Series", "ChunkedArray")
            if column or not hasattr(frame, "__arrow_c_stream__"):
                raise DataError(
                    f"found a {type(frame).__name__}, expected a path or a data frame of pandas, "
                    "polars or pyarrow" + (" (a single column: to_frame() makes one)" * column)
                )
            frame = frame if isinstance(frame, pa.Table) else pa.table(frame)
        self._frame = frame
        names = frame.columns if self._by_place else frame.column_names
        super().__init__(NAME, [str(name) for name in names])

    def _column(self, column: int, start: int) -> Any:
        """Some rows of a column, as chunks of Arrow."""
        import pyarrow as pa

        if not self._by_place:
            return self._frame.column(column).slice(start, BATCH).chunks
        values = self._frame.iloc[start : start + BATCH, column]
        try:
            made = pa.array(values, from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"{self.name}, row {start + 1} and below: column {self.columns[column]!r} holds "
                f"values of several types ({first_line(error)}), expected text"
            ) from None
        return made.chunks if isinstance(made, pa.ChunkedArray) else [made]

    def _batches(self, columns: Sequence[int]) -> Iterator[tuple[str, list[list[Any]]]]:
        for start in range(0, len(self._frame), BATCH):
            yield self.name, [self._column(column, start) for column in columns]
