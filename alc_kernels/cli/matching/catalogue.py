"""The labels to match with: those of a run's data, or those of a file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alc_kernels.matching.catalogue import Catalogue
from alc_kernels.trainer.errors import BadInput, counted

if TYPE_CHECKING:
    from alc_kernels.trainer.data import Dataset
    from alc_kernels.trainer.data.tables import Table, TableOptions
    from alc_kernels.trainer.evaluation import Scored
    from alc_kernels.trainer.training.checkpoint import Checkpoint

LABEL = "label"  # the column of the labels, where there are several and none is named
IDS_BETWEEN = "\t"  # the ids of one label, as in a data folder


@dataclass(frozen=True)
class Labels:
    """Labels as they are ranked.

    Attributes:
        texts: C label texts.
        numbers: (C,) int64 by which the model knows them, -1 for labels that training did not
            have; None where they are all labels of its training data in order.
        ids: of the labels, "" for none, several with a tab between; None where there are none.
        told: which labels these are, for the reader.
        notes: what the reading found.
        codes: kind -> product codes of the labels, "" for none.
        dataset: the run's data, where they were read.
    """

    texts: Sequence[str]
    numbers: np.ndarray | None
    ids: Sequence[str] | None
    told: str
    notes: list[str] = field(default_factory=list)
    codes: dict[str, list[str]] = field(default_factory=dict)
    dataset: Dataset | None = None

    def catalogue(self) -> Catalogue:
        """The same for a matcher."""
        numbers = np.arange(len(self.texts)) if self.numbers is None else self.numbers
        return Catalogue(self.texts, self.ids, numbers, self.codes)


def add_catalogue_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--data`` and ``--catalogue`` with what belongs to it."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="the run's data folder (default: where it was, if it is still there)",
    )
    group = parser.add_argument_group("another catalogue than the run's own")
    group.add_argument(
        "--catalogue",
        metavar="FILE",
        type=Path,
        help="these labels: a text file with one per line, or a table",
    )
    group.add_argument(
        "--catalogue-column",
        "--label-column",
        metavar="NAME",
        help="the table's column of labels (its only one, or the one named label)",
    )
    group.add_argument(
        "--catalogue-id-column", metavar="NAME", help="the table's column of the labels' ids"
    )


def read_labels(
    arguments: argparse.Namespace,
    scored: Scored,
    checkpoint: Checkpoint,
    options: TableOptions | None = None,
    codes: Mapping[str, str] | None = None,
) -> Labels:
    """The labels that the options of :func:`add_catalogue_options` ask for.

    Args:
        arguments: of the command.
        scored: the run.
        checkpoint: of the run.
        options: how to read the catalogue where it is a table; the encoding also of a text file.
        codes: kind -> the table's column of product codes.

    Raises:
        BadInput: the run's data are not found, or options do not go together.
        DataError: the file cannot be read; names the line.
    """
    from alc_kernels.trainer.evaluation.matching import find_data, numbers_for

    for option in ("catalogue_column", "catalogue_id_column"):
        if getattr(arguments, option) is not None and arguments.catalogue is None:
            raise BadInput(f"--{option.replace('_', '-')} needs --catalogue FILE")
    if arguments.catalogue is None or arguments.data is not None:
        dataset, missing = find_data(scored, arguments.data)
        if dataset is None:
            raise BadInput(f"{missing} Or --catalogue FILE names the labels to match.")
        if arguments.catalogue is None:
            told = f"{counted(dataset.num_labels, 'labels')}, all of the run's data"
            numbers = numbers_for(checkpoint, dataset)
            return Labels(dataset.labels, numbers, dataset.label_ids, told, dataset=dataset)
    return _read_file(arguments, checkpoint, options, codes or {})


def _read_file(
    arguments: argparse.Namespace,
    checkpoint: Checkpoint,
    options: TableOptions | None,
    codes: Mapping[str, str],
) -> Labels:
    from alc_kernels.trainer.data.tables import LinesTable
    from alc_kernels.trainer.data.text.texts import Digests, member
    from alc_kernels.trainer.errors import DataError
    from alc_kernels.trainer.evaluation.matching import known_labels

    path, table, places = arguments.catalogue, *_open(arguments, options, codes)
    has_ids = arguments.catalogue_id_column is not None
    found: dict[str, list[str]] = {kind: [] for kind in codes}
    ids_of: dict[str, list[str]] = {}
    line_of: dict[str, int] = {}
    read = 0
    for number, (text, *beside) in table.rows(places):
        read += 1
        one = beside[0] if has_ids else ""
        where = f"{path}, {table.unit} {number}"
        if not text:
            raise DataError(f"{where}: found a blank label, expected a text")
        if text not in ids_of:
            for kind, code in zip(codes, beside[has_ids:], strict=True):
                found[kind].append(code)
        ids = ids_of.setdefault(text, [])
        if one and one not in ids:
            if one in line_of:
                raise DataError(
                    f"{where}: found the id {one[:40]!r}, which {table.unit} {line_of[one]} has "
                    "with another label, expected an id to name one label"
                )
            line_of[one] = number
            ids.append(one)
    if not ids_of:
        raise DataError(f"{path}: found no label, expected at least 1")
    texts = list(ids_of)
    notes = [] if isinstance(table, LinesTable) else list(table.notes)
    if len(texts) < read:
        notes.append(
            f"{path}: "
            + counted(read - len(texts), "labels stand", "label stands")
            + " there more than once, each counts once"
            + (", with all its ids" if has_ids else "")
        )
    together = [IDS_BETWEEN.join(ids) for ids in ids_of.values()] if has_ids else None
    numbers = known_labels(checkpoint, texts, together)
    trained = checkpoint.parts["data"].get("labels")
    told = f"{counted(len(texts), 'labels')} of {path.name}"
    if trained is not None:
        known = int(member(Digests(texts).array(), trained.view(np.uint64)).sum())
        told += f", {known:,} of them in the run's data and {len(texts) - known:,} new"
    return Labels(texts, numbers, together, told, notes, found)


def _open(
    arguments: argparse.Namespace, options: TableOptions | None, codes: Mapping[str, str]
) -> tuple[Table, list[int]]:
    """The catalogue as a table, and the columns of labels, of ids and of codes."""
    from alc_kernels.trainer.data.tables import LinesTable, is_table, open_table

    path, column = arguments.catalogue, arguments.catalogue_column
    id_column = arguments.catalogue_id_column
    if not is_table(path) and column is None and id_column is None and not codes:
        return LinesTable(path, None if options is None else options.encoding), [0]
    table = open_table(path, options)
    ids = [] if id_column is None else [table.find(id_column, "--catalogue-id-column")]
    beside = [table.find(name, "--code-columns") for name in codes.values()]
    label = text_column(table, column, "--catalogue-column", LABEL, [*ids, *beside])
    return table, [label, *ids, *beside]


def text_column(
    table: Any, wanted: str | None, option: str, usual: str, others: Sequence[int] = ()
) -> int:
    """The place of a table's column of texts.

    Args:
        table: a :class:`~alc_kernels.trainer.data.tables.Table`.
        wanted: its name as given, None to find it: the only one beside ``others``, or ``usual``.
        option: what names it.
        usual: its name where nothing is said.
        others: places of columns that hold something else.

    Raises:
        BadInput: there are several and none is named ``usual``.
        DataError: there is no column ``wanted``.
    """
    if wanted is not None:
        return int(table.find(wanted, option))
    left = [place for place in range(len(table.columns)) if place not in others]
    if len(left) == 1:
        return left[0]
    if table.has(usual):
        return int(table.find(usual, option))
    raise BadInput(
        f"{table.name}: is a table of several columns, expected {option} to name one of "
        f"{', '.join(table.columns)}{table.hint()}"
    )
