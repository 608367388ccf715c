"""``alc predict``: new titles to labels, each accepted or for review."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alc_kernels.cli.arguments import number, one_of
from alc_kernels.cli.errors import BadInput
from alc_kernels.cli.outputs import FORMATS, table_target

if TYPE_CHECKING:
    from alc_kernels.xmc.evaluation import Scored
    from alc_kernels.xmc.training.checkpoint import Checkpoint

NAME = "predict"
PRECISION = 0.9
COLUMNS = {"query": str, "rank": int, "label": str, "score": float, "decision": str}


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        NAME,
        help="match new titles: label, score, accept or review",
        description="Find the best label of every title in FILE and write query, rank, label, "
        "score and decision: accept where the best score reaches the threshold, else review. The "
        "threshold is the one that reaches the precision on the run's validation titles (open "
        "catalogue where there is one); it holds for titles and catalogues like those.",
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder of alc train")
    parser.add_argument(
        "file", metavar="FILE", help="one title per line, or a table (--column); - reads stdin"
    )
    parser.add_argument("--column", metavar="NAME", help="FILE is a CSV, this column the titles")
    parser.add_argument(
        "--catalogue",
        metavar="FILE",
        type=Path,
        help="match against these labels, one per line, instead of the run's own",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="the run's data folder (default: where it was, if it is still there)",
    )
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
    from alc_kernels.cli.finish import load_trained
    from alc_kernels.cli.table_files import table_writer
    from alc_kernels.cli.titles import STDIN, read_titles
    from alc_kernels.xmc.evaluation import load_scored
    from alc_kernels.xmc.evaluation.matching import ACCEPT, Matcher

    if arguments.precision is not None and arguments.threshold is not None:
        raise BadInput("--precision and --threshold exclude each other")
    if arguments.file != STDIN and not Path(arguments.file).is_file():
        raise BadInput(f"{arguments.file}: no such file")
    target = table_target(arguments.output, arguments.format, _inputs(arguments))
    scored = load_scored(arguments.run_folder)
    checkpoint = load_trained(arguments.run_folder)
    if len(scored.history) != len(checkpoint.position.history):
        raise BadInput(
            f"{arguments.run_folder}: has trained on since it was scored; score it again: "
            f"alc evaluate {arguments.run_folder} --data DIR"
        )
    threshold, origin = _threshold(arguments, scored)
    texts, label_ids = _labels(arguments, scored, checkpoint)
    matcher = Matcher(checkpoint.model, texts, label_ids, threshold, arguments.k)

    notes: list[str] = []
    total = accepted = blank = 0
    with table_writer(target, COLUMNS) as write:
        titles = read_titles(arguments.file, arguments.column, notes=notes)
        for rows in matcher.match(titles):
            for row in rows:
                write(row)
            total += 1
            accepted += rows[0].decision == ACCEPT
            blank += rows[0].score is None
        if not total:
            raise BadInput(f"{arguments.file}: holds no title")
    # The matches may be on standard output: then the summary must not be.
    stream = sys.stderr if arguments.output is None else sys.stdout
    share = f" ({100 * accepted / total:.1f} %)"
    for note in notes:
        print(note, file=sys.stderr)
    print(
        f"{total:,} titles against {len(texts):,} labels: {accepted:,} accepted{share}, "
        f"{total - accepted:,} for review{f', {blank:,} of them blank' if blank else ''}; {origin}",
        file=stream,
    )
    if arguments.output is not None:
        print(f"Written: {arguments.output}")


def _threshold(arguments: argparse.Namespace, scored: Scored) -> tuple[float, str]:
    """The threshold, and where it is from, in words."""
    from alc_kernels.xmc.evaluation.matching import validation_threshold

    if arguments.threshold is not None:
        return arguments.threshold, f"threshold {arguments.threshold:g} as given"
    precision = PRECISION if arguments.precision is None else arguments.precision
    threshold, catalogue = validation_threshold(scored.predictions, precision)
    if not np.isfinite(threshold):
        return threshold, (
            f"no validation score of the {catalogue} catalogue reaches precision {precision:g}, "
            "so nothing is accepted"
        )
    return threshold, (
        f"threshold {threshold:.3f} for precision {precision:g}, chosen on validation "
        f"({catalogue} catalogue)"
    )


def _labels(
    arguments: argparse.Namespace, scored: Scored, checkpoint: Checkpoint
) -> tuple[Sequence[str], np.ndarray | None]:
    """Label texts, and the numbers that the model knows them by (None: all, in order)."""
    from alc_kernels.cli.compare import texts_of
    from alc_kernels.xmc.data.tables import normalize_text
    from alc_kernels.xmc.data.text_lines import iter_lines
    from alc_kernels.xmc.evaluation.label_numbers import by_text_alone, known_labels, numbers_for

    if arguments.catalogue is None or arguments.data is not None:
        dataset, missing = texts_of(scored, arguments.data)
        if dataset is None:
            raise BadInput(f"{missing} Or --catalogue FILE names the labels to match.")
        if arguments.catalogue is None:
            return dataset.labels, numbers_for(checkpoint, dataset)
    lines = iter_lines(arguments.catalogue, what="label texts", allow_unended=True)
    read = [normalize_text(text) for text in lines]
    texts = list(dict.fromkeys(read))
    if len(texts) < len(read):
        print(
            f"{arguments.catalogue}: {len(read) - len(texts):,} labels stand there more than "
            "once, the first one counts",
            file=sys.stderr,
        )
    numbers = known_labels(checkpoint, texts)
    if not by_text_alone(checkpoint.model):
        unseen = int((numbers < 0).sum())
        print(
            f"{arguments.catalogue}: {len(texts) - unseen:,} labels known from training, "
            f"{unseen:,} new",
            file=sys.stderr,
        )
    return texts, numbers


def _inputs(arguments: argparse.Namespace) -> list[Path]:
    """What the command reads, so that it is not written over."""
    given = (Path(arguments.file), arguments.catalogue, arguments.data, arguments.run_folder)
    return [path for path in given if path is not None]
