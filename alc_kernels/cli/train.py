"""``alc train``: train an encoder, score it, write a report."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from alc_kernels.cli.arguments import number, one_of, prepare_run_folder
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.errors import BadInput
from alc_kernels.trainer.report.summary import duration
from alc_kernels.trainer.training import Progress

if TYPE_CHECKING:
    from alc_kernels.trainer.config import TrainConfig

# Progress of a training run: a bar with time left in a terminal, a line per epoch elsewhere.


class LineProgress(Progress):
    """One line on stderr per epoch."""

    def __init__(self, title: str) -> None:
        self.title = title

    def start(self, *, epochs: int, steps_per_epoch: int, first_step: int = 0) -> None:
        self.epochs, self.steps = epochs, epochs * steps_per_epoch
        self.done = self.first = first_step
        self.began = time.perf_counter()

    def step(self, *, step: int, epoch: int, loss: float) -> None:
        self.done = step

    def epoch(self, record: Mapping[str, float]) -> None:
        spent = time.perf_counter() - self.began
        left = spent * (self.steps - self.done) / max(1, self.done - self.first)
        print(
            f"{self.title}: epoch {record['epoch']:.0f} of {self.epochs}, "
            f"{epoch_text(record)}, {duration(spent)}, {duration(left)} left",
            file=sys.stderr,
            flush=True,
        )


class BarProgress(Progress):
    """A rich progress bar on stderr: steps, loss, what validation said, time left."""

    def __init__(self, title: str, console: Any) -> None:
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.title = title
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self.validation = ""

    def start(self, *, epochs: int, steps_per_epoch: int, first_step: int = 0) -> None:
        total = epochs * steps_per_epoch
        self.task = self.bar.add_task(self.title, total=total, completed=first_step, state="")
        self.bar.start()

    def step(self, *, step: int, epoch: int, loss: float) -> None:
        state = ", ".join(part for part in (f"loss {loss:.3f}", self.validation) if part)
        self.bar.update(self.task, completed=step, state=state)

    def epoch(self, record: Mapping[str, float]) -> None:
        self.validation = validation_text(record)
        self.bar.update(self.task, state=epoch_text(record))

    def finish(self) -> None:
        self.bar.stop()


def validation_text(record: Mapping[str, float]) -> str:
    """What validation said after the epoch, if it was asked."""
    if "validation_coverage_90" not in record:
        return ""
    return f"validation C@.9 {100 * record['validation_coverage_90']:.1f} %"


def epoch_text(record: Mapping[str, float]) -> str:
    """Loss and validation of an epoch."""
    return ", ".join(
        part for part in (f"loss {record['loss']:.3f}", validation_text(record)) if part
    )


def make_progress(title: str) -> Progress:
    """A bar where stderr is a terminal and rich is installed, lines otherwise."""
    if sys.stderr.isatty():
        try:
            from rich.console import Console
        except ImportError:
            return LineProgress(title)
        return BarProgress(title, Console(stderr=True))
    return LineProgress(title)


def add_command(commands: Any) -> None:
    from alc_kernels.trainer.config import TrainConfig

    parser = commands.add_parser(
        "train",
        help="train an encoder on a data folder and report",
        description="Train an encoder on a data folder, score it against the open and the closed "
        "catalogue and write RUN/metrics.json, config.toml, checkpoint, predictions.npz and "
        "report.html. Under torchrun several processes train one model: "
        "torchrun --nproc-per-node 8 -m alc_kernels train ...",
    )
    parser.add_argument("--data", metavar="DIR", type=Path, help="folder of alc data")
    parser.add_argument("--output", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument("--overwrite", action="store_true", help="replace a run in that folder")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the interrupted run in that folder; a larger --epochs extends it, also "
        "where it had finished",
    )
    parser.add_argument(
        "--from-previous",
        action="store_true",
        help="with --resume: continue from the checkpoint before the last, which is given up",
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="settings as TOML; options go before it"
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print all settings as TOML, with the defaults of --method, and stop",
    )
    groups: dict[str, Any] = {}
    types = get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        heading = f"settings: {field.metadata['group']}"
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        _add_setting(groups[heading], field, types[field.name])
    parser.set_defaults(run=run)


def _add_setting(group: Any, field: dataclasses.Field[Any], kind: type) -> None:
    option = f"--{field.name.replace('_', '-')}"
    text = field.metadata["help"].replace("%", "%%")
    common: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
    if kind is bool:
        group.add_argument(option, action=argparse.BooleanOptionalAction, help=text, **common)
        return
    choices = field.metadata["choices"]
    if choices:
        text = f"{text}: {', '.join(choices)}"
    reader = one_of(choices) if choices else str if kind is str else number(kind)
    group.add_argument(
        option,
        type=reader,
        metavar=kind.__name__.upper(),
        help=f"{text} ({field.default})",
        **common,
    )


def run(arguments: argparse.Namespace) -> None:
    if arguments.print_config:
        print(_config(arguments).to_toml(), end="")
        return
    for option in ("data", "output"):
        if getattr(arguments, option) is None:
            raise BadInput(f"--{option} is missing; see alc train --help")
    if arguments.output.resolve() == arguments.data.resolve():
        raise BadInput(f"{arguments.output}: is the data folder, expected another for the run")
    if arguments.resume and arguments.overwrite:
        raise BadInput("--resume and --overwrite exclude each other")
    if arguments.from_previous and not arguments.resume:
        raise BadInput("--from-previous needs --resume")
    _train(_config(arguments), arguments)


def _config(arguments: argparse.Namespace, titles: int | None = None) -> TrainConfig:
    """Defaults, then the file (of the run itself when it is resumed), then the options.

    Defaults of few titles are taken where there are so few to train on.
    """
    from alc_kernels.trainer.config import BEFORE, TrainConfig, without_effect
    from alc_kernels.trainer.evaluation.results import CONFIG

    source, missing = arguments.config, None
    if source is None and arguments.resume and arguments.output is not None:
        source, missing = arguments.output / CONFIG, BEFORE
        if not source.is_file():
            raise BadInput(f"{arguments.output}: holds no run to resume")
    given = vars(arguments)
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    options = {name: given[name] for name in names if name in given}
    if source is None:
        config = TrainConfig.resolve(options, titles)
    else:
        config = TrainConfig.from_toml(source, missing, titles, **options)
    for name, needed in without_effect(config, options).items():
        raise BadInput(
            f"--{name.replace('_', '-')} has no effect with method {config.method}, loss "
            f"{config.loss} and encoder {config.encoder}: it takes {needed}"
        )
    return config


def _train(config: TrainConfig, arguments: argparse.Namespace) -> None:
    from alc_kernels.trainer.data import load_dataset
    from alc_kernels.trainer.data.inspect import small_parts
    from alc_kernels.trainer.evaluation import validation_check
    from alc_kernels.trainer.evaluation.comparison import loss_name, method_name
    from alc_kernels.trainer.finish import evaluate_and_report
    from alc_kernels.trainer.parallel import join
    from alc_kernels.trainer.report.summary import data_line
    from alc_kernels.trainer.training import train

    output = arguments.output
    with join(config.device, config.process_timeout) as processes:
        dataset = load_dataset(arguments.data)
        if arguments.resume:
            processes.on_main(lambda: _check_resumable(output))
        else:
            processes.on_main(lambda: prepare_run_folder(output, arguments.overwrite))
        if processes.is_main:
            print(data_line({"name": dataset.name, "counts": dataset.counts()}), flush=True)
            for sentence in small_parts(dataset):
                print(sentence, file=sys.stderr)
        titles = int((~dataset.train.unmatched).sum())
        plain, config = config, _config(arguments, titles)
        if processes.is_main and config != plain:
            print(_few_titles(titles), file=sys.stderr)
        check = validation_check(dataset, processes=processes, label_shards=config.label_shards)
        trained = train(
            config,
            dataset,
            output,
            progress=make_progress(f"{method_name(config.method)} {loss_name(config.loss)}"),
            evaluate=check if config.evaluate_every else None,
            resume=arguments.resume,
            from_previous=arguments.from_previous,
            processes=processes,
        )
        if processes.is_main and trained.best_epoch is not None:
            best = f"weights of epoch {trained.best_epoch}" if trained.best_epoch else "start"
            print(f"{len(trained.history)} epochs trained; the {best} did best")
        evaluate_and_report(
            trained.model,
            config,
            dataset,
            output,
            history=trained.history,
            training_seconds=trained.history[-1]["seconds"],
            processes=processes,
        )


def _few_titles(titles: int) -> str:
    """A notice that other defaults hold."""
    from alc_kernels.trainer.config import FEW_TITLES, FEW_TITLES_DEFAULTS

    taken = " ".join(
        f"--{name.replace('_', '-')} {value}" for name, value in FEW_TITLES_DEFAULTS.items()
    )
    return (
        f"{titles:,} titles to train on, fewer than {FEW_TITLES:,}: where they are not named, the "
        f"defaults are {taken}"
    )


def _check_resumable(output: Path) -> None:
    """Say what to do about a run that was killed before it wrote a checkpoint."""
    from alc_kernels.trainer.training.checkpoint import CURRENT, PREVIOUS

    if not any((output / name).is_dir() for name in (CURRENT, PREVIOUS)):
        raise BadInput(
            f"{output}: its run ended before the first checkpoint; start again with --overwrite"
        )
