"""The field's sparse text format: "rows cols", then "index:value ..." per row; blank = empty."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from alc_kernels.trainer.data.text.lines import iter_lines, line_writer, text_blocks, write_lines
from alc_kernels.trainer.errors import DataError

# Sparse relations between queries and labels: CSR of float32 ones, sorted, without repeats.


class RelationRows:
    """A relation in the making, row by row; eight bytes a pair, not a list of Python numbers."""

    def __init__(self) -> None:
        self._labels = array("i")
        self._lengths = array("i")

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, labels: Sequence[int]) -> None:
        """Append a row, empty or with repeats."""
        self._labels.extend(labels)
        self._lengths.append(len(labels))

    def extend(self, labels: np.ndarray, lengths: Iterable[int]) -> None:
        """Append rows: their labels one after the other, and how many each has."""
        self._labels.frombytes(labels.astype(np.intc).tobytes())
        self._lengths.extend(lengths)

    def build(self, num_labels: int) -> tuple[csr_matrix, int]:
        """The relation (rows, num_labels), and how many repeats of a label in a row it lost."""
        indptr = np.zeros(len(self) + 1, np.int64)
        np.cumsum(np.frombuffer(self._lengths, np.intc), out=indptr[1:])
        indices = np.frombuffer(self._labels, np.intc).copy()
        ones = np.ones(len(indices), np.float32)
        made = csr_matrix((ones, indices, indptr), shape=(len(self), num_labels))
        return _plain(made), len(ones) - int(made.nnz)


def relation_from_rows(rows: Iterable[Sequence[int]], num_labels: int) -> csr_matrix:
    """CSR of float32 ones (len(rows), num_labels); a label named twice in a row counts once."""
    made = RelationRows()
    for row in rows:
        made.add(row)
    return made.build(num_labels)[0]


def relation_from_pairs(rows: np.ndarray, labels: np.ndarray, shape: tuple[int, int]) -> csr_matrix:
    """CSR of float32 ones of the pairs (rows[i], labels[i]); a pair named twice counts once."""
    return _plain(csr_matrix((np.ones(len(rows), np.float32), (rows, labels)), shape=shape))


def without(relation: csr_matrix, unwanted: csr_matrix) -> csr_matrix:
    """``relation`` less the pairs that ``unwanted``, of the same shape, has as well."""
    made = relation - relation.multiply(unwanted)
    made.eliminate_zeros()
    return _plain(made.tocsr())


def without_labels(relation: csr_matrix, unwanted: np.ndarray) -> csr_matrix:
    """``relation`` less all pairs of the labels of ``unwanted`` (num_labels,) bool."""
    keep = ~unwanted[relation.indices]
    indptr = np.concatenate([[0], np.cumsum(keep)])[relation.indptr]
    ones = np.ones(int(indptr[-1]), np.float32)
    return csr_matrix((ones, relation.indices[keep], indptr), shape=relation.shape)


def first_labels(relation: csr_matrix) -> np.ndarray:
    """(n,) int64: the first label of every row, -1 where the row is empty."""
    counts = np.diff(relation.indptr)
    first = np.full(len(counts), -1, np.int64)
    first[counts > 0] = relation.indices[relation.indptr[:-1][counts > 0]]
    return first


def _plain(relation: csr_matrix) -> csr_matrix:
    """In place: sorted, each pair once, with value 1."""
    relation.sum_duplicates()
    relation.data[:] = 1
    return relation


# Rows as nearly every file has them; they are parsed as one array. Anything else is read entry
# by entry, which finds out what is wrong with it.
_PLAIN = re.compile(r"(?:[0-9]{1,9}:[0-9]{1,9}(?:\.[0-9]{0,9})?(?=[ \t\r\n])|[ \t\r\n])*")
ROWS_PER_WRITE = 8192


def read_sparse_text(
    path: Path, *, num_rows: tuple[int, str] | None, num_cols: tuple[int, str]
) -> tuple[csr_matrix, int]:
    """Read a relation; every listed index is a pair, its value must be a positive number.

    Args:
        path: the file, also compressed (``.gz``).
        num_rows, num_cols: the expected count, and where it comes from (for messages); None
            takes the header's word for the number of rows.

    Returns:
        CSR of float32 ones (rows, cols), where an index listed twice in a row counts once, and
        how many such repeats there were.

    Raises:
        DataError: file and line of a bad header, entry or index, or of missing rows.
    """
    rows = RelationRows()
    stated = -1
    for first, text in text_blocks(path):
        if first == 1:
            header, _, text = text.partition("\n")
            stated = _check_header(path, header, num_rows, num_cols)
            first = 2
        if text:
            _parse(path, first, text, num_cols[0], rows)
    if stated < 0:
        raise DataError(f"{path}, line 1: the file is empty, expected a header 'rows cols'")
    if len(rows) != stated:
        raise DataError(
            f"{path}, line {min(len(rows), stated) + 2}: found {len(rows)} rows after the header, "
            f"expected {stated} (truncated, or lines too many?)"
        )
    return rows.build(num_cols[0])


def _check_header(
    path: Path, line: str, num_rows: tuple[int, str] | None, num_cols: tuple[int, str]
) -> int:
    header = line.split()
    if len(header) != 2 or not all(part.isascii() and part.isdigit() for part in header):
        found = line.removesuffix("\r")[:40]
        raise DataError(f"{path}, line 1: found {found!r}, expected a header 'rows cols'")
    rows, cols = int(header[0]), int(header[1])
    for word, found_count, expected in (("rows", rows, num_rows), ("columns", cols, num_cols)):
        if expected is not None and found_count != expected[0]:
            raise DataError(
                f"{path}, line 1: header states {found_count} {word}, expected {expected[0]} "
                f"({expected[1]})"
            )
    return rows


def _parse(path: Path, first: int, text: str, num_cols: int, rows: RelationRows) -> None:
    """Append the rows of some whole lines, the first of which has the number ``first``."""
    lines = text.removesuffix("\n").split("\n")
    if _PLAIN.fullmatch(text):
        # fromstring makes a number of white space alone.
        numbers = np.zeros(0)
        if ":" in text:
            numbers = np.fromstring(text.replace(":", " "), np.float64, sep=" ")
        labels, values = numbers[::2], numbers[1::2]
        if not len(numbers) or (labels.max() < num_cols and values.min() > 0):
            rows.extend(labels, [line.count(":") for line in lines])
            return
    for number, line in enumerate(lines, first):
        rows.add(_parse_row(path, number, line, num_cols))


def _parse_row(path: Path, number: int, line: str, num_cols: int) -> list[int]:
    labels = []
    for entry in line.split():
        index, colon, value = entry.partition(":")
        if not colon or not (index.isascii() and index.isdigit()) or not _is_positive(value):
            raise DataError(
                f"{path}, line {number}: found {entry[:40]!r}, expected label:value with a label "
                "index and a positive number"
            )
        if int(index) >= num_cols:
            raise DataError(
                f"{path}, line {number}: found label {index}, expected 0 to {num_cols - 1}"
            )
        labels.append(int(index))
    return labels


def _is_positive(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and value > 0


def write_sparse_text(path: Path, relation: csr_matrix) -> None:
    """Write a relation (rows, cols) with value 1 for every pair."""
    rows, cols = relation.shape
    with line_writer(path, allow_blank=True) as write:
        write(f"{rows} {cols}")
        for start in range(0, rows, ROWS_PER_WRITE):
            bounds = relation.indptr[start : start + ROWS_PER_WRITE + 1].tolist()
            labels = relation.indices[bounds[0] : bounds[-1]].tolist()
            for begin, end in pairwise(bounds):
                row = labels[begin - bounds[0] : end - bounds[0]]
                write(" ".join([f"{label}:1" for label in row]))


# Filter files: one "row label" pair per line, which is neither right nor wrong.
#
# The label-feature data sets of the field have them because many queries are labels too: a query's
# own label says nothing about a matcher (K. Bhatia et al., The extreme classification repository).


def read_filter(path: Path, shape: tuple[int, int]) -> csr_matrix:
    """Read a filter file; an empty one is legal, and so is a pair that no relation has.

    Args:
        path: the file, also compressed (``.gz``).
        shape: (rows, labels), the bounds of the indices.

    Returns:
        CSR of float32 ones (rows, labels); a pair named twice counts once.

    Raises:
        DataError: a line that is no pair, or an index out of range.
    """
    numbers = array("q")
    for number, line in enumerate(iter_lines(path, what="'row label'", allow_empty=True), 1):
        parts = line.split()
        if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
            raise DataError(f"{path}, line {number}: found {line[:40]!r}, expected 'row label'")
        pair = int(parts[0]), int(parts[1])
        for word, found, count in zip(("row", "label"), pair, shape, strict=True):
            if found >= count:
                raise DataError(
                    f"{path}, line {number}: found {word} {found}, expected 0 to {count - 1}"
                )
        numbers.extend(pair)
    pairs = np.frombuffer(numbers, np.int64).reshape(-1, 2) if numbers else np.zeros((0, 2), int)
    return relation_from_pairs(pairs[:, 0], pairs[:, 1], shape)


def write_filter(path: Path, excluded: csr_matrix) -> None:
    """Write the pairs, row by row."""
    pairs = excluded.tocoo()
    write_lines(path, (f"{row} {one}" for row, one in zip(pairs.row, pairs.col, strict=True)))
