"""``alc predict``: new titles to labels, each accepted, for review, or new."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alc_kernels.cli.arguments import FORMATS, number, one_of, table_target
from alc_kernels.cli.matching.catalogue import Labels, add_catalogue_options, read_labels
from alc_kernels.cli.matching.titles import Title, Titles, add_title_options
from alc_kernels.trainer.errors import BadInput, counted

if TYPE_CHECKING:
    from alc_kernels.cli.matching.tables import Row
    from alc_kernels.matching import Match, Matcher, Matches
    from alc_kernels.matching.review import Picker
    from alc_kernels.trainer.evaluation import Scored

PRECISION = 0.9
ONE_TO_ONE = 5  # labels of a title to choose among, at least


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="match new titles: label, score, accept or review",
        description="Find the best label of every title in FILE and write, for each, query, rank, "
        "label, score and decision, with ids and further columns where there are some: accept "
        "where the best score reaches the threshold, else review. The threshold is the lowest that "
        "is certified: with 95 %% confidence at least so many of the accepted are right, by the "
        "run's validation titles (open catalogue where there is one). Nothing certifiable: nothing "
        "is accepted.",
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder of alc train")
    add_title_options(parser)
    add_catalogue_options(parser)
    _add_decisions(parser)
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


def _add_decisions(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what is accepted").add_argument
    add(
        "--precision",
        type=number(float, 0.01, 0.9999),
        help=f"certified precision wanted of what is accepted ({PRECISION})",
    )
    add("--threshold", type=number(float, -1e9, 1e9), help="accept from this score instead")
    cost = number(float, 1e-9, 1e9)
    add("--cost-wrong", metavar="COST", type=cost, help="of a wrong match that is accepted; with")
    add("--cost-review", metavar="COST", type=cost, help="of a review: accept where it costs least")
    add(
        "--new",
        metavar="SHARE",
        type=number(float, 0.001, 0.5),
        help="call new what scores so low that, certified, at most SHARE of it has a label",
    )
    add("--one-to-one", action="store_true", help="each label for one title at most")
    add = parser.add_argument_group("what a person should look at").add_argument
    add(
        "--review",
        metavar="FILE",
        type=Path,
        help="also write the titles to decide about, best first, for alc recertify",
    )
    add("--review-size", metavar="N", type=number(int, 4), help="titles in it (200)")


def run(arguments: argparse.Namespace) -> None:
    from alc_kernels.matching import Matcher
    from alc_kernels.matching.run import Run

    _check(arguments)
    titles = Titles(arguments)
    found = Run(arguments.run_folder)
    inputs = _inputs(arguments, found.scored)
    target = table_target(arguments.output, arguments.format, inputs)
    review = None
    if arguments.review is not None:
        review = table_target(arguments.review, None, inputs)
        if (
            arguments.output is not None
            and arguments.review.resolve() == arguments.output.resolve()
        ):
            raise BadInput(f"{arguments.review}: is the file of --output, expected another one")
    codes = dict(zip(titles.kinds, titles.codes, strict=True))
    options = titles.options_for(arguments.catalogue)
    labels = read_labels(arguments, found.scored, found.checkpoint, options, codes)
    matcher = Matcher.of(found.parts(labels.catalogue(), labels.dataset))
    matcher = matcher.accepting(
        arguments.precision, threshold=arguments.threshold, cost=_cost(arguments),
        new=arguments.new,
    )  # fmt: skip
    picker = _picker(arguments, matcher)
    counts, best = _write(arguments, titles, labels, matcher, target, picker)
    for note in (*titles.notes, *labels.notes, *matcher.notes):
        print(note, file=sys.stderr)
    lines = [
        _counts(counts),
        f"Catalogue: {labels.told}{_beyond(arguments, found.scored, matcher)}",
        f"Threshold: {_threshold(arguments, found.scored, matcher)}",
    ]
    if arguments.new is not None:
        lines.append(f"New: {matcher.rule.told_new}")
    lines += [f"Warning: {text}" for text in (*matcher.kind[0], *matcher.evidence.unusual(best))]
    # The matches may be on standard output: then the summary must not be.
    print(*lines, sep="\n", file=sys.stderr if arguments.output is None else sys.stdout)
    if arguments.output is not None:
        print(f"Written: {arguments.output}")
    if picker is not None and review is not None:
        _write_review(picker, titles, matcher, review, arguments)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.precision is not None and arguments.threshold is not None:
        raise BadInput("--precision and --threshold exclude each other")
    wrong, review = arguments.cost_wrong, arguments.cost_review
    if (wrong is None) != (review is None):
        raise BadInput("--cost-wrong and --cost-review: expected both, or neither")
    if wrong is not None and (arguments.precision or arguments.threshold) is not None:
        raise BadInput("--cost-wrong chooses the threshold: leave --precision and --threshold")
    if arguments.review_size is not None and arguments.review is None:
        raise BadInput("--review-size needs --review FILE")
    if arguments.one_to_one and arguments.review is not None:
        raise BadInput(
            "--one-to-one and --review exclude each other: a review is of each title's best label"
        )


def _cost(arguments: argparse.Namespace) -> tuple[float, float] | None:
    if arguments.cost_wrong is None:
        return None
    return arguments.cost_wrong, arguments.cost_review


def _write(
    arguments: argparse.Namespace,
    titles: Titles,
    labels: Labels,
    matcher: Matcher,
    target: Any,
    picker: Picker | None,
) -> tuple[Counter[str], dict[str, np.ndarray]]:
    """Write all matches; how many titles were decided how, and their best labels' numbers."""
    from alc_kernels.cli.matching.tables import table_writer

    counts: Counter[str] = Counter()
    seen: dict[str, list[np.ndarray]] = {}
    with table_writer(target, columns(titles, labels, matcher)) as write:
        for part, table in _matched(arguments, titles, matcher, picker):
            for title, (_, rows) in zip(part, table, strict=True):
                counts["titles"] += 1
                counts[rows[0].decision] += 1
                counts["blank"] += rows[0].label < 0
                for match in rows[: arguments.k]:
                    write(_row(title, match, titles, labels, matcher))
            for name, values in matcher.numbers(table.best()).items():
                seen.setdefault(name, []).append(values)
        if not counts["titles"]:
            raise BadInput(f"{arguments.file}: holds no title")
    return counts, {name: np.concatenate(values) for name, values in seen.items()}


def _matched(
    arguments: argparse.Namespace, titles: Titles, matcher: Matcher, picker: Picker | None
) -> Iterator[tuple[list[Title], Matches]]:
    """Titles and their matches, a part at a time; all at once where they depend on each other."""
    from alc_kernels.matching import Matches
    from alc_kernels.matching.matcher import TITLES_PER_PASS
    from alc_kernels.matching.review import CANDIDATES

    k = arguments.k
    if picker is not None:
        k = max(k, CANDIDATES)
    if arguments.one_to_one:
        k = max(k, ONE_TO_ONE)
    rest = iter(titles)
    every: list[Title] = []
    tables = []
    while part := list(islice(rest, TITLES_PER_PASS)):
        codes = {kind: [one.codes[at] for one in part] for at, kind in enumerate(titles.kinds)}
        (table,) = matcher.batches([one.text for one in part], k, codes=codes)
        if picker is not None:
            picker.add(table, part)
        if not arguments.one_to_one:
            yield part, table
            continue
        every += part
        tables.append(table)
    if tables:
        yield every, matcher.one_to_one(Matches.joined(tables))


def columns(titles: Titles, labels: Labels, matcher: Matcher) -> dict[str, type]:
    """The columns of the output, in order; docs/predict.md says what each holds."""
    made: dict[str, type] = {"query_id": str} if titles.has_ids else {}
    made |= {"query": str, "rank": int}
    if labels.ids is not None:
        made["label_id"] = str
    made |= {"label": str, "score": float}
    if matcher.evidence.probabilities:
        made["cosine"] = float
    made["decision"] = str
    for name in titles.kept:
        while name in made:
            name = f"input_{name}"
        made[name] = str
    return made


def _row(title: Title, match: Match, titles: Titles, labels: Labels, matcher: Matcher) -> Row:
    cells: list[Any] = [title.id] if titles.has_ids else []
    cells += [title.given, match.rank]
    if labels.ids is not None:
        cells.append(match.label_id)
    cells.append(match.text)
    numbers = [match.cosine]
    if matcher.evidence.probabilities:
        numbers.insert(0, match.probability)
    cells += [None if value != value else value for value in numbers]  # NaN is no number
    return [*cells, match.decision, *title.kept]


def _counts(counts: Counter[str]) -> str:
    total, blank = counts["titles"], counts["blank"]
    new = f", {counts['new']:,} new" if counts["new"] else ""
    rest = total - counts["accept"] - counts["new"]
    return (
        f"{counted(total, 'titles')}: {counts['accept']:,} accepted "
        f"({100 * counts['accept'] / total:.1f} %), {rest:,} for review"
        f"{f', {blank:,} of them blank' if blank else ''}{new}"
    )


def _picker(arguments: argparse.Namespace, matcher: Matcher) -> Picker | None:
    from alc_kernels.matching.renewal import decisions_of
    from alc_kernels.matching.review import SIZE, Picker

    if arguments.review is None:
        return None
    decided = [one.title for one in decisions_of(arguments.run_folder).all()]
    return Picker(matcher, arguments.review_size or SIZE, decided)


def _write_review(
    picker: Picker, titles: Titles, matcher: Matcher, target: Any, arguments: argparse.Namespace
) -> None:
    from alc_kernels.cli.matching.tables import table_writer
    from alc_kernels.matching import review

    chosen = picker.chosen()
    with table_writer(target, review.columns(titles.has_ids, matcher)) as write:
        for asked, cells in zip(chosen, review.rows(chosen, matcher), strict=True):
            ids = [asked.beside.id] if titles.has_ids else []
            write([*ids, asked.beside.given, *cells])
    drawn = sum(asked.why == review.AT_RANDOM for asked in chosen)
    print(
        f"To review: {counted(len(chosen), 'titles')} in {arguments.review}, {drawn} of them drawn "
        f"at random. Fill the column decision, then: alc recertify {arguments.run_folder} "
        f"{arguments.review}",
        file=sys.stderr if arguments.output is None else sys.stdout,
    )


def _threshold(arguments: argparse.Namespace, scored: Scored, matcher: Matcher) -> str:
    """The threshold, and where it is from, in words."""
    from alc_kernels.trainer.evaluation.predictions import leading_catalogue
    from alc_kernels.trainer.report.summary import titles_text

    told = matcher.rule.told
    if arguments.threshold is not None:
        return told + _outside(arguments, matcher)
    if not np.isfinite(matcher.rule.accept):
        told += ": nothing is accepted" * ("nothing is accepted" not in told)
        if arguments.review is None:
            told += " (--review FILE asks for what is missing, --threshold needs no promise)"
    if matcher.evidence.renewed:
        return told
    name = leading_catalogue(scored.predictions)
    found = scored.predictions[name]["validation"]
    where = f"against the {name} catalogue of {counted(_size(scored, name), 'labels')}"
    if missing := int((~found.answerable).sum()):
        where += f", which has no right one for {missing:,} of them"
    return f"{told}; by {titles_text(len(found))} {where}"


def _outside(arguments: argparse.Namespace, matcher: Matcher) -> str:
    """What a threshold does that no score is on the other side of."""
    low, what = (0, "probabilities") if matcher.evidence.probabilities else (-1, "cosines")
    if arguments.threshold > 1:
        return f", above every score (they are {what}, at most 1): nothing is accepted"
    if arguments.threshold < low:
        return f", below every score (they are {what}, at least {low}): all but blanks are accepted"
    return ""


def _beyond(arguments: argparse.Namespace, scored: Scored, matcher: Matcher) -> str:
    """How the catalogue differs from the one that the threshold was chosen on, in words."""
    from alc_kernels.trainer.evaluation.predictions import leading_catalogue

    threshold = np.float32(matcher.rule.accept)
    if arguments.threshold is not None or not np.isfinite(threshold) or matcher.evidence.renewed:
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
    against_all = (scored.accepted or scored.predictions)["closed"]["validation"]
    taken = against_all.scores[:, 0] >= threshold
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
