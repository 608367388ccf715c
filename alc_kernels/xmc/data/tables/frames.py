"""Data frames: pandas, polars, pyarrow and whatever else hands out Arrow's C stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from alc_kernels.xmc.data.tables.arrow_text import NotText, texts_of
from alc_kernels.xmc.data.tables.parquet import BATCH, first_line, need_pyarrow, value_notes
from alc_kernels.xmc.data.tables.table import Pass, Table
from alc_kernels.xmc.errors import DataError

NAME = "data frame"


class FrameTable(Table):
    """A data frame; a column is turned into Arrow when it is read, the others never are."""

    def __init__(self, frame: Any) -> None:
        need_pyarrow("a data frame")
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

    def _cells(self, columns: Sequence[int], found: Pass) -> Iterator[tuple[int, list[str]]]:
        for start in range(0, len(self._frame), BATCH):
            cells = []
            for column in columns:
                texts: list[str] = []
                for values in self._column(column, start):
                    try:
                        texts += texts_of(values, found.kinds[column])
                    except NotText as error:
                        at = start + len(texts) + max(error.row, 0) + 1
                        raise DataError(
                            f"{self.name}, row {at}: column {self.columns[column]!r} holds "
                            f"{error.found}, expected text"
                        ) from None
                cells.append(texts)
            for number, row in enumerate(zip(*cells, strict=True), start + 1):
                yield number, list(row)

    def _pass_notes(self, found: Pass) -> list[str]:
        return value_notes(self, found)
