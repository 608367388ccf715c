"""``alc data convert``: a data folder from the field's layouts, or from one's own pairs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alc_kernels.cli.arguments import number, one_of
from alc_kernels.cli.errors import BadInput
from alc_kernels.cli.folders import prepare_data_folder
from alc_kernels.cli.table_options import add_table_options, table_options

if TYPE_CHECKING:
    from alc_kernels.xmc.data.source import Source

LAYOUTS = ("auto", "json", "raw", "lines", "pairs")
DESCRIPTION = """Convert a data set into a data folder for alc train. SOURCE is a folder in one of
the layouts in use - json: {trn,tst,lbl}.json.gz; raw: {trn,tst,lbl}.raw.txt and {trn,tst}_X_Y.txt;
lines: trn_X.txt, tst_X.txt, Y.txt and {trn,tst}_X_Y.txt or Y.{trn,tst}.npz; each with filter files
if there are any - or a table with a query and a label in each row: CSV and its kin, Parquet (a file
or a folder of parts), JSON Lines or .xlsx."""


def add_convert(kinds: Any) -> None:
    parser = kinds.add_parser(
        "convert", help="from the field's layouts, or from a table", description=DESCRIPTION
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", type=Path)
    add("--output", metavar="DIR", type=Path, required=True)
    add("--overwrite", action="store_true", help="write into a folder in use")
    add("--name", default="", help="name of the data set (that of SOURCE)")
    add("--layout", type=one_of(LAYOUTS), default="auto", help=", ".join(LAYOUTS))
    add(
        "--text",
        type=one_of(("title", "title+content")),
        default="title",
        help="json: title, or title+content (%(default)s)",
    )
    add("--replace-blank", metavar="TEXT", type=_text, help="stands for texts that are blank")
    add(
        "--validation-share",
        metavar="SHARE",
        type=_share("validation"),
        default=0.1,
        help="training queries that become validation, by sha1 of the text (%(default)s)",
    )
    add(
        "--hold-out-share",
        metavar="SHARE",
        type=number(float, 0, 0.9),
        default=0.0,
        help="labels held out for an open catalogue, by sha1 of the text (%(default)s)",
    )
    add(
        "--keep-unmatched",
        action="store_true",
        help="keep training queries all of whose labels are held out",
    )
    add(
        "--propensity",
        metavar="amazon|wikipedia|other|A,B",
        type=_propensity,
        help="parameters of PSP@k (by the name of SOURCE)",
    )
    add("--query-column", metavar="NAME", default="query", help="pairs (%(default)s)")
    add("--label-column", metavar="NAME", default="label", help="pairs (%(default)s)")
    add(
        "--split-column",
        metavar="NAME",
        default="split",
        help="pairs: train, validation or test, used where there is one (%(default)s)",
    )
    add(
        "--test-share",
        metavar="SHARE",
        type=_share("test"),
        default=0.3,
        help="pairs without that column: queries that become test (%(default)s)",
    )
    add_table_options(parser)
    parser.set_defaults(run=run_convert)


def run_convert(arguments: argparse.Namespace) -> None:
    from alc_kernels.xmc.data.convert import ConvertOptions, convert
    from alc_kernels.xmc.report.summary import data_line

    source_path, output = arguments.source, arguments.output
    if not source_path.exists():
        raise BadInput(f"{source_path}: no such file or folder")
    if output.resolve() == source_path.resolve():
        raise BadInput(f"{output}: is SOURCE itself, expected another folder for --output")
    source = _recognise(arguments)
    prepare_data_folder(output, arguments.overwrite)
    made = convert(
        source,
        output,
        ConvertOptions(
            name=arguments.name,
            validation_share=arguments.validation_share,
            hold_out_share=arguments.hold_out_share,
            keep_unmatched=arguments.keep_unmatched,
            propensity=arguments.propensity,
        ),
    )
    for note in made.notes:
        print(f"  {note}")
    print(data_line({"name": made.dataset.name, "counts": made.dataset.counts()}))
    print(f"Written: {output}")


def _recognise(arguments: argparse.Namespace) -> Source:
    """The source; prints which layout it has."""
    from alc_kernels.xmc.data.layouts import find_source
    from alc_kernels.xmc.data.pairs import PairOptions, find_pairs
    from alc_kernels.xmc.data.source import ReadOptions
    from alc_kernels.xmc.data.tables import is_table

    path, layout, table = arguments.source, arguments.layout, table_options(arguments)
    if path.is_file() or (layout in ("auto", "pairs") and is_table(path)):
        if layout not in ("auto", "pairs"):
            raise BadInput(f"{path}: is a file, expected a folder for the layout {layout}")
        source = find_pairs(
            path,
            PairOptions(
                arguments.query_column,
                arguments.label_column,
                arguments.split_column,
                arguments.test_share,
            ),
            table,
        )
        print(f"Layout: pairs ({', '.join(source.columns)} of {path.name})")
        return source
    if layout == "pairs":
        raise BadInput(f"{path}: is a folder, expected a table of pairs")
    options = ReadOptions(arguments.text, table.encoding, arguments.replace_blank)
    source, others = find_source(path, layout, options)
    print(f"Layout: {source.layout} ({', '.join(_short(file, path) for file in source.files)})")
    if others:
        print(f"  also complete: {', '.join(others)} (--layout chooses)")
    if source.unused:
        print(f"  not read: {', '.join(_short(file, path) for file in source.unused)}")
    return source


def _short(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _share(what: str) -> Any:
    def convert(text: str) -> float:
        value = number(float, 0, 0.9)(text)
        if value < 0.0001:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a {what} share above 0")
        return value

    return convert


def _text(text: str) -> str:
    if not text.strip() or "\n" in text:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a text that is not blank")
    return text


def _propensity(text: str) -> tuple[float, float]:
    from alc_kernels.xmc.data.dataset import PROPENSITIES

    if text in PROPENSITIES:
        return PROPENSITIES[text]
    a, comma, b = text.partition(",")
    known = ", ".join(PROPENSITIES)
    if not comma:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {known}, and not A,B")
    try:
        made = float(number(float, 0, 100)(a)), float(number(float, 0, 100)(b))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    if not made[1]:
        raise argparse.ArgumentTypeError(f"{text!r}: expected B above 0")
    return made
