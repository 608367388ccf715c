"""``alc predict``: new titles to labels, each accepted or for review."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alc_kernels.cli.arguments import FORMATS, number, one_of, table_target
from alc_kernels.cli.matching.catalogue import (
    Labels,
    add_catalogue_options,
    read_labels,
    text_column,
)
from alc_kernels.cli.matching.tables import add_table_options, table_options
from alc_kernels.trainer.data.tables import (
    STDIN,
    Changes,
    LinesTable,
    Table,
    is_table,
    open_table,
)
from alc_kernels.trainer.data.tables.table import TableOptions
from alc_kernels.trainer.errors import BadInput, counted

if TYPE_CHECKING:
    from alc_kernels.cli.matching.tables import Row
    from alc_kernels.trainer.evaluation import Scored
    from alc_kernels.trainer.evaluation.matching import Match

# Titles to match, one at a time, each with what stands beside it in its table.


QUERY = "query"  # the column of the titles, where there are several and none is named
ALL = "all"


class Title(NamedTuple):
    """A title as it is matched, and as the file has it.

    Attributes:
        text: normalised, as training texts are.
        given: as it stands in the file.
        id: as it stands there, empty where there is none.
        kept: the cells of the columns that are kept, likewise.
    """

    text: str
    given: str
    id: str = ""
    kept: tuple[str, ...] = ()


def add_title_options(parser: argparse.ArgumentParser) -> None:
    """Add FILE, ``--column``, ``--query-id-column``, ``--keep-columns`` and how tables are read."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a text file with one title per line, or a table; - reads standard input",
    )
    parser.add_argument(
        "--column",
        "--query-column",
        metavar="NAME",
        help="the table's column of titles (its only one, or the one named query)",
    )
    parser.add_argument(
        "--query-id-column", metavar="NAME", help="the column of the titles' ids, for the output"
    )
    parser.add_argument(
        "--keep-columns",
        metavar="NAMES|all",
        action="append",
        default=[],
        help="further columns for the output, a comma between",
    )
    add_table_options(parser)


class Titles:
    """The titles of a file; once through.

    Args:
        arguments: of :func:`add_title_options`.

    Attributes:
        has_ids: whether the titles have ids.
        kept: names of the columns that are kept.

    Raises:
        BadInput: no such file, a table of several columns and none named, options for a table
            where there is none.
        DataError: unreadable, or no such column; while reading also by line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.source, self.options = arguments.file, table_options(arguments)
        self.has_ids = arguments.query_id_column is not None
        self.kept: tuple[str, ...] = ()
        if self.source != STDIN and not Path(self.source).exists():
            raise BadInput(f"{self.source}: no such file")
        beside = {"--query-id-column": self.has_ids, "--keep-columns": any(arguments.keep_columns)}
        wanted = [option for option, given in beside.items() if given]
        by_name = self.source != STDIN and is_table(self.source)
        said = arguments.column is not None or (wanted and self.options.delimiter is not None)
        if wanted and not (by_name or said):
            raise BadInput(
                f"{self.source}: has a title per line, no columns for {wanted[0]} (--column NAME "
                "or --delimiter CHARACTER reads it as a table)"
            )
        self.table: Table
        if by_name or said:
            self.table = open_table(self.source, self.options)
            self.table.keep_empty_rows = True  # each row of the file has one in the output
            self._find_columns(self.table, arguments)
            return
        encoding = self.options.encoding
        if self.options != TableOptions(encoding=encoding) and not arguments.catalogue:
            raise BadInput(
                f"{self.source}: is read as one title per line, so of the options for tables only "
                "--encoding has an effect; --column NAME reads a table"
            )
        self.table, self.places = LinesTable(self.source, encoding), [0]

    def options_for(self, catalogue: Path | None) -> TableOptions | None:
        """How to read the catalogue: like the titles where both are of one kind.

        Where the titles are lines of text, what is said about tables is said about it.
        """
        if catalogue is None:
            return None
        if catalogue.suffix.lower() == Path(self.source).suffix.lower():
            return self.options
        lines = isinstance(self.table, LinesTable)
        return replace(self.options, encoding=None) if lines else None

    def _find_columns(self, table: Table, arguments: argparse.Namespace) -> None:
        ids = [table.find(arguments.query_id_column, "--query-id-column")] if self.has_ids else []
        names = _names(table, arguments.keep_columns)
        kept = [table.find(name, "--keep-columns") for name in names if name != ALL]
        beside = [*ids, *kept]
        title = text_column(table, arguments.column, "--column", QUERY, beside)
        if ALL in names:
            rest = [p for p in range(len(table.columns)) if p not in (title, *beside)]
            kept += rest
        self.kept = tuple(table.columns[place] for place in kept)
        self.places = [title, *ids, *kept]

    @property
    def notes(self) -> list[str]:
        """What was assumed or found in reading; complete when all titles were read."""
        return self.table.notes

    def __iter__(self) -> Iterator[Title]:
        raw, first = _Raw(), 1 + self.has_ids
        for _, cells in self.table.rows(self.places, raw):
            given = raw.cells_as_given(cells)
            yield Title(cells[0], given[0], given[1] if self.has_ids else "", tuple(given[first:]))


class _Raw(Changes):
    """The cells of a row as they were before they were normalised."""

    def __init__(self) -> None:
        super().__init__()
        self._changed: dict[int, str] = {}

    def add(self, column: int, row: int, raw: str) -> None:
        self._changed[column] = raw

    def cells_as_given(self, cells: Sequence[str]) -> list[str]:
        """The row that was just read, as the table has it."""
        given = [self._changed.get(at, cell) for at, cell in enumerate(cells)]
        self._changed.clear()
        return given


def _names(table: Table, wanted: Sequence[str]) -> list[str]:
    """The columns that ``--keep-columns`` names: each a column, or several with commas between."""
    names: list[str] = []
    for words in wanted:
        names += [words] if table.has(words) else [word.strip() for word in words.split(",")]
    return list(dict.fromkeys(name for name in names if name))


PRECISION = 0.9


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="match new titles: label, score, accept or review",
        description="Find the best label of every title in FILE and write, for each, query, rank, "
        "label, score and decision, with ids and further columns where there are some: accept "
        "where the best score reaches the threshold, else review. The threshold is the lowest from "
        "which so many of the accepted were right among the run's validation titles (open "
        "catalogue where there is one).",
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder of alc train")
    add_title_options(parser)
    add_catalogue_options(parser)
    parser.add_argument(
        "--precision",
        type=number(float, 0.01, 0.9999),
        help=f"precision wanted of what is accepted ({PRECISION})",
    )
    parser.add_argument(
        "--threshold", type=number(float, -1e9, 1e9), help="accept from this score instead"
    )
    parser.add_argument("--k", type=number(int, 1), default=1, help="labels per title (1)")
    parser.add_argument(
        "--output",
        metavar="OUT",
        type=Path,
        help="write into this file, not on the terminal; the ending says how: "
        f"{', '.join(FORMATS)}, the first three also with .gz or .zst",
    )
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        type=one_of(FORMATS),
        help=f"{', '.join(FORMATS)} (by the name of OUT; csv without one)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from alc_kernels.cli.matching.tables import table_writer
    from alc_kernels.trainer.evaluation import load_scored
    from alc_kernels.trainer.evaluation.matching import ACCEPT, Matcher
    from alc_kernels.trainer.finish import load_trained

    if arguments.precision is not None and arguments.threshold is not None:
        raise BadInput("--precision and --threshold exclude each other")
    titles = Titles(arguments)
    scored = load_scored(arguments.run_folder)
    target = table_target(arguments.output, arguments.format, _inputs(arguments, scored))
    checkpoint = load_trained(arguments.run_folder)
    if len(scored.history) != len(checkpoint.position.history):
        raise BadInput(
            f"{arguments.run_folder}: has trained on since it was scored; score it again: "
            f"alc evaluate {arguments.run_folder} --data DIR"
        )
    threshold, origin = _threshold(arguments, scored)
    labels = read_labels(arguments, scored, checkpoint, titles.options_for(arguments.catalogue))
    matcher = Matcher(checkpoint.model, labels.texts, labels.numbers, threshold, arguments.k)

    total = accepted = blank = 0
    waiting: deque[Title] = deque()  # read, not matched yet

    def texts() -> Iterator[str]:
        for title in titles:
            waiting.append(title)
            yield title.text

    with table_writer(target, columns(titles, labels)) as write:
        for matches in matcher.match(texts()):
            title = waiting.popleft()
            for match in matches:
                write(_row(title, match, titles, labels))
            total += 1
            accepted += matches[0].decision == ACCEPT
            blank += matches[0].score is None
        if not total:
            raise BadInput(f"{arguments.file}: holds no title")
    for note in (*titles.notes, *labels.notes):
        print(note, file=sys.stderr)
    print(
        f"{counted(total, 'titles')}: {accepted:,} accepted ({100 * accepted / total:.1f} %), "
        f"{total - accepted:,} for review{f', {blank:,} of them blank' if blank else ''}",
        f"Catalogue: {labels.told}{_beyond(arguments, scored, threshold)}",
        f"Threshold: {origin}",
        sep="\n",
        # The matches may be on standard output: then the summary must not be.
        file=sys.stderr if arguments.output is None else sys.stdout,
    )
    if arguments.output is not None:
        print(f"Written: {arguments.output}")


def columns(titles: Titles, labels: Labels) -> dict[str, type]:
    """The columns of the output, in order; docs/predict.md says what each holds."""
    made: dict[str, type] = {"query_id": str} if titles.has_ids else {}
    made |= {"query": str, "rank": int}
    if labels.ids is not None:
        made["label_id"] = str
    made |= {"label": str, "score": float, "decision": str}
    for name in titles.kept:
        while name in made:
            name = f"input_{name}"
        made[name] = str
    return made


def _row(title: Title, match: Match, titles: Titles, labels: Labels) -> Row:
    ids = [title.id] if titles.has_ids else []
    label_ids: list[str] = []
    if labels.ids is not None:
        label_ids = [labels.ids[match.place] if match.place >= 0 else ""]
    found = [*label_ids, match.label, match.score, match.decision]
    return [*ids, title.given, match.rank, *found, *title.kept]


def _threshold(arguments: argparse.Namespace, scored: Scored) -> tuple[float, str]:
    """The threshold, and where it is from, in words."""
    from alc_kernels.trainer.evaluation.matching import validation_threshold
    from alc_kernels.trainer.report.summary import chosen_text, titles_text

    if arguments.threshold is not None:
        return arguments.threshold, f"{arguments.threshold:g}, as given{_outside(arguments)}"
    precision = PRECISION if arguments.precision is None else arguments.precision
    threshold, name = validation_threshold(scored.predictions, precision)
    found = scored.predictions[name]["validation"]
    where = f"against the {name} catalogue of {counted(_size(scored, name), 'labels')}"
    if missing := int((~found.answerable).sum()):
        where += f", which has no right one for {missing:,} of them"
    if not np.isfinite(threshold):
        return threshold, (
            f"none, since no score reached precision {precision:g} among "
            f"{titles_text(len(found))} {where}: nothing is accepted"
        )
    return threshold, f"{threshold:.3f}, {chosen_text(precision, len(found))} {where}"


def _outside(arguments: argparse.Namespace) -> str:
    """What a threshold does that no cosine is on the other side of."""
    if arguments.threshold > 1:
        return ", above every score (they are cosines, at most 1): nothing is accepted"
    if arguments.threshold < -1:
        return ", below every score (they are cosines, at least -1): all but blanks are accepted"
    return ""


def _beyond(arguments: argparse.Namespace, scored: Scored, threshold: float) -> str:
    """How the catalogue differs from the one that the threshold was chosen on, in words."""
    from alc_kernels.trainer.evaluation.predictions import leading_catalogue

    if arguments.threshold is not None or not np.isfinite(threshold):
        return ""
    chosen_on = leading_catalogue(scored.predictions)
    if arguments.catalogue is not None:
        return (
            f"; the threshold was chosen on another catalogue, of {_size(scored, chosen_on):,} "
            "labels: try it on titles whose label you know"
        )
    held_out = _size(scored, "closed") - _size(scored, chosen_on)
    if not held_out:
        return ", the ones that the threshold was chosen on"
    against_all = scored.predictions["closed"]["validation"]
    taken = against_all.top_score >= threshold
    right = f"{100 * against_all.correct[taken].mean():.1f} %" if taken.any() else "none"
    return (
        f"; {held_out:,} of them were left out when the threshold was chosen. Against all of them "
        f"it accepts {100 * taken.mean():.1f} % of the validation titles, {right} of those rightly"
    )


def _size(scored: Scored, catalogue: str) -> int:
    """How many labels a catalogue of the run's data has."""
    counts = scored.data["counts"]
    return int(counts["labels"] - (counts["held_out"] if catalogue == "open" else 0))


def _inputs(arguments: argparse.Namespace, scored: Scored) -> list[Path]:
    """What the command reads, so that it is not written over."""
    given: Sequence[Any] = (
        arguments.file, arguments.catalogue, arguments.data, arguments.run_folder,
        scored.data.get("folder"),
    )  # fmt: skip
    return [Path(path) for path in given if path is not None]
