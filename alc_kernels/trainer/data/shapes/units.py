"""What stays together when queries are split, and where each goes: decided by hashes of texts."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from alc_kernels.trainer.data.protocol import SHARE_STEPS

# Which columns of one's own tables hold what, and how their queries are split.


# What split_by may be beside the name of a column.
AUTO, BY_LABEL, BY_QUERY = "auto", "label", "query"


@dataclass(frozen=True)
class PairOptions:
    """How to read queries, and in pairs their labels.

    Columns are named, in whatever letters, or numbered from 1.

    Attributes:
        query_column, label_column: the texts; the labels' in the catalogue where there is one.
        split_column: column that says train, validation or test. "split" is used where there is
            one; any other must be there; "" for none.
        test_share: share of all queries that become test where no column says so.
        split_by: what stays together: ``"label"``, all queries of a product (of products that a
            query joins, too); ``"query"``, equal texts only; or the name of a column whose equal
            values do. ``"auto"``: by label where products have several queries.
        query_id_column: ids of the queries, kept to the end.
        label_id_column: of pairs, ids of the labels, kept to the end.
        keep_columns: further columns of the queries, kept to the end.
    """

    query_column: str = "query"
    label_column: str = "label"
    split_column: str = "split"
    test_share: float = 0.3
    split_by: str = AUTO
    query_id_column: str | None = None
    label_id_column: str | None = None
    keep_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProductTables:
    """The tables beside that of the queries.

    Attributes:
        catalogue: a file, a folder of Parquet or a data frame, a product per row. Products that
            no query names are candidates like the others.
        id_column: without ``matches``, the queries' column with the id of their product, empty
            where none matches; with ``matches``, the queries' own id. The catalogue's ids, where
            ``catalogue_id_column`` does not name another.
        catalogue_id_column: the catalogue's ids.
        matches: a table of pairs of a query's id and a product's, or None.
        match_columns: its two columns; None where it has no others, the query's first.
    """

    catalogue: Path | Any
    id_column: str
    catalogue_id_column: str | None = None
    matches: Path | Any | None = None
    match_columns: tuple[str, str] | None = None


# Fewer products are classes rather than a catalogue: each must be seen in training.
FEWEST_PRODUCTS = 20
SEVERAL = 0.1  # share of the matched queries whose product has another query
LARGEST = 0.2  # share of the queries that hang together, above which no split comes out even


class Hashes:
    """sha1 of texts, appended one at a time: eight bytes to order by, and the step of the share."""

    def __init__(self) -> None:
        self._order, self._step = array("Q"), array("H")

    def add(self, text: str) -> None:
        digest = hashlib.sha1(text.encode("utf-8", "surrogatepass")).digest()
        self._order.append(int.from_bytes(digest[:8], "big"))
        self._step.append(int.from_bytes(digest, "big") % SHARE_STEPS)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) uint64 and (n,) int64 in [0, SHARE_STEPS)."""
        step = np.frombuffer(self._step, np.uint16).astype(np.int64)
        return np.frombuffer(self._order, np.uint64), step


@dataclass(frozen=True)
class Links:
    """Which of n texts have which keys, such as labels or values of a column.

    Attributes:
        text, key: (p,) int64, a text and a key that it has.
        order, step: (p,) hashes of the keys as :class:`Hashes` gives them.
    """

    text: np.ndarray
    key: np.ndarray
    order: np.ndarray
    step: np.ndarray


def steps_together(num_texts: int, own: tuple[np.ndarray, np.ndarray], links: Links) -> np.ndarray:
    """(n,) int64 in [0, SHARE_STEPS): equal for texts that share a key, directly or over others.

    Each group goes by the smallest hash among its keys; a text without a key by its own.

    Args:
        num_texts: n.
        own: hashes of the texts, (n,) each.
        links: see :class:`Links`.
    """
    group = _components(num_texts, links)
    order, step = (
        np.concatenate(pair) for pair in zip(own, (links.order, links.step), strict=True)
    )
    member = np.concatenate([group, group[links.text]])
    keyed = np.zeros(num_texts, np.bool_)
    keyed[links.text] = True
    counts = np.concatenate([~keyed, np.ones(len(links.text), np.bool_)])
    member, order, step = member[counts], order[counts], step[counts]
    first = np.lexsort((order, member))
    ranked = member[first]
    opens = np.flatnonzero(np.diff(ranked, prepend=-1))
    made = np.empty(int(group.max(initial=-1)) + 1, np.int64)
    made[ranked[opens]] = step[first[opens]]
    return made[group]


def choose(wanted: str, num_texts: int, links: Links) -> tuple[str, str]:
    """What ``split_by`` means for these texts and their labels, and why where it was to be found.

    Args:
        wanted: as given.
        num_texts: n.
        links: with labels as keys.
    """
    if wanted != AUTO:
        return wanted, ""
    pairs = np.unique(np.stack([links.key, links.text]), axis=1)
    keys, sizes = np.unique(pairs[0], return_counts=True)
    matched = np.unique(pairs[1])
    shared = np.unique(pairs[1][np.isin(pairs[0], keys[sizes > 1])])
    if len(keys) < FEWEST_PRODUCTS:
        return BY_QUERY, f"since there are fewer than {FEWEST_PRODUCTS} products"
    if len(shared) < SEVERAL * len(matched):
        return BY_QUERY, "since hardly any product has several queries"
    largest = int(np.bincount(_components(num_texts, links)).max())
    if largest > max(LARGEST * num_texts, int(sizes.max())):
        share = largest / num_texts
        return BY_QUERY, f"since {share:.0%} of the queries hang together by the labels they share"
    return BY_LABEL, "since products have several queries"


def _components(num_texts: int, links: Links) -> np.ndarray:
    """(n,) which texts hang together."""
    size = num_texts + int(links.key.max(initial=-1)) + 1
    ones = np.ones(len(links.text), np.bool_)
    graph = csr_matrix((ones, (links.text, num_texts + links.key)), shape=(size, size))
    return connected_components(graph, directed=False)[1][:num_texts].astype(np.int64)


# Ids that are not found, and would be if it were not for what spreadsheets do to them.


def _zeros(name: str) -> str:
    return name.lstrip("0") or "0"


def _blanks(name: str) -> str:
    return "".join(name.split())


def _decimal(name: str) -> str:
    return name.removesuffix(".0")


def _all(name: str) -> str:
    return _zeros(_decimal(_blanks(name.casefold())))


# What tells two ids apart -> a form of both without it.
WAYS: dict[str, Callable[[str], str]] = {
    "leading zeros": _zeros,
    "upper and lower case": str.casefold,
    "white space": _blanks,
    "a .0 at the end": _decimal,
    "several of zeros, case, white space and .0": _all,
}


def near_ids(missing: Sequence[str], here: str, known: Iterable[str], there: str) -> list[str]:
    """What would be found but for a trifle, a sentence for each kind that starts with the number.

    Args:
        missing: distinct ids of ``here`` that ``there`` does not have.
        here, there: names of the tables.
        known: ids of ``there``.
    """
    known, left, made = list(known), list(missing), []
    for what, form in WAYS.items():
        if not left:
            break
        waiting: dict[str, list[str]] = {}
        for name in left:
            waiting.setdefault(form(name), []).append(name)
        found: list[str] = []
        example = ("", "")
        for name in known:
            hits = waiting.pop(form(name), None)
            if hits:
                example = example if found else (hits[0], name)
                found += hits
        if found:
            word = "id" if len(found) == 1 else "ids"
            made.append(
                f"{len(found):,} {word} of {here} would be found in {there} but for {what} "
                f"({example[0][:40]!r}, {example[1][:40]!r})"
            )
            gone = set(found)
            left = [name for name in left if name not in gone]
    return made
