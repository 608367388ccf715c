"""``alc demo``: the whole story on a generated catalogue, in a few minutes on a laptop."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alc_kernels.trainer.errors import BadInput

if TYPE_CHECKING:
    from alc_kernels.trainer.config import TrainConfig
    from alc_kernels.trainer.data import Dataset
    from alc_kernels.trainer.evaluation import Group
    from alc_kernels.trainer.finish import Evaluation

LOSSES = ("base", "alc")
MARKER = "README.txt"
BEFORE = (
    "Two trainings follow, with the base loss and with ALC, which trains auxiliary parts along:\n"
    "a few minutes on two cores. The figures at the end say what for."
)
_ABOUT = """Written by alc demo, which replaces these files when it is run again.

report.html    open this in a browser
coverage.png   precision against coverage, as a picture
base, alc      the two runs: model, settings, figures, predictions
data           the generated catalogue, as alc train reads it
"""


@dataclass(frozen=True)
class Size:
    """How large a demo is: products, titles, and the settings that differ from the defaults."""

    labels: int
    titles: int
    settings: dict[str, Any]


# Smaller batches and more passes than the defaults: the generated catalogue is small.
FULL = Size(6000, 20000, {"epochs": 12, "batch_size": 512})
SMALL = Size(
    300,
    1500,
    {
        "epochs": 3,
        "batch_size": 128,
        "embedding_dim": 64,
        "hidden_dim": 64,
        "ngram_buckets": 1 << 14,
    },
)


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="see what the losses do, in a few minutes",
        description="Generate a catalogue of product titles, train a small encoder with the base "
        "loss and with ALC, and show how many titles each can match without a person.",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=Path("demo"), help="folder (%(default)s)"
    )
    parser.add_argument("--small", action="store_true", help="a tiny one, to try the command")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from alc_kernels.trainer.config import TrainConfig
    from alc_kernels.trainer.data import generate_catalogue, load_dataset, save_dataset
    from alc_kernels.trainer.finish import Evaluation, require
    from alc_kernels.trainer.report.decision import titles_table
    from alc_kernels.trainer.report.summary import data_line

    for package, name in (("matplotlib", ""), ("sklearn", "scikit-learn"), ("rich", "")):
        require(package, "the demo", name)
    size = SMALL if arguments.small else FULL
    output = arguments.output
    _prepare(output)

    save_dataset(generate_catalogue(size.labels, size.titles), output / "data")
    dataset = load_dataset(output / "data")  # so that the runs know where their data are
    print("A catalogue of products and the titles that merchants give them (generated).")
    print(f"{data_line({'name': dataset.name, 'counts': dataset.counts()})}\n")
    print(titles_table(dataset).text())
    print(f"\n{BEFORE}\n", flush=True)

    evaluation = Evaluation(dataset)
    baseline = evaluation.baseline()
    config = TrainConfig(seed=0, **size.settings)
    groups = [_train(config.replace(loss=loss), evaluation, output / loss) for loss in LOSSES]
    if baseline is not None:
        for loss in LOSSES:  # so that alc compare shows the row as well
            evaluation.save_baseline(baseline, output / loss)
    _show(([baseline] if baseline else []) + groups, dataset, output)


def _prepare(output: Path) -> None:
    """Make room in ``output``; what another demo left there is replaced, nothing else is."""
    if output.exists() and not output.is_dir():
        raise BadInput(f"{output}: is a file, expected a folder for the demo")
    used = output.is_dir() and any(output.iterdir())
    if used and not (output / MARKER).is_file():
        raise BadInput(f"{output}: holds something that is no demo; choose another --output")
    for name in (*LOSSES, "data"):
        if used and (output / name).is_dir():
            shutil.rmtree(output / name)
    output.mkdir(parents=True, exist_ok=True)
    (output / MARKER).write_text(_ABOUT, encoding="utf-8")


def _train(config: TrainConfig, evaluation: Evaluation, folder: Path) -> Group:
    from alc_kernels.cli.train import make_progress
    from alc_kernels.trainer.evaluation import loss_name
    from alc_kernels.trainer.training import train

    name = loss_name(config.loss)
    progress = make_progress(f"Training with {name}")
    trained = train(config, evaluation.dataset, folder, progress=progress)
    return evaluation.run(
        trained.model,
        folder,
        name=name,
        config=dataclasses.asdict(config),
        history=trained.history,
        training_seconds=trained.history[-1]["seconds"],
    )


def _price(groups: list[Group]) -> str:
    """How long the trainings took, and what the longer one gave."""
    from alc_kernels.trainer.report.summary import duration, points

    base, alc = groups
    first, second = (group.runs[0].seconds["training"] for group in groups)
    gain = alc.difference(base)[alc.leading]["coverage_90"]
    return (
        f"Training took {duration(first)} with {base.name} and {duration(second)} with {alc.name}, "
        f"{second / first:.1f} times as long, for {points(gain.value)} points of C@.9. Matching "
        "takes the same time with both: the auxiliary parts are not needed then."
    )


def _show(groups: list[Group], dataset: Dataset, output: Path) -> None:
    from alc_kernels.trainer.evaluation import decision_rules
    from alc_kernels.trainer.report.build import Report
    from alc_kernels.trainer.report.certificates import certificate_table
    from alc_kernels.trainer.report.decision import figures_text
    from alc_kernels.whole import whole_file, write_whole

    print("How many titles can be matched without a person?", flush=True)
    price = _price([group for group in groups if not group.reference])
    groups = decision_rules(groups)
    print(figures_text(groups))
    print(f"\nCertificates\n{certificate_table(groups).text()}")
    print(f"\n{textwrap.fill(price, 100)}")
    print("\nDrawing the report ...", file=sys.stderr)
    report = Report("How many product titles can be matched without a person?", groups, dataset)
    picture, page = output / "coverage.png", output / "report.html"
    with whole_file(picture) as partial:
        report.coverage_figure().savefig(partial, dpi=150, format="png")
    write_whole(page, report.html())
    print(f"\n{textwrap.fill(report.advice(), 100)}")
    print(f"\nThe report: {page}\nThe picture: {picture}")
