"""The data set folder: plain text files that other tools of the field can read.

    dataset.json       name, description, generated, protocol, propensity, counts
    labels.txt         one label text per line
    held_out.txt       one label index per line: no candidates in the open catalogue
    SPLIT.raw.txt      one query text per line; SPLIT is train, validation, test
    SPLIT_X_Y.txt      "rows cols", then "label:1 label:1 ..." per query; blank = no label
    SPLIT_filter.txt   "row label" per line: pairs neither right nor wrong; may be missing

Beside them, where the data have them, ids, further columns and products: see :mod:`.beside`. Such a
file may be missing; dataset.json names those that were written.

All UTF-8, lines ended by LF (CRLF is understood). Indices count from 0.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from alc_kernels.trainer.data.beside import (
    LABEL_IDS,
    read_label_ids,
    read_split_beside,
    write_beside,
)
from alc_kernels.trainer.data.dataset import (
    PROPENSITIES,
    SPLITS,
    TOKENS,
    Dataset,
    Split,
    token_cache,
)
from alc_kernels.trainer.data.text.lines import read_lines, write_lines
from alc_kernels.trainer.data.text.sparse import (
    read_filter,
    read_sparse_text,
    write_filter,
    write_sparse_text,
)
from alc_kernels.trainer.data.text.texts import TextFile
from alc_kernels.trainer.errors import DataError

FORMAT_VERSION = 1
PARTIAL = ".partial"  # folder in the data set's, where its files are until all are written
ENDINGS = ("raw.txt", "X_Y.txt", "filter.txt", "ids.txt", "columns.jsonl", "groups.txt")
# dataset.json goes last: a folder without it is not taken for a complete data set.
FILES = (
    "labels.txt", "held_out.txt", LABEL_IDS,
    *(f"{split}{'_' if ending in ENDINGS[1:3] else '.'}{ending}"
      for split in SPLITS for ending in ENDINGS),
    "dataset.json",
)  # fmt: skip


def in_use(folder: Path) -> bool:
    """Whether there is anything in ``folder`` but what a killed process left of a data set."""
    return folder.is_dir() and any(path.name != PARTIAL for path in folder.iterdir())


@contextmanager
def whole_dataset(folder: Path) -> Iterator[Path]:
    """A folder to write a data set into; its files become those of ``folder`` at the end.

    After an error or Ctrl-C ``folder`` is as it was, and is not there where it was not. What it
    holds beside a data set stays.

    Raises:
        DataError: it cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    partial = folder / PARTIAL
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        (folder / "dataset.json").unlink(missing_ok=True)
        shutil.rmtree(folder / TOKENS, ignore_errors=True)  # of the former texts
        for name in FILES:
            if (partial / name).exists():
                (partial / name).replace(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
        made.clear()
    except OSError as error:
        text = f"{error.filename or folder}: cannot be written ({error.strerror})"
        raise DataError(text.replace(str(partial), str(folder))) from None
    except DataError as error:
        raise DataError(str(error).replace(str(partial), str(folder))) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for path in made:
            with suppress(OSError):
                path.rmdir()


def load_dataset(folder: str | Path) -> Dataset:
    """Read a folder written by :func:`save_dataset`, or by hand in the same layout.

    Raises:
        DataError: anything missing or malformed; one line with file, line, found, expected.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder, expected a data set folder with dataset.json")
    about = _read_about(folder / "dataset.json")
    cache = token_cache(folder)
    labels = TextFile(folder / "labels.txt", what="label texts", token_cache=cache)
    held_out = _read_held_out(folder / "held_out.txt", len(labels))
    for file in about["beside"]:
        if not (folder / file).exists():
            raise DataError(f"{folder / file}: no such file, expected it (dataset.json names it)")
    splits = {}
    for name in SPLITS:
        text_file, relation_file = folder / f"{name}.raw.txt", folder / f"{name}_X_Y.txt"
        queries = TextFile(text_file, what="query texts", token_cache=cache)
        relation, _ = read_sparse_text(
            relation_file,
            num_rows=(len(queries), f"lines of {text_file.name}"),
            num_cols=(len(labels), "lines of labels.txt"),
        )
        if name == "train":
            _check_not_held_out(relation_file, relation, held_out)
        excluded = None
        filter_file = folder / f"{name}_filter.txt"
        if filter_file.exists():
            excluded = read_filter(filter_file, relation.shape)
            _check_not_both(filter_file, relation_file.name, relation, excluded)
        beside = read_split_beside(folder, name, len(queries))
        splits[name] = Split(queries, relation, excluded, **beside)
    dataset = Dataset(
        name=about["name"],
        labels=labels,
        splits=splits,
        held_out=held_out,
        description=about["description"],
        generated=about["generated"],
        protocol=about["protocol"],
        propensity=tuple(about["propensity"]),
        label_ids=read_label_ids(folder, len(labels)),
        folder=folder,
    )
    _check_counts(folder / "dataset.json", about["counts"], dataset.counts())
    return dataset


def save_dataset(dataset: Dataset, folder: str | Path) -> None:
    """Write ``dataset`` into ``folder``, created if missing, whole or not at all.

    The files of a former data set are replaced.

    Raises:
        DataError: a text is empty or holds a line break, or the folder cannot be written.
    """
    with whole_dataset(Path(folder)) as folder:
        write_lines(folder / "labels.txt", dataset.labels)
        held_out = [str(label) for label in np.flatnonzero(dataset.held_out)]
        write_lines(folder / "held_out.txt", held_out)
        write_beside(folder / LABEL_IDS, dataset.label_ids)
        for name, split in dataset.splits.items():
            write_lines(folder / f"{name}.raw.txt", split.queries)
            write_sparse_text(folder / f"{name}_X_Y.txt", split.relation)
            if split.excluded is not None:
                write_filter(folder / f"{name}_filter.txt", split.excluded)
            write_beside(folder / f"{name}.ids.txt", split.ids)
            columns = None if split.columns is None else split.columns.lines
            write_beside(folder / f"{name}.columns.jsonl", columns)
            write_beside(folder / f"{name}.groups.txt", split.groups)
        write_about(folder, dataset)


def write_about(folder: Path, dataset: Dataset) -> None:
    """Write dataset.json, the last file of a folder to be written."""
    about = {
        "format": FORMAT_VERSION,
        "name": dataset.name,
        "description": dataset.description,
        "generated": dataset.generated,
        "protocol": dataset.protocol,
        "propensity": list(dataset.propensity),
        "counts": dataset.counts(),
        "beside": _files_beside(dataset),
    }
    text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    (folder / "dataset.json").write_text(text, encoding="utf-8", newline="\n")


def _files_beside(dataset: Dataset) -> list[str]:
    """The files of ids, columns and groups that the data have."""
    names = [] if dataset.label_ids is None else [LABEL_IDS]
    for name, split in dataset.splits.items():
        parts = {"ids.txt": split.ids, "columns.jsonl": split.columns, "groups.txt": split.groups}
        names += [f"{name}.{ending}" for ending, part in parts.items() if part is not None]
    return names


def _read_about(path: Path) -> dict[str, Any]:
    text = "\n".join(read_lines(path, what="JSON", allow_blank=True))
    try:
        about = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}), expected an object with "
            "name, description, generated, protocol"
        ) from None
    if not isinstance(about, dict):
        raise DataError(
            f"{path}, line 1: found a JSON {type(about).__name__}, expected an object with "
            "name, description, generated, protocol"
        )
    if about.get("format", FORMAT_VERSION) != FORMAT_VERSION:
        raise DataError(
            f"{path}: found format {about['format']!r}, expected {FORMAT_VERSION} "
            "(written by another version)"
        )
    kinds = {
        "name": str, "description": str, "generated": bool, "protocol": str, "counts": dict,
        "beside": list,
    }  # fmt: skip
    made: dict[str, Any] = {"description": "", "generated": False, "protocol": "", "counts": {}}
    made["beside"] = []
    made["propensity"] = list(PROPENSITIES["other"])
    for key, kind in kinds.items():
        if key in about:
            made[key] = about[key]
        if not isinstance(made.get(key), kind):
            found = repr(about[key]) if key in about else "nothing"
            raise DataError(f"{path}: found {found} for {key!r}, expected {kind.__name__}")
    stated = about.get("propensity", made["propensity"])
    is_pair = isinstance(stated, list) and len(stated) == 2
    is_pair = is_pair and all(type(x) in (int, float) and 0 <= x < math.inf for x in stated)
    if not is_pair or not stated[1]:
        raise DataError(
            f"{path}: found {stated!r} for 'propensity', expected two numbers [a, b], a of at "
            "least 0 and b above 0"
        )
    made["propensity"] = [float(x) for x in stated]
    if not all(isinstance(file, str) for file in made["beside"]):
        raise DataError(f"{path}: found {made['beside']!r} for 'beside', expected names of files")
    return made


def _read_held_out(path: Path, num_labels: int) -> np.ndarray:
    """(num_labels,) bool. The file may be empty: then both catalogues are the same."""
    held_out = np.zeros(num_labels, np.bool_)
    for number, line in enumerate(read_lines(path, what="label indices", allow_empty=True), 1):
        text = line.strip()
        if not (text.isascii() and text.isdigit()):
            raise DataError(f"{path}, line {number}: found {line[:40]!r}, expected a label index")
        if int(text) >= num_labels:
            raise DataError(
                f"{path}, line {number}: found label {text}, expected 0 to {num_labels - 1} "
                f"(labels.txt has {num_labels} lines)"
            )
        held_out[int(text)] = True
    if held_out.all():
        raise DataError(f"{path}: found all {num_labels} labels, expected some left as candidates")
    return held_out


def _check_not_held_out(path: Path, relation: csr_matrix, held_out: np.ndarray) -> None:
    at = np.flatnonzero(held_out[relation.indices])
    if len(at):
        row = int(np.searchsorted(relation.indptr, at[0], side="right")) - 1
        raise DataError(
            f"{path}, line {row + 2}: found label {relation.indices[at[0]]}, which held_out.txt "
            "lists, expected no held-out label in training"
        )


def _check_not_both(
    path: Path, relation_name: str, relation: csr_matrix, excluded: csr_matrix
) -> None:
    both = relation.multiply(excluded).tocoo()
    if both.nnz:
        raise DataError(
            f"{path}: found the pair of row {both.row[0]} and label {both.col[0]}, which "
            f"{relation_name} has as well, expected a pair to be right or excluded"
        )


def _check_counts(path: Path, stated: dict[str, Any], found: dict[str, int]) -> None:
    """A file that lost whole lines together with its partner is only seen here."""
    for key, count in stated.items():
        if key in found and count != found[key]:
            raise DataError(
                f"{path}: states {count!r} for {key!r}, found {found[key]} in the files, "
                "expected the same (a file is truncated or was edited)"
            )
