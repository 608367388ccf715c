"""The field's sparse text format: "rows cols", then "index:value ..." per row; blank = empty."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from alc_kernels.xmc.data.relation import RelationRows
from alc_kernels.xmc.data.text_lines import LineWriter, text_blocks
from alc_kernels.xmc.errors import DataError

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
    with LineWriter(path, allow_blank=True) as file:
        file.write(f"{rows} {cols}")
        for start in range(0, rows, ROWS_PER_WRITE):
            bounds = relation.indptr[start : start + ROWS_PER_WRITE + 1].tolist()
            labels = relation.indices[bounds[0] : bounds[-1]].tolist()
            for begin, end in pairwise(bounds):
                row = labels[begin - bounds[0] : end - bounds[0]]
                file.write(" ".join([f"{label}:1" for label in row]))
