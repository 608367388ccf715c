"""The layout of {trn,tst,lbl}.json.gz: a JSON object per line.

    {"uid": "B1", "title": "...", "content": "...", "target_ind": [3, 7], "target_rel": [1, 1]}

uid and the targets of labels are not used; target_rel, where present, must be positive.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alc_kernels.xmc.data.layouts.files import Files
from alc_kernels.xmc.data.relation import RelationRows
from alc_kernels.xmc.data.source import ReadOptions, Relation, RelationReader, Source, TextStream
from alc_kernels.xmc.data.text_lines import iter_lines
from alc_kernels.xmc.errors import DataError


def json_source(files: Files, options: ReadOptions) -> Source | None:
    """The source, or None with ``files.lacking``."""
    paths = {"train": files.find("trn.json"), "test": files.find("tst.json")}
    labels = _json_texts(files.find("lbl.json"), "label texts", options)
    queries = {split: _json_texts(path, "query texts", options) for split, path in paths.items()}
    relations = {split: _json_relation(path, options) for split, path in paths.items()}
    return files.source("json", labels, queries, relations)


def _objects(path: Path, options: ReadOptions) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line; a line that is cut is no JSON any more."""
    encoding = options.encoding or "utf-8"  # which JSON is, unless told otherwise
    lines = iter_lines(path, what="JSON objects", allow_unended=True, encoding=encoding)
    for number, line in enumerate(lines, 1):
        try:
            made = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}), expected "
                "an object with title and target_ind"
            ) from None
        if not isinstance(made, dict):
            raise DataError(
                f"{path}, line {number}: found a JSON {type(made).__name__}, expected an object"
            )
        yield number, made


def _json_texts(path: Path, what: str, options: ReadOptions) -> TextStream:
    def read() -> Iterator[tuple[int, str]]:
        for number, made in _objects(path, options):
            title = _text(path, number, made, "title")
            if options.text == "title+content":
                # Not every item has a description.
                content = _text(path, number, {"content": "", **made}, "content")
                title = f"{title.strip()} {content.strip()}"
            yield number, title

    return TextStream(path, read, what, options)


def _text(path: Path, number: int, made: dict[str, Any], key: str) -> str:
    if not isinstance(made.get(key), str):
        found = repr(made[key])[:40] if key in made else "nothing"
        raise DataError(f"{path}, line {number}: found {found} for {key!r}, expected text")
    return str(made[key])


def _json_relation(path: Path, options: ReadOptions) -> RelationReader:
    def read(num_labels: int, origin: str) -> Relation:
        rows = RelationRows()
        for number, made in _objects(path, options):
            rows.add(_targets(path, number, made, num_labels, origin))
        matrix, repeated = rows.build(num_labels)
        return Relation(matrix, path, repeated)

    return read


def _targets(
    path: Path, number: int, made: dict[str, Any], num_labels: int, origin: str
) -> list[int]:
    labels = made.get("target_ind")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        found = repr(labels)[:40] if "target_ind" in made else "nothing"
        raise DataError(
            f"{path}, line {number}: found {found} for 'target_ind', expected a list of whole "
            "numbers"
        )
    for label in labels:
        if not 0 <= label < num_labels:
            raise DataError(
                f"{path}, line {number}: found label {label} in 'target_ind', expected 0 to "
                f"{num_labels - 1} ({origin})"
            )
    if "target_rel" in made:
        relevance = made["target_rel"]
        if (
            not isinstance(relevance, list)
            or len(relevance) != len(labels)
            or not all(type(value) in (int, float) and value > 0 for value in relevance)
        ):
            raise DataError(
                f"{path}, line {number}: found {repr(relevance)[:40]} for 'target_rel', expected "
                f"{len(labels)} positive numbers, one for each of 'target_ind'"
            )
    return labels
