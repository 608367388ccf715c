"""The field's sparse text format: "rows cols", then "index:value ..." per row."""

from __future__ import annotations

import math
from pathlib import Path

from scipy.sparse import csr_matrix

from alc_kernels.xmc.data.dataset import relation_from_rows
from alc_kernels.xmc.data.text_lines import read_lines
from alc_kernels.xmc.errors import DataError


def read_sparse_text(
    path: Path, *, num_rows: tuple[int, str], num_cols: tuple[int, str]
) -> csr_matrix:
    """Read a relation; every listed index is a pair, its value must be a positive number.

    Args:
        path: the file.
        num_rows, num_cols: the expected count, and where it comes from (for messages).

    Returns:
        CSR of float32 ones (rows, cols); an index listed twice in a row counts once.
    """
    lines = read_lines(path, what="a header 'rows cols'", allow_blank=True)
    header = lines[0].split()
    if len(header) != 2 or not all(part.isascii() and part.isdigit() for part in header):
        raise DataError(f"{path}, line 1: found {lines[0][:40]!r}, expected a header 'rows cols'")
    for word, found, (expected, origin) in (
        ("rows", int(header[0]), num_rows),
        ("columns", int(header[1]), num_cols),
    ):
        if found != expected:
            raise DataError(
                f"{path}, line 1: header states {found} {word}, expected {expected} ({origin})"
            )
    if len(lines) - 1 != num_rows[0]:
        raise DataError(
            f"{path}, line {min(len(lines), num_rows[0] + 1) + 1}: found {len(lines) - 1} rows "
            f"after the header, expected {num_rows[0]} (truncated, or lines too many?)"
        )
    rows = [_parse_row(path, number, line, num_cols[0]) for number, line in enumerate(lines[1:], 2)]
    return relation_from_rows(rows, num_cols[0])


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
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write(f"{rows} {cols}\n")
        for start, end in zip(relation.indptr[:-1], relation.indptr[1:], strict=True):
            labels = relation.indices[start:end]
            file.write(" ".join(f"{label}:1" for label in labels) + "\n")
