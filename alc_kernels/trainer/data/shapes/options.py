"""Which columns of one's own tables hold what, and how their queries are split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
