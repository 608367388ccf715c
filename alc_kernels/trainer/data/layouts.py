"""The three layouts in use for extreme classification with label texts, and which one it is.

    json    {trn,tst,lbl}.json[.gz]: a JSON object per line with uid, title, content, target_ind,
            target_rel (the extreme classification repository; NGAME, DEXA, PRIME)
    raw     {trn,tst,lbl}.raw.txt + {trn,tst}_X_Y.txt (what their tools make of it; OAK's
            raw_data/{train,test,label}.raw.txt)
    lines   trn_X.txt, tst_X.txt, Y.txt with one text per line + {trn,tst}_X_Y.txt (Renee, LEVER)
            or Y.{trn,tst}.npz (DEXML, PECOS), texts perhaps in raw/

Each with filter files, filter_labels_{train,test}.txt or {trn,tst}_filter_labels.txt, that may
be empty or missing. Any text file may be compressed (.gz).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from alc_kernels.trainer.data.source import (
    Part,
    ReadOptions,
    Relation,
    RelationReader,
    Source,
    TextStream,
    read_npz,
)
from alc_kernels.trainer.data.tables import is_table
from alc_kernels.trainer.data.text.lines import TextInput, iter_lines
from alc_kernels.trainer.data.text.sparse import RelationRows, read_sparse_text
from alc_kernels.trainer.errors import DataError

# Finding the files of a layout under the names that the field's projects give them.


SUBFOLDERS = (".", "raw", "raw_data", "raw_text")
FILTERS = {
    "train": ("filter_labels_train.txt", "trn_filter_labels.txt"),
    "test": ("filter_labels_test.txt", "tst_filter_labels.txt"),
}
RELATIONS = {
    "train": ("trn_X_Y.txt", "trn_X_Y.npz", "Y.trn.npz"),
    "test": ("tst_X_Y.txt", "tst_X_Y.npz", "Y.tst.npz"),
}


class Files:
    """The files of a folder by any of their names.

    Attributes:
        folder: the folder; its subfolders raw, raw_data and raw_text are searched as well.
        used: what was found, in order.
        lacking: what was asked for and is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: list[Path] = []
        self.lacking: list[str] = []

    def find(self, *names: str, optional: bool = False) -> Path:
        """The first file that has one of ``names``, plain or compressed.

        Where there is none, the first name, which is noted as lacking unless ``optional``.
        """
        for name in names:
            for place in SUBFOLDERS:
                for ending in ("", ".gz"):
                    path = self.folder / place / f"{name}{ending}"
                    if path.is_file():
                        self.used.append(path)
                        return path
        if not optional:
            self.lacking.append(" or ".join(names))
        return self.folder / names[0]

    def source(
        self,
        layout: str,
        labels: TextStream,
        queries: Mapping[str, TextStream],
        relations: Mapping[str, RelationReader],
    ) -> Source | None:
        """A source of these parts, each with its filter file; None where a file is lacking."""
        parts = {}
        for split, texts in queries.items():
            found = self.find(*FILTERS[split], optional=True)
            has_filter = found in self.used
            parts[split] = Part(texts, relations[split], found if has_filter else None)
        if self.lacking:
            return None
        filters = {path for path in self.folder.rglob("*filter*") if path.is_file()}
        unused = tuple(sorted(filters.difference(self.used)))
        name = self.folder.resolve().name
        return Source(layout, name, labels, parts, tuple(self.used), unused)

    def with_texts(
        self, layout: str, names: Mapping[str, tuple[str, ...]], texts: Callable[..., TextStream]
    ) -> Source | None:
        """A source of a text file per split and one of labels, with the relations beside them.

        Args:
            layout: its name.
            names: "train", "test" and "labels" -> what the file may be called.
            texts: from a path and what it holds to its texts.
        """
        queries = {one: texts(self.find(*names[one]), "query texts") for one in ("train", "test")}
        labels = texts(self.find(*names["labels"]), "label texts")
        relations = {one: _relation_reader(self.find(*of)) for one, of in RELATIONS.items()}
        return self.source(layout, labels, queries, relations)


def _relation_reader(path: Path) -> RelationReader:
    def read(num_labels: int, origin: str) -> Relation:
        if path.suffix == ".npz":
            return read_npz(path, num_labels, origin)
        matrix, repeated = read_sparse_text(path, num_rows=None, num_cols=(num_labels, origin))
        return Relation(matrix, path, repeated)

    return read


def line_texts(path: Path, what: str, options: ReadOptions) -> TextStream:
    """Texts that are the lines of a file."""

    opened: list[TextInput] = []  # once, on reading: its encoding may have to be found

    def read() -> Iterator[tuple[int, str]]:
        if not opened:
            opened.append(TextInput(path, options.encoding))
        encoding = opened[0].encoding
        return enumerate(iter_lines(path, what=what, allow_blank=True, encoding=encoding), 1)

    def assumed() -> list[str]:
        return [note for file in opened for note in file.notes]

    return TextStream(path, read, what, options, assumed=assumed)


# The layout of {trn,tst,lbl}.json.gz: a JSON object per line.
#
#     {"uid": "B1", "title": "...", "content": "...", "target_ind": [3, 7], "target_rel": [1, 1]}
#
# uid and the targets of labels are not used; target_rel, where present, must be positive.


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


# The layout of trn_X.txt, tst_X.txt and Y.txt with one text per line, and relations beside.


LINE_TEXTS = {
    "train": ("trn_X.txt", "X.trn.txt"), "test": ("tst_X.txt", "X.tst.txt"),
    "labels": ("Y.txt", "output-items.txt"),
}  # fmt: skip
_COUNTS = re.compile(r"\s*[0-9]+\s+[0-9]+\s*")
_FEATURES = re.compile(r"\s*(?:[0-9]+:[-+.0-9eE]+\s*)+")


def lines_source(files: Files, options: ReadOptions) -> Source | None:
    """The source, or None with ``files.lacking``."""
    return files.with_texts(
        "lines", LINE_TEXTS, lambda path, what: _checked_texts(line_texts(path, what, options))
    )


def _checked_texts(texts: TextStream) -> TextStream:
    """``texts``, refused on reading where the file of that name holds sparse features instead."""

    def read() -> Iterator[tuple[int, str]]:
        head = [line for _, line in islice(texts.read(), 20)]
        rows = [line for line in head[1:] if line.strip()]
        if head and _COUNTS.fullmatch(head[0]) and rows and all(map(_FEATURES.fullmatch, rows)):
            raise DataError(
                f"{texts.path}, line 1: found sparse features ({head[0].strip()!r}, then "
                f"{rows[0][:20].strip()!r}), expected one text per line: an encoder needs the "
                "texts (the repository calls them raw text)"
            )
        yield from texts.read()

    return replace(texts, read=read)


# The layout of {trn,tst,lbl}.raw.txt with {trn,tst}_X_Y.txt.


RAW_TEXTS = {
    "train": ("trn.raw.txt", "train.raw.txt"),
    "test": ("tst.raw.txt", "test.raw.txt"),
    "labels": ("lbl.raw.txt", "label.raw.txt"),
}


def raw_source(files: Files, options: ReadOptions) -> Source | None:
    """The source, or None with ``files.lacking``. The field's tools write Latin-1 here."""
    return files.with_texts("raw", RAW_TEXTS, lambda path, what: line_texts(path, what, options))


# name -> its reader: a source, or None after it has noted in ``files.lacking`` what it misses
READERS: dict[str, Callable[[Files, ReadOptions], Source | None]] = {
    "json": json_source,
    "raw": raw_source,
    "lines": lines_source,
}
LAYOUTS = tuple(READERS)


def find_source(
    folder: Path, layout: str = "auto", options: ReadOptions | None = None
) -> tuple[Source, list[str]]:
    """Recognise the layout of a folder.

    Args:
        folder: as downloaded and unpacked.
        layout: one of ``LAYOUTS``, or ``"auto"`` for the first of them that is complete.
        options: how to read it.

    Returns:
        The source, and the names of other layouts that the folder holds as well.

    Raises:
        DataError: no layout is complete; says what each one lacks and what was found.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder, expected one with the files of a data set")
    lacking, found = [], []
    for name in LAYOUTS if layout == "auto" else (layout,):
        files = Files(folder)
        source = READERS[name](files, options or ReadOptions())
        if source is not None:
            found.append(source)
        else:
            lacking.append(f"{name} lacks {', '.join(files.lacking)}")
    if not found:
        names = sorted(path.name for path in folder.iterdir())
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        tables = [n for n in names if not n.lower().endswith(".txt") and is_table(folder / n)]
        hint = f"; or name a table, e.g. {tables[0]}" if tables else ""
        raise DataError(
            f"{folder}: no known layout; {'; '.join(lacking)}; found {shown or 'nothing'}{hint}"
        )
    return found[0], [source.layout for source in found[1:]]
