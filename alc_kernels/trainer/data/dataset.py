"""A data set: texts, sparse relations, and the two catalogues it is scored against."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from alc_kernels.trainer.data.beside import Columns, split_ids
from alc_kernels.trainer.data.text.sparse import first_labels
from alc_kernels.trainer.data.text.texts import TextRows
from alc_kernels.trainer.errors import DataError

SPLITS = ("train", "validation", "test")
_WORD = re.compile(r"[^\W_]+")
TOKENS = ".tokens"  # folder of tokenised texts, inside the data set's own

# (a, b) of the inverse propensity 1 + C (N_l + b)^-a (Jain et al., KDD 2016).
PROPENSITIES = {"amazon": (0.6, 2.6), "wikipedia": (0.5, 0.4), "other": (0.55, 1.5)}


@dataclass(frozen=True)
class Split:
    """Queries of one split and the labels that are right for each.

    Attributes:
        queries: n texts; a :class:`TextFile` where they were read from a folder.
        relation: (n, num_labels) CSR of float32 ones, sorted column indices, no duplicates.
            A row may be empty.
        excluded: (n, num_labels) CSR like ``relation``: pairs that are neither right nor wrong
            (a filter file), so that a loss and a ranking leave them out; None without a filter.
            No pair is in both.
        ids: n ids of the queries, "" for none; None where the data have no ids.
        columns: n records of further columns, name -> text, or None.
        groups: n names of the queries' products, in the catalogue or not, "" where no product is
            known; None where the data do not tell more than the relation.
    """

    queries: Sequence[str]
    relation: csr_matrix
    excluded: csr_matrix | None = None
    ids: Sequence[str] | None = None
    columns: Columns | None = None
    groups: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def unmatched(self) -> np.ndarray:
        """(n,) bool: queries without any label."""
        return np.diff(self.relation.indptr) == 0

    def group_numbers(self) -> np.ndarray:
        """(n,) int64, equal for queries of one product; -1 where no product is known.

        The query's first label; for a query without one, num_labels and more by ``groups``, in
        the order in which its products first occur. Where no product is known, queries of the
        same words, in any order and case, are taken for one.
        """
        made = first_labels(self.relation)
        numbers: dict[str, int] = {}
        same: dict[str, list[int]] = {}
        for row in np.flatnonzero(self.unmatched).tolist():
            name = "" if self.groups is None else self.groups[row]
            if name:
                made[row] = numbers.setdefault(name, self.relation.shape[1] + len(numbers))
            else:
                words = sorted(set(_WORD.findall(self.queries[row].casefold())))
                same.setdefault(" ".join(words) or str(-row), []).append(row)
        first = self.relation.shape[1] + len(numbers)
        for number, rows in enumerate(rows for rows in same.values() if len(rows) > 1):
            made[rows] = first + number
        return made


@dataclass(frozen=True)
class Catalogue:
    """The labels that may be returned, and every split's relation in their numbering.

    Attributes:
        name: ``"open"`` or ``"closed"``.
        label_ids: (C,) int64, ascending: candidate c is ``dataset.labels[label_ids[c]]``.
        texts: the C label texts.
        relations: split name -> (n, C) CSR of float32 ones. In the open catalogue, a query all
            of whose labels are held out has an empty row: it has no right answer.
        excluded: split name -> (n, C) CSR of float32 ones: pairs that are neither right nor
            wrong; without any pair where the split has no filter.
    """

    name: str
    label_ids: np.ndarray
    texts: Sequence[str]
    relations: Mapping[str, csr_matrix]
    excluded: Mapping[str, csr_matrix] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Dataset:
    """Queries, labels and their relation, in three splits.

    Attributes:
        name: short name, shown in reports.
        labels: L label texts.
        splits: ``"train"``, ``"validation"`` and ``"test"``.
        held_out: (L,) bool; held-out labels are no candidates in the open catalogue and have
            no training query.
        description: one or two sentences.
        generated: True when the texts were made by a program.
        protocol: how splits and held-out labels were chosen.
        propensity: (a, b) of the labels' inverse propensities, see ``psp_at_k``.
        label_ids: L lines, each the ids of a label with a tab between several, "" for none; None
            where the data have no ids. See :meth:`ids_of_label`.
        folder: where it was read from; None for one that was made in memory.
    """

    name: str
    labels: Sequence[str]
    splits: Mapping[str, Split]
    held_out: np.ndarray
    description: str = ""
    generated: bool = False
    protocol: str = ""
    propensity: tuple[float, float] = PROPENSITIES["other"]
    label_ids: Sequence[str] | None = None
    folder: Path | None = field(default=None, compare=False)
    _catalogues: dict[str, Catalogue] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def num_labels(self) -> int:
        return len(self.labels)

    def ids_of_label(self, label: int) -> tuple[str, ...]:
        """The ids of a label; several where products have the same text."""
        return () if self.label_ids is None else split_ids(self.label_ids[label])

    @property
    def train(self) -> Split:
        return self.splits["train"]

    @property
    def validation(self) -> Split:
        return self.splits["validation"]

    @property
    def test(self) -> Split:
        return self.splits["test"]

    @property
    def cache(self) -> Path | None:
        """Where tokenised texts are kept between runs, for :meth:`Encoder.tokenize`.

        None without a folder that can be written to: texts are then tokenised in memory.
        """
        return None if self.folder is None else token_cache(self.folder)

    def catalogues(self) -> dict[str, Catalogue]:
        """``"open"`` and ``"closed"``; without held-out labels they are one, ``"closed"``."""
        made = {"open": self.open_catalogue()} if self.held_out.any() else {}
        return {**made, "closed": self.closed_catalogue()}

    def open_catalogue(self) -> Catalogue:
        """All labels that are not held out: some queries have no right answer."""
        return self._catalogue("open", np.flatnonzero(~self.held_out))

    def closed_catalogue(self) -> Catalogue:
        """All labels: every query that has a label can be answered."""
        return self._catalogue("closed", np.arange(self.num_labels))

    def counts(self) -> dict[str, int]:
        """Sizes for ``dataset.json`` and for tables."""
        made = {"labels": self.num_labels, "held_out": int(self.held_out.sum())}
        for name, split in self.splits.items():
            made[name] = len(split)
            made[f"{name}_pairs"] = int(split.relation.nnz)
            made[f"{name}_unmatched"] = int(split.unmatched.sum())
            made[f"{name}_excluded"] = 0 if split.excluded is None else int(split.excluded.nnz)
        return made

    def _catalogue(self, name: str, label_ids: np.ndarray) -> Catalogue:
        if name not in self._catalogues:
            whole = len(label_ids) == self.num_labels
            relations, excluded = {}, {}
            for split, part in self.splits.items():
                left_out = part.excluded
                if left_out is None:
                    left_out = csr_matrix((len(part), self.num_labels), dtype=np.float32)
                relations[split] = part.relation if whole else part.relation[:, label_ids].tocsr()
                excluded[split] = left_out if whole else left_out[:, label_ids].tocsr()
            texts = self.labels if whole else TextRows(self.labels, label_ids)
            self._catalogues[name] = Catalogue(
                name, label_ids.astype(np.int64), texts, relations, excluded
            )
        return self._catalogues[name]


def token_cache(folder: Path) -> Path | None:
    """The folder for tokenised texts in a data set folder; None where it cannot be written to."""
    path = folder / TOKENS
    return path if os.access(path if path.exists() else folder, os.W_OK) else None


def _check(data: Dataset) -> None:
    """Shapes agree and nothing is empty; files get more detailed checks in ``folder``."""
    where = f"data set {data.name!r}"
    if set(data.splits) != set(SPLITS):
        raise DataError(f"{where}: found splits {sorted(data.splits)}, expected {list(SPLITS)}")
    if not data.labels:
        raise DataError(f"{where}: found 0 labels, expected at least 1")
    if data.label_ids is not None and len(data.label_ids) != data.num_labels:
        raise DataError(
            f"{where}: found {len(data.label_ids)} label_ids, expected {data.num_labels}"
        )
    if data.held_out.shape != (data.num_labels,) or data.held_out.dtype != np.bool_:
        raise DataError(
            f"{where}: held_out has shape {data.held_out.shape} and dtype {data.held_out.dtype}, "
            f"expected ({data.num_labels},) bool"
        )
    if data.held_out.all():
        raise DataError(f"{where}: all {data.num_labels} labels are held out, expected some left")
    for name, split in data.splits.items():
        expected = (len(split.queries), data.num_labels)
        if split.relation.shape != expected:
            raise DataError(
                f"{where}, {name}: relation has shape {split.relation.shape}, expected {expected}"
            )
        if split.excluded is not None:
            if split.excluded.shape != expected:
                raise DataError(
                    f"{where}, {name}: excluded has shape {split.excluded.shape}, "
                    f"expected {expected}"
                )
            both = split.relation.multiply(split.excluded).tocoo()
            if both.nnz:
                raise DataError(
                    f"{where}, {name}: query {both.row[0]} has label {both.col[0]} both as right "
                    "and as excluded, expected one of them"
                )
        for word in ("ids", "columns", "groups"):
            beside = getattr(split, word)
            if beside is not None and len(beside) != expected[0]:
                raise DataError(
                    f"{where}, {name}: found {len(beside)} {word}, expected {expected[0]}"
                )
        if not split.queries:
            raise DataError(f"{where}, {name}: found 0 queries, expected at least 1")
    a, b = data.propensity
    if not (0 <= a < math.inf and 0 < b < math.inf):
        raise DataError(
            f"{where}: propensity is {data.propensity!r}, expected two numbers, a of at least 0 "
            "and b above 0"
        )
    leaked = np.unique(data.splits["train"].relation.indices)
    leaked = leaked[data.held_out[leaked]]
    if len(leaked):
        raise DataError(
            f"{where}: held-out label {leaked[0]} ({data.labels[leaked[0]]!r}) has a training "
            "query, expected none (held-out labels must not be trained on)"
        )
