"""JSON Lines: an object in each line, whose keys are the columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from alc_kernels.trainer.data.tables.table import Pass, Table, TableOptions
from alc_kernels.trainer.data.text.lines import TextInput
from alc_kernels.trainer.errors import DataError
from alc_kernels.trainer.words import counted

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
