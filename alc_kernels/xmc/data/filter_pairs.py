"""Filter files: one "row label" pair per line, which is neither right nor wrong.

The label-feature data sets of the field have them because many queries are labels too: a query's
own label says nothing about a matcher (K. Bhatia et al., The extreme classification repository).
"""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from alc_kernels.xmc.data.relation import relation_from_pairs
from alc_kernels.xmc.data.text_lines import LineWriter, iter_lines
from alc_kernels.xmc.errors import DataError


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
    with LineWriter(path) as file:
        for row, label in zip(pairs.row, pairs.col, strict=True):
            file.write(f"{row} {label}")
