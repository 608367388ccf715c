"""Filter files: one "row label" pair per line, which is neither right nor wrong.

The label-feature data sets of the field have them because many queries are labels too: a query's
own label says nothing about a matcher (K. Bhatia et al., The extreme classification repository).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from alc_kernels.xmc.data.dataset import relation_from_pairs
from alc_kernels.xmc.data.text_lines import read_lines
from alc_kernels.xmc.errors import DataError


def read_filter(path: Path, shape: tuple[int, int]) -> csr_matrix:
    """Read a filter file; an empty one is legal, and so is a pair that no relation has.

    Args:
        path: the file.
        shape: (rows, labels), the bounds of the indices.

    Returns:
        CSR of float32 ones (rows, labels); a pair named twice counts once.

    Raises:
        DataError: a line that is no pair, or an index out of range.
    """
    lines = read_lines(path, what="pairs 'row label'", allow_empty=True)
    pairs = np.empty((len(lines), 2), np.int64)
    for number, line in enumerate(lines, 1):
        parts = line.split()
        if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
            raise DataError(f"{path}, line {number}: found {line[:40]!r}, expected 'row label'")
        for word, text, count in zip(("row", "label"), parts, shape, strict=True):
            if int(text) >= count:
                raise DataError(
                    f"{path}, line {number}: found {word} {text}, expected 0 to {count - 1}"
                )
        pairs[number - 1] = int(parts[0]), int(parts[1])
    return relation_from_pairs(pairs[:, 0], pairs[:, 1], shape)


def write_filter(path: Path, excluded: csr_matrix) -> None:
    """Write the pairs, row by row."""
    pairs = excluded.tocoo()
    with path.open("w", encoding="ascii", newline="\n") as file:
        for row, label in zip(pairs.row, pairs.col, strict=True):
            file.write(f"{row} {label}\n")
