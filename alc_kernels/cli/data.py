"""``alc data``: make a data folder, from other layouts or generated, and look at it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alc_kernels.cli.arguments import number
from alc_kernels.cli.data_convert import add_convert
from alc_kernels.cli.data_inspect import add_inspect
from alc_kernels.cli.errors import BadInput
from alc_kernels.cli.folders import refuse_data_folder

if TYPE_CHECKING:
    from alc_kernels.xmc.data import Dataset

NAME = "data"


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        NAME,
        help="make or inspect a data folder",
        description="Make a data folder for alc train, or look at one.",
    )
    kinds = parser.add_subparsers(metavar="KIND", dest="kind")
    add_convert(kinds)
    add_inspect(kinds)

    pricerunner = kinds.add_parser(
        "pricerunner",
        help="from pricerunner_aggregate.csv",
        description="Read PriceRunner's offers (pricerunner_aggregate.csv) into a data folder.",
    )
    pricerunner.add_argument("csv", metavar="CSV", type=Path)
    pricerunner.set_defaults(run=run_pricerunner)

    generate = kinds.add_parser(
        "generate",
        help="generated product titles",
        description="Generate a catalogue of product titles into a data folder.",
    )
    generate.add_argument(
        "--labels", type=number(int, 20), default=6000, help="products (%(default)s)"
    )
    generate.add_argument(
        "--titles", type=number(int, 100), default=20000, help="offers (%(default)s)"
    )
    generate.add_argument("--seed", type=number(int, 0), default=0)
    generate.set_defaults(run=run_generate)

    for kind in (pricerunner, generate):
        kind.add_argument("--output", metavar="DIR", type=Path, required=True)
        kind.add_argument("--overwrite", action="store_true", help="write into a folder in use")
        kind.add_argument(
            "--keep-unmatched",
            action="store_true",
            help="keep training titles all of whose products are held out",
        )
    parser.set_defaults(run=_no_kind)


def _no_kind(arguments: argparse.Namespace) -> None:
    raise BadInput("what kind of data? alc data convert, inspect, pricerunner or generate")


def run_pricerunner(arguments: argparse.Namespace) -> None:
    from alc_kernels.xmc.data import read_pricerunner

    refuse_data_folder(arguments.output, arguments.overwrite)
    _save(read_pricerunner(arguments.csv, keep_unmatched=arguments.keep_unmatched), arguments)


def run_generate(arguments: argparse.Namespace) -> None:
    from alc_kernels.xmc.data import generate_catalogue

    refuse_data_folder(arguments.output, arguments.overwrite)
    dataset = generate_catalogue(
        arguments.labels,
        arguments.titles,
        seed=arguments.seed,
        keep_unmatched=arguments.keep_unmatched,
    )
    _save(dataset, arguments)


def _save(dataset: Dataset, arguments: argparse.Namespace) -> None:
    from alc_kernels.xmc.data import save_dataset
    from alc_kernels.xmc.report.summary import data_line

    save_dataset(dataset, arguments.output)
    print(data_line({"name": dataset.name, "counts": dataset.counts()}))
    print(f"Written: {arguments.output}")
