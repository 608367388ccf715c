"""``alc data convert``: a data folder from the field's layouts, or from one's own pairs."""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alc_kernels.cli.arguments import number, one_of, options_of, refuse_data_folder
from alc_kernels.cli.matching.tables import add_table_options, table_options
from alc_kernels.trainer.errors import BadInput

if TYPE_CHECKING:
    from alc_kernels.trainer.data import Dataset
    from alc_kernels.trainer.data.convert import ConvertOptions
    from alc_kernels.trainer.data.source import Source
    from alc_kernels.trainer.data.tables import TableOptions

LAYOUTS = ("auto", "json", "raw", "lines", "pairs")
DESCRIPTION = """Convert a data set into a data folder for alc train. SOURCE is a folder in one of
the layouts in use - json: {trn,tst,lbl}.json.gz; raw: {trn,tst,lbl}.raw.txt and {trn,tst}_X_Y.txt;
lines: trn_X.txt, tst_X.txt, Y.txt and {trn,tst}_X_Y.txt or Y.{trn,tst}.npz; each with filter files
if there are any - or a table: CSV and its kin, Parquet (a file or a folder of parts), JSON Lines or
.xlsx. Tables come in three shapes: pairs of a query and a label; queries that name a product's id,
beside a --catalogue; queries and a --catalogue with --matches, a table of pairs of ids."""
# Options of tables -> the other option without which they say nothing.
NEEDS = {
    "id_column": "catalogue",
    "catalogue_id_column": "catalogue",
    "matches": "catalogue",
    "match_columns": "matches",
}


OF_TABLES = (
    "query_column", "label_column", "query_id_column", "label_id_column", "keep_columns",
    "split_column", "split_by", "test_share", "catalogue", *NEEDS,
    "delimiter", "quoting", "no_header", "sheet",
)  # fmt: skip
OF_FOLDERS = ("text", "replace_blank")


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
        help="queries that become validation, by sha1: of all, or of the training queries where "
        "SOURCE has a test split (%(default)s)",
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
    add(
        "--decisions",
        metavar="FILE",
        type=Path,
        help="reviewed titles as further training pairs: RUN/decisions.sqlite of alc recertify, or "
        "a review file",
    )
    _add_shapes(parser)
    add_table_options(parser)
    options = (*OF_TABLES, *OF_FOLDERS, "validation_share", "keep_unmatched")
    plain = {option: parser.get_default(option) for option in options}
    parser.set_defaults(run=run_convert, plain=plain)


def _add_shapes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("tables: columns by name or number").add_argument
    add("--query-column", metavar="NAME", default="query", help="the queries (%(default)s)")
    add(
        "--label-column",
        metavar="NAME",
        default="label",
        help="the labels, in the catalogue where there is one (%(default)s)",
    )
    add("--query-id-column", metavar="NAME", help="ids of the queries, kept to the end")
    add("--label-id-column", metavar="NAME", help="of pairs: ids of the labels, kept to the end")
    add(
        "--keep-columns",
        metavar="A,B",
        type=_names,
        default=(),
        help="further columns of the queries, kept to the end",
    )
    add(
        "--catalogue",
        metavar="FILE",
        type=Path,
        help="a table of products, a row each; those that no query names are candidates too",
    )
    add(
        "--id-column",
        metavar="NAME",
        help="the product's id in SOURCE, empty for none, and in the catalogue; with --matches the "
        "ids of both",
    )
    add("--catalogue-id-column", metavar="NAME", help="the catalogue's ids (--id-column)")
    add("--matches", metavar="FILE", type=Path, help="a table: a query's id and a product's id")
    add(
        "--match-columns",
        metavar="QUERY,PRODUCT",
        type=_names,
        help="its columns, where it has more than these two",
    )
    add = parser.add_argument_group("tables: training, validation and test").add_argument
    add(
        "--split-column",
        metavar="NAME|none",
        default="split",
        help="train, validation or test (%(default)s, where there is such a column)",
    )
    add(
        "--test-share",
        metavar="SHARE",
        type=_share("test"),
        default=0.3,
        help="without that column: queries that become test (%(default)s)",
    )
    add(
        "--split-by",
        metavar="label|query|COLUMN",
        default="auto",
        help="what stays in one part: the queries of a product, equal queries only, or those with "
        "the same value of a column (label where products have several queries)",
    )


def run_convert(arguments: argparse.Namespace) -> None:
    from alc_kernels.trainer.data.convert import ConvertOptions, convert
    from alc_kernels.trainer.report.summary import data_line

    source_path, output = arguments.source, arguments.output
    for path in (source_path, arguments.decisions):
        if path is not None and not path.exists():
            raise BadInput(f"{path}: no such file or folder")
    if output.resolve() == source_path.resolve():
        raise BadInput(f"{output}: is SOURCE itself, expected another folder for --output")
    _refuse_inputs_in(arguments)
    source = _recognise(arguments)
    _refuse_idle(arguments, source)
    refuse_data_folder(output, arguments.overwrite)
    options = options_of(ConvertOptions, arguments)
    if arguments.decisions is None:
        made = convert(source, output, options, overwrite=arguments.overwrite)
        dataset, notes = made.dataset, made.notes
    else:
        dataset, notes = _with_decisions(arguments, source, options)
    for note in notes:
        print(f"  {note}")
    print(data_line({"name": dataset.name, "counts": dataset.counts()}))
    print(f"Written: {output}")


def _with_decisions(
    arguments: argparse.Namespace, source: Source, options: ConvertOptions
) -> tuple[Dataset, list[str]]:
    """Convert beside the output, add the decisions, and write the whole."""
    from alc_kernels.matching.decisions import Decisions, with_decisions
    from alc_kernels.matching.review import read_reviewed
    from alc_kernels.trainer.data import load_dataset, save_dataset
    from alc_kernels.trainer.data.convert import convert
    from alc_kernels.trainer.data.tables import is_table, normalize_text, open_table

    path, output = arguments.decisions, arguments.output
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as beside:
        made = convert(source, Path(beside) / "data", options)
        notes = list(made.notes)
        if is_table(path):
            place = {text: text for text in made.dataset.labels}
            for number, text in enumerate(made.dataset.labels):
                place |= dict.fromkeys(made.dataset.ids_of_label(number), text)
            table = open_table(path)
            decisions = read_reviewed(table, lambda said: place.get(normalize_text(said)))
            found = decisions.decisions
        else:
            found = Decisions(path).all()
        dataset, told = with_decisions(made.dataset, found)
        save_dataset(dataset, output)
    return load_dataset(output), [*notes, *told]


def _refuse_inputs_in(arguments: argparse.Namespace) -> None:
    """The folder that is written must not hold what is read."""
    for path in (
        arguments.source, arguments.catalogue, arguments.matches, arguments.decisions
    ):  # fmt: skip
        if path is not None and arguments.output.resolve() in path.resolve().parents:
            raise BadInput(f"{path}: is in the folder of --output, expected another one")


def _recognise(arguments: argparse.Namespace) -> Source:
    """The source; prints which layout it has."""
    from alc_kernels.trainer.data.layouts import find_source
    from alc_kernels.trainer.data.source import ReadOptions
    from alc_kernels.trainer.data.tables import is_table

    path, layout, table = arguments.source, arguments.layout, table_options(arguments)
    if path.is_file() or (layout in ("auto", "pairs") and is_table(path)):
        if layout not in ("auto", "pairs"):
            raise BadInput(f"{path}: is a file, expected a folder for the layout {layout}")
        for option in _given(arguments, OF_FOLDERS):
            raise BadInput(
                f"{path}: is a table, {_flag(option)} is of the layouts of the field's data sets"
            )
        source = _tables(arguments, table)
        beside = "".join(f", {file.name}" for file in source.files[1:])
        print(f"Layout: {source.layout} ({', '.join(source.columns)} of {path.name}{beside})")
        return source
    _refuse_shapes(arguments)
    if layout == "pairs":
        raise BadInput(f"{path}: is a folder, expected a table of pairs")
    options = options_of(ReadOptions, arguments, encoding=table.encoding)
    source, others = find_source(path, layout, options)
    print(f"Layout: {source.layout} ({', '.join(_short(file, path) for file in source.files)})")
    if others:
        print(f"  also complete: {', '.join(others)} (--layout chooses)")
    if source.unused:
        print(f"  not read: {', '.join(_short(file, path) for file in source.unused)}")
    return source


def _tables(arguments: argparse.Namespace, table: TableOptions) -> Source:
    """The source of one of the shapes of tables."""
    from alc_kernels.trainer.data.shapes import (
        PairOptions,
        ProductTables,
        find_pairs,
        find_products,
    )

    for option, needed in NEEDS.items():
        if getattr(arguments, option) is not None and getattr(arguments, needed) is None:
            raise BadInput(f"{_flag(option)} needs {_flag(needed)}")
    column = "" if arguments.split_column == "none" else arguments.split_column
    options = options_of(PairOptions, arguments, split_column=column)
    if arguments.catalogue is None:
        return find_pairs(arguments.source, options, table)
    if arguments.id_column is None:
        raise BadInput("--catalogue needs --id-column, the column with the products' ids")
    if arguments.label_id_column is not None:
        raise BadInput("--label-id-column is of pairs; --catalogue-id-column names a catalogue's")
    columns = arguments.match_columns
    if columns is not None and len(columns) != 2:
        raise BadInput(f"--match-columns: found {len(columns)} names, expected QUERY,PRODUCT")
    products = options_of(ProductTables, arguments)
    return find_products(arguments.source, products, options, table)


def _given(arguments: argparse.Namespace, options: Iterable[str]) -> list[str]:
    """Those of the options that say something else than nothing."""
    return [name for name in options if getattr(arguments, name) != arguments.plain[name]]


def _refuse_idle(arguments: argparse.Namespace, source: Source) -> None:
    """Refuse options that have no effect with this source."""
    idle = {"validation_share": "has validation queries of its own"}
    if "validation" not in source.parts:
        idle = {}
    if source.columns:
        if source.test_share is None:
            idle["test_share"] = "has test queries of its own"
    elif source.layout != "json":
        idle["text"] = f"is of the layout {source.layout}"
    if not arguments.hold_out_share:
        idle["keep_unmatched"] = "is converted without --hold-out-share"
    for option in _given(arguments, idle):
        raise BadInput(f"{arguments.source}: {idle[option]}: {_flag(option)} has no effect")


def _refuse_shapes(arguments: argparse.Namespace) -> None:
    """Options of tables say nothing of a folder in one of the field's layouts."""
    for option in _given(arguments, OF_TABLES):
        no = option == "quoting" and not arguments.quoting
        flag = "--no-quoting" if no else _flag(option)
        raise BadInput(f"{arguments.source}: is no table that {flag} applies to")


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _names(text: str) -> tuple[str, ...]:
    """Names of columns with commas between them, quoted as in CSV where a name has one."""
    try:
        names = [name for row in csv.reader([text], skipinitialspace=True) for name in row]
    except csv.Error:
        names = []
    if not names or not all(name.strip() for name in names):
        raise argparse.ArgumentTypeError(f"{text!r}: expected names of columns, commas between")
    return tuple(names)


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
    from alc_kernels.trainer.data.dataset import PROPENSITIES

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
