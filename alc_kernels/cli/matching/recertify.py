"""``alc recertify``: reviewed titles renew a run's acceptance model and certificate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alc_kernels.cli.arguments import number
from alc_kernels.cli.matching.catalogue import add_catalogue_options, read_labels
from alc_kernels.cli.matching.predict import PRECISION
from alc_kernels.cli.matching.tables import add_table_options, table_options
from alc_kernels.trainer.errors import BadInput, counted

if TYPE_CHECKING:
    from alc_kernels.matching import Matcher
    from alc_kernels.matching.decisions import Decisions
    from alc_kernels.trainer.data.tables.table import TableOptions

VERDICTS = {
    "valid": "VALID: nothing speaks against the promise",
    "weakened": "WEAKENED: evidence against the promise; review more of what is accepted",
    "void": "VOID: the promise was broken; what is certified anew rests on titles drawn at random "
    "alone",
    "unwatched": "NOT WATCHED YET",
}


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "recertify",
        help="renew the acceptance model and the certificate from reviewed titles",
        description="Read review files of alc predict with the column decision filled in, keep "
        "each decision once in RUN/decisions.sqlite, and renew the run's acceptance model and "
        "certificate in RUN/recertified, which alc predict then uses. Says whether the promise "
        "given so far is valid, weakened or void, by a bound that holds however often one looks. "
        "Without FILE: renew from the decisions that are kept.",
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder of alc train")
    parser.add_argument(
        "files", metavar="FILE", nargs="*", type=Path, help="reviewed, any kind of table"
    )
    parser.add_argument(
        "--precision",
        type=number(float, 0.01, 0.9999),
        default=PRECISION,
        help=f"promised precision ({PRECISION})",
    )
    add_catalogue_options(parser)
    add_table_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from alc_kernels.matching import Matcher
    from alc_kernels.matching.renewal import decisions_of, renew, save_renewed, watch
    from alc_kernels.matching.run import Run

    for path in arguments.files:
        if not path.exists():
            raise BadInput(f"{path}: no such file")
    found = Run(arguments.run_folder)
    options = table_options(arguments)
    labels = read_labels(arguments, found.scored, found.checkpoint, options)
    dataset = labels.dataset or found.dataset(arguments.data)
    catalogue = labels.catalogue()
    standing = Matcher.of(found.parts(catalogue, dataset)).accepting(arguments.precision)
    kept = decisions_of(arguments.run_folder)
    before = len(kept.all())
    _read(arguments.files, options, standing, kept)
    decisions = kept.all()
    if not decisions:
        raise BadInput(
            f"{arguments.run_folder}: there are no decisions yet; "
            f"alc predict {arguments.run_folder} TITLES --review FILE asks for some"
        )
    watched = watch(decisions, arguments.precision)
    void = watched.void_before or watched.state == "void"
    print(f"{counted(len(decisions), 'decisions')} kept in {kept.path}, {before:,} before")
    print(f"Promise of {100 * arguments.precision:g} %: {VERDICTS[watched.state]}; {watched.told}")
    renewed = renew(found, dataset, catalogue, decisions, alone=void)
    save_renewed(found, renewed)
    found.renewed = renewed
    new = Matcher.of(found.parts(catalogue, dataset)).accepting(arguments.precision)
    _tell(standing, new, renewed.told)
    print(f"Written: {arguments.run_folder / 'recertified'}; alc predict uses it from now on")


def _read(files: Sequence[Path], options: TableOptions, matcher: Matcher, kept: Decisions) -> None:
    """Add the decisions of every file; all files are read before the first is kept."""
    from alc_kernels.matching.review import read_reviewed
    from alc_kernels.trainer.data.tables import open_table

    read = []
    for path in files:
        table = open_table(path, options)
        read.append((path, read_reviewed(table, matcher.label_text)))
    for path, reviewed in read:
        added = kept.add(reviewed.decisions, path.name)
        for note in (*reviewed.notes, *added.changed):
            print(note, file=sys.stderr)
        print(
            f"{path}: {added.new:,} new, {added.again:,} known already, {len(added.changed):,} "
            f"changed, {reviewed.blank:,} without a decision"
        )


def _tell(before: Matcher, after: Matcher, told: str) -> None:
    print(f"Certificate: {told}")
    print(f"Before: {before.rule.told}")
    print(f"Now:    {after.rule.told}")
    for text in after.kind[0]:
        print(f"Warning: {text}")
