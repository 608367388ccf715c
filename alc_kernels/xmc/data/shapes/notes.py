"""What rows of one table do to each other: they merge, contradict, share an unknown product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alc_kernels.xmc.data.digests import Digests, group
from alc_kernels.xmc.data.shapes.queries import QueryRows

PARTS = 4  # more than there are splits
# An unknown product with so many titles, and with at least this share of them, may be no product.
PLACEHOLDER, PLACEHOLDER_SHARE = 10, 0.01


def row_notes(
    queries: QueryRows,
    row: np.ndarray,
    label: np.ndarray,
    absent: Sequence[str],
    by_id: bool,
) -> list[str]:
    """Sentences on rows that become one, on labels of equal titles, and on unknown products.

    Args:
        queries: the rows.
        row, label, absent: as in :class:`Pairs`.
        by_id: pairs name a row by its id: only the first row with an id has them.
    """
    part = np.zeros(len(queries.text_of), np.int64) if queries.splits is None else queries.splits
    unit = queries.text_of * PARTS + part  # equal titles of one part have the same labels
    named = label >= 0
    labelled = np.zeros(len(unit), np.bool_)
    labelled[row[named]] = True
    product = np.zeros(len(unit), np.int64)
    product[row[~named]] = label[~named]
    identity, _ = group(queries.identity)
    place = identity * PARTS + part
    counted = np.ones(len(unit), np.bool_)
    made, name = [], queries.path.name
    if by_id:
        _, firsts = group(queries.ids)
        counted = (queries.ids == Digests([""]).array()).all(1)
        counted[firsts] = True
        if repeated := len(place) - len(np.unique(place)):
            made.append(f"{name}: rows that repeat an id and its text: {repeated:,}")
    else:
        bare = np.stack([place[~labelled], product[~labelled]])
        if repeated := bare.shape[1] - np.unique(bare, axis=1).shape[1]:
            made.append(f"{name}: rows without a label that repeat an earlier one: {repeated:,}")
    both = np.intersect1d(unit[labelled], unit[counted & ~labelled])
    if count := len(np.unique(both // PARTS)):
        made.append(
            f"{name}: {_titles(count)} {'stands' if count == 1 else 'stand'} with and without a "
            "label; the label counts"
        )
    distinct = np.unique(np.stack([unit[row[named]], label[named]]), axis=1)
    titles, sizes = np.unique(distinct[0], return_counts=True)
    if count := len(np.unique(titles[sizes > 1] // PARTS)):
        has = "has" if count == 1 else "have"
        made.append(f"{name}: {_titles(count)} {has} several labels; each of them is right")
    return made + _placeholders(queries, row[~named], -1 - label[~named], absent)


def _placeholders(
    queries: QueryRows, row: np.ndarray, number: np.ndarray, absent: Sequence[str]
) -> list[str]:
    """Unknown ids that so many titles have that they may stand for none."""
    distinct = np.unique(np.stack([number, queries.text_of[row]]), axis=1)
    sizes = np.bincount(distinct[0], minlength=len(absent))
    least = max(PLACEHOLDER, PLACEHOLDER_SHARE * len(queries.first_rows))
    return [
        f"{queries.path.name}: {_titles(int(sizes[one]))} share the unknown id "
        f"{absent[one][:40]!r}: if it is a placeholder, leave it empty"
        for one in np.flatnonzero(sizes >= least)
    ]


def _titles(count: int) -> str:
    return f"{count:,} title" if count == 1 else f"{count:,} titles"
