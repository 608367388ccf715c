"""Columns of Arrow, Parquet and data frames as texts, exactly as they stand."""

from __future__ import annotations

import math
from typing import Any

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
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotText(f"{values.type} that cannot be read ({reason})") from None


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
