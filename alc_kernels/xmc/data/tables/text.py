"""The one form in which a text is compared, hashed, split and written."""

from __future__ import annotations

from array import array

import numpy as np

from alc_kernels.xmc.data.digests import Digests, group


def normalize_text(raw: str) -> str:
    """Without white space at its ends; every line break and run of white space inside is a blank.

    White space is what Unicode calls so: LF, CR, tab, no-break space, U+2028 and the like.
    """
    return " ".join(raw.split())


class Changes:
    """The cells that :func:`normalize_text` changed: from them, how many texts became one."""

    def __init__(self) -> None:
        self._rows: dict[int, array[int]] = {}
        self._digests: dict[int, Digests] = {}

    def add(self, column: int, row: int, raw: str) -> None:
        """Note the text of a cell as it was; row counts the rows of the pass from 0."""
        self._rows.setdefault(column, array("q")).append(row)
        self._digests.setdefault(column, Digests()).add(raw)

    def became_one(self, column: int, digests: np.ndarray, rows: np.ndarray | None = None) -> int:
        """How many different texts of a column less there are than before.

        Args:
            column: its place among the columns that were read.
            digests: (n, 2) uint64, of the texts as they are now.
            rows: (n,) int64, ascending, the row of each; None: all rows.
        """
        if column not in self._rows:
            return 0
        at = np.frombuffer(self._rows[column], np.int64)
        before = self._digests[column].array()
        if rows is not None:
            known = np.isin(at, rows)
            at, before = np.searchsorted(rows, at[known]), before[known]
        raw = digests.copy()
        raw[at] = before
        return len(group(raw)[1]) - len(group(digests)[1])
