"""Recognise one's own tables: which columns hold what, and which product each query has."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import numpy as np

from alc_kernels.trainer.data.beside import SEPARATOR
from alc_kernels.trainer.data.shapes.build import BY_COLUMN, BY_MATCHES, Pairs, TableSource
from alc_kernels.trainer.data.shapes.queries import (
    OWN_ID,
    QUERY,
    SPLIT,
    KeyColumn,
    ProductCatalogue,
    QueryRows,
    cells_at,
    column_texts,
)
from alc_kernels.trainer.data.shapes.units import (
    AUTO,
    BY_LABEL,
    BY_QUERY,
    PairOptions,
    ProductTables,
    near_ids,
)
from alc_kernels.trainer.data.source import Source
from alc_kernels.trainer.data.tables import Table, TableOptions, open_table
from alc_kernels.trainer.data.text.texts import Digests, group
from alc_kernels.trainer.errors import DataError, counted

LABEL, LABEL_ID, PRODUCT = "label", "label id", "product"  # roles of columns


def find_pairs(
    source: Path | Any, options: PairOptions | None = None, table: TableOptions | None = None
) -> Source:
    """Read a table of pairs, a query and a label in each row, once for its relations.

    Several rows with the same query give it several labels; a row with an empty label is a query
    without right answer. Equal texts, once normalised, are one label, and one query where they
    have no different ids or kept columns; else they have the same labels.

    Args:
        source: a file, a folder of Parquet or a data frame (:func:`open_table`).
        options: which columns, and what becomes test.
        table: how to read it.

    Raises:
        DataError: a missing column, an empty query, an unknown split, no rows or no labels, an id
            of two texts, or a file that cannot be read.
    """
    options, opened = options or PairOptions(), open_table(source, table)
    places = {
        QUERY: opened.find(options.query_column, "--query-column"),
        LABEL: opened.find(options.label_column, "--label-column"),
    }
    if options.label_id_column is not None:
        places[LABEL_ID] = opened.find(options.label_id_column, "--label-id-column")
    queries = _queries(opened, places, options)
    column = queries.keys[LABEL]
    if not len(column.rows):
        raise DataError(
            f"{queries.path}: column {options.label_column!r} is empty in every row, expected "
            "labels"
        )
    label_of, firsts = group(column.digests)
    pairs, id_lines = Pairs(column.rows, label_of, column.order, column.step), None
    if LABEL_ID in places:
        pairs, id_lines = _with_label_ids(queries, pairs, len(firsts))
    labels = column_texts(opened, places[LABEL], column.rows[firsts], "label texts")
    notes = [*opened.notes, *_became_one(queries, column)]
    names = tuple(opened.columns[place] for place in queries.columns)
    return TableSource(
        queries, pairs, labels, len(firsts), options, "pairs", (queries.path,), names,
        id_lines, notes,
    ).build()  # fmt: skip


def find_products(
    source: Path | Any,
    products: ProductTables,
    options: PairOptions | None = None,
    table: TableOptions | None = None,
) -> Source:
    """Read queries and a catalogue, whose products are all candidates, named by a query or not.

    A query whose product is not in the catalogue is kept, without a right answer there.

    Args:
        source: the queries, as for :func:`find_pairs`.
        products: the other tables.
        options: which columns, and what becomes test.
        table: how to read the tables; those of another kind than ``source`` are read by default.

    Raises:
        DataError: as for :func:`find_pairs`; an id that two texts have; matches of no query.
    """
    options, opened = options or PairOptions(), _open(source, table, "queries")
    catalogue = _catalogue(products, options, _fitting(table, source, products.catalogue))
    places = {QUERY: opened.find(options.query_column, "--query-column")}
    notes = list(catalogue.notes)
    if products.matches is None:
        layout, files = "offers and catalogue", [catalogue.path]
        place = places[PRODUCT] = opened.find(products.id_column, "--id-column")
        queries = _queries(opened, places, options)
        asked = queries.keys[PRODUCT]
        pairs = _known(catalogue, asked.rows, asked, (opened, place), queries, notes)
    else:
        layout = BY_MATCHES
        if options.query_id_column is None:
            places[OWN_ID] = opened.find(products.id_column, "--id-column")
        queries = _queries(opened, places, options)
        fitting = _fitting(table, source, products.matches)
        matches = _open(products.matches, fitting, "matches")
        rows, asked, place = _read_matches(matches, products, queries, notes)
        files = [catalogue.path, Path(matches.name)]
        pairs = _known(catalogue, rows, asked, (matches, place), queries, notes)
    if unnamed := catalogue.num_labels - len(np.unique(pairs.label[pairs.label >= 0])):
        notes.append(
            f"{catalogue.path.name}: labels that no query names: {unnamed:,} of "
            f"{catalogue.num_labels:,}; they are candidates like the others"
        )
    names = tuple(opened.columns[place] for place in queries.columns)
    return TableSource(
        queries, pairs, catalogue.texts(), catalogue.num_labels, options, layout,
        (queries.path, *files), names, catalogue.id_lines, [*opened.notes, *notes],
    ).build()  # fmt: skip


def _catalogue(
    products: ProductTables, options: PairOptions, table: TableOptions | None
) -> ProductCatalogue:
    opened, own = _open(products.catalogue, table, "catalogue"), products.catalogue_id_column
    ids = opened.find(own or products.id_column, "--catalogue-id-column")
    return ProductCatalogue(opened, ids, opened.find(options.label_column, "--label-column"))


def _queries(table: Table, places: dict[str, int], options: PairOptions) -> QueryRows:
    if options.query_id_column is not None:
        places[OWN_ID] = table.find(options.query_id_column, "--query-id-column")
    split = options.split_column
    if split and (split != PairOptions.split_column or table.has(split)):
        places[SPLIT] = table.find(split, "--split-column")
    if options.split_by not in (AUTO, BY_LABEL, BY_QUERY):
        places[BY_COLUMN] = table.find(options.split_by, "--split-by")
    keep = [table.find(name, "--keep-columns") for name in options.keep_columns]
    return QueryRows(table, places, list(dict.fromkeys(keep)), options.split_column)


def _became_one(queries: QueryRows, labels: KeyColumn) -> list[str]:
    """What white space alone told apart."""
    changes, notes = queries.changes, []
    for what, merged in (
        ("queries", changes.became_one(queries.at(QUERY), queries.texts)),
        ("labels", changes.became_one(queries.at(LABEL), labels.digests, labels.rows)),
    ):
        if merged:
            notes.append(
                f"{queries.path.name}: {counted(merged, what)} differed from others in white space "
                "alone, taken as one with them"
            )
    return notes


def _with_label_ids(queries: QueryRows, pairs: Pairs, num_labels: int) -> tuple[Pairs, list[str]]:
    """The ids of the labels, and the products of rows that have an id and no label."""
    ids = queries.keys[LABEL_ID]
    id_of, firsts = group(ids.digests)
    label_of_row = np.full(len(queries.text_of), -1, np.int64)
    label_of_row[pairs.row] = pairs.label
    label = label_of_row[ids.rows]  # of each cell with an id, -1 where the row has no label
    label_of_id = np.full(len(firsts), -1, np.int64)
    labelled = np.flatnonzero(label >= 0)
    label_of_id[id_of[labelled[::-1]]] = label[labelled[::-1]]  # the first one stays
    two = labelled[label[labelled] != label_of_id[id_of[labelled]]]
    names = [cells[0] for _, cells in cells_at(
        queries.table, [queries.places[LABEL_ID]], ids.rows[firsts]
    )]  # fmt: skip
    if len(two):
        at = int(two[0])
        same = labelled[id_of[labelled] == id_of[at]]
        _refuse_two_labels(queries, names[id_of[at]], ids.rows[[int(same[0]), at]])
    lines = [""] * num_labels
    for name, its in zip(names, label_of_id.tolist(), strict=True):
        if its >= 0:
            lines[its] = f"{lines[its]}{SEPARATOR}{name}" if lines[its] else name
    # An id without a text: of a label that another row names, or of one that is nowhere.
    bare = np.flatnonzero(label < 0)
    nowhere = np.flatnonzero(label_of_id < 0)
    number = np.full(len(firsts), 0, np.int64)
    number[nowhere] = -1 - np.arange(len(nowhere))
    its = np.where(label_of_id >= 0, label_of_id, number)[id_of[bare]]
    made = Pairs(
        np.concatenate([pairs.row, ids.rows[bare]]),
        np.concatenate([pairs.label, its]),
        np.concatenate([pairs.order, ids.order[bare]]),
        np.concatenate([pairs.step, ids.step[bare]]),
        [names[number] for number in nowhere],
    )
    return made, lines


def _refuse_two_labels(queries: QueryRows, name: str, rows: np.ndarray) -> None:
    table = queries.table
    (_, (before,)), (_, (after,)) = cells_at(table, [queries.places[LABEL]], rows)
    earlier, here = queries.lines[rows]
    raise DataError(
        f"{queries.path}, {table.unit} {here}: found label id {name[:40]!r} with {after[:40]!r}, "
        f"expected {before[:40]!r} as in {table.unit} {earlier} (an id names one label)"
    )


def _read_matches(
    table: Table, products: ProductTables, queries: QueryRows, notes: list[str]
) -> tuple[np.ndarray, KeyColumn, int]:
    """The row of the queries that each match names (-1: none), its product, and that column."""
    first, second = _match_columns(table, products)
    path, ids, asked, lines = Path(table.name), Digests(), KeyColumn(), array("q")
    for row, (number, (query, label)) in enumerate(table.rows([first, second])):
        for cell, place in ((query, first), (label, second)):
            if not cell:
                raise DataError(
                    f"{path}, {table.unit} {number}: found no id in column "
                    f"{table.columns[place]!r}, expected one of a query and one of a product"
                )
        ids.add(query)
        asked.add(row, label)
        lines.append(number)
    asked.close()
    if not lines:
        raise DataError(f"{path}: found no rows below the header, expected matches")
    # All rows with an id share its text, and texts share their labels: one of them is enough.
    _, firsts = group(queries.ids)
    at = find_any(ids.array(), queries.ids[firsts])
    rows = np.where(at >= 0, firsts[at], -1)
    lost = np.flatnonzero(at < 0)
    _, lost_firsts = group(ids.array()[lost])
    names = _cells(table, first, lost[lost_firsts])
    known = _cells(queries.table, queries.places[OWN_ID], firsts) if len(lost) else []
    near = near_ids(names, path.name, known, queries.path.name)
    if len(lost) == len(rows):
        raise DataError(
            f"{path}: found no id of {queries.path.name} in column {table.columns[first]!r}, "
            "expected the ids of its queries (--match-columns QUERY,PRODUCT names the columns); "
            + _both_sides(names, known, queries.path.name, near)
        )
    notes += table.notes
    if len(lost):
        notes.append(
            f"{path.name}: matches of a query that {queries.path.name} does not have: {len(lost):,}"
        )
    notes += near
    return rows, asked, second


def _cells(table: Table, column: int, rows: np.ndarray) -> list[str]:
    return [cells[0] for _, cells in cells_at(table, [column], rows)]


def _both_sides(names: list[str], known: list[str], there: str, near: list[str]) -> str:
    """An example of an id of each side, and what would be found."""
    shown = f"it has {names[0][:40]!r}, {there} {known[0][:40]!r}"
    return "; ".join([shown, *near])


def _match_columns(table: Table, products: ProductTables) -> tuple[int, int]:
    """The columns of the query's id and of the product's."""
    if products.match_columns is not None:
        first, second = (table.find(name, "--match-columns") for name in products.match_columns)
        return first, second
    if len(table.columns) != 2:
        raise DataError(
            f"{table.name}: found {len(table.columns)} columns, expected 2, the query's id and the "
            "product's (--match-columns QUERY,PRODUCT names them)"
        )
    return 0, 1


def _known(
    catalogue: ProductCatalogue,
    rows: np.ndarray,
    asked: KeyColumn,
    where: tuple[Table, int],
    queries: QueryRows,
    notes: list[str],
) -> Pairs:
    """The pairs of queries and labels; a product that the catalogue lacks stays as a name."""
    at = find_any(asked.digests, catalogue.ids)
    table, place = where
    here, there = Path(table.name).name, catalogue.path.name
    label = np.where(at >= 0, catalogue.label_of[at], 0)
    lost = np.flatnonzero(at < 0)
    number, firsts = group(asked.digests[lost])
    label[lost] = -1 - number
    names = _cells(table, place, asked.rows[lost[firsts]])
    known = [name for line in catalogue.id_lines for name in line.split(SEPARATOR) if len(lost)]
    near = near_ids(names, here, known, there)
    if not len(names) and not len(at):
        raise DataError(
            f"{table.name}: column {table.columns[place]!r} is empty in every row, expected ids of "
            f"products of {there}"
        )
    if len(lost) == len(at):
        raise DataError(
            f"{table.name}: found no id of {there} in column {table.columns[place]!r}, expected "
            f"ids of its products; {_both_sides(names, known, there, near)}"
        )
    if len(lost):
        asking = len(np.unique(queries.text_of[rows[lost][rows[lost] >= 0]]))
        notes.append(
            f"{here}: ids that {there} does not have: "
            f"{len(names):,}, the first {names[0][:40]!r}; texts of queries with them: {asking:,}, "
            "which have no right answer there"
        )
    notes += near
    on = rows >= 0
    return Pairs(rows[on], label[on], asked.order[on], asked.step[on], names)


def find_any(digests: np.ndarray, distinct: np.ndarray) -> np.ndarray:
    """(n,) int64: the row of ``distinct`` (m, 2) that each row of (n, 2) equals, -1 for none."""
    groups, _ = group(np.concatenate([distinct, digests]))
    at = groups[len(distinct) :]
    return np.where(at < len(distinct), at, -1)


def _open(source: Path | Any, options: TableOptions | None, name: str) -> Table:
    """A table; a data frame has no name of its own among several."""
    table = open_table(source, options)
    if not isinstance(source, (str, Path)):
        table.name = name
    return table


def _fitting(options: TableOptions | None, source: Any, other: Any) -> TableOptions | None:
    """How to read another table: as the first one where it is of the same kind."""
    kinds = [Path(x).suffix.lower() if isinstance(x, (str, Path)) else "" for x in (source, other)]
    return options if kinds[0] == kinds[1] else None
