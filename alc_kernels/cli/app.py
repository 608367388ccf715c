"""From the words on the command line to a command, and from its errors to an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from alc_kernels.cli import bench, data, demo, judge, train
from alc_kernels.cli.arguments import Parser, one_line
from alc_kernels.cli.matching import export, predict, recertify
from alc_kernels.trainer.errors import BadInput, Interrupted, ProcessFailed, XMCError, missing_text

# What an error's message says where ``torchrun`` started the command several times.


def _count() -> int:
    try:
        return int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 1


def this_rank() -> str:
    """ "rank 1 of 4: ", or nothing for one process alone."""
    return f"rank {os.environ.get('RANK', '?')} of {_count()}: " if _count() > 1 else ""


def is_told_elsewhere(error: BaseException) -> bool:
    """Whether another process reports the same error.

    Once processes have met they agree about it (``told``). Before that they all read the same
    command line, and the first one of each machine speaks.
    """
    if _count() == 1:
        return False
    return bool(getattr(error, "told", os.environ.get("LOCAL_RANK", "0") != "0"))


def tell_torchrun(message: str) -> None:
    """Let torchrun's own report of the failed rank say what the error was."""
    if "TORCHELASTIC_ERROR_FILE" not in os.environ:
        return
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    try:
        raise RuntimeError(message)  # the report shows a traceback: the shortest there is
    except RuntimeError as brief:
        get_error_handler().record_exception(brief)


COMMANDS = {
    "demo": demo.add_command, "train": train.add_command, "evaluate": judge.add_evaluate,
    "predict": predict.add_command, "recertify": recertify.add_command,
    "export": export.add_command, "compare": judge.add_compare,
    "data": data.add_command, "bench": bench.add_command, "info": bench.add_info,
}  # fmt: skip
# Package as it is imported: as it is installed, and the extra that brings it.
EXTRAS = {
    "scipy": ("scipy", "trainer"),
    "sklearn": ("scikit-learn", "trainer"),
    "matplotlib": ("matplotlib", "trainer"),
    "rich": ("rich", "trainer"),
    "jinja2": ("jinja2", "trainer"),
    "safetensors": ("safetensors", "trainer"),
    "tomli": ("tomli", "trainer"),
    "transformers": ("transformers", "transformers"),
    "faiss": ("faiss", "faiss-cpu"),
    "pyarrow": ("pyarrow", "tables"),
    "openpyxl": ("openpyxl", "tables"),
    "zstandard": ("zstandard", "tables"),
    "tensorboard": ("tensorboard", "tensorboard"),
}
BAD_INPUT, INTERNAL, INTERRUPTED = 2, 1, 130


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="alc",
        description="Train, judge and compare models that match titles to a catalogue.",
        epilog="Start with: alc demo",
    )
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    for add in COMMANDS.values():
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 2 for bad input, 130 when interrupted, 1 for an error that is the program's own. Every
        error is one line on stderr; ``--debug`` adds the traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a title may hold what the terminal cannot show
            stream.reconfigure(errors="replace")
    words = list(sys.argv[1:] if argv is None else argv)
    name = "alc"
    if words and words[0] in COMMANDS:
        name = f"alc {words[0]}"
    try:
        if not words:
            raise BadInput("no command given; try: alc --help")
        arguments = build_parser().parse_args(words)
        arguments.run(arguments)
        sys.stdout.flush()
        return 0
    except SystemExit as stop:  # --help
        return int(stop.code or 0)
    except ProcessFailed as error:
        return _fail(name, error, INTERNAL, words)
    except BrokenPipeError:  # the reader of our output went away: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERNAL
    except (Interrupted, KeyboardInterrupt) as error:
        return _fail(name, error, INTERRUPTED, words, str(error) or "interrupted")
    except (BadInput, XMCError) as error:
        return _fail(name, error, BAD_INPUT, words)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            return _internal(name, error, words)
        return _fail(name, error, BAD_INPUT, words, missing_text("this command", *EXTRAS[package]))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(name, error, BAD_INPUT, words, f"{where}{error.strerror or error}")
    except Exception as error:
        return _internal(name, error, words)


def _internal(name: str, error: Exception, words: Sequence[str]) -> int:
    hint = "" if "--debug" in words else "; --debug shows where"
    message = f"internal error, {type(error).__name__}: {error}{hint}"
    return _fail(name, error, INTERNAL, words, message)


def _fail(
    name: str, error: BaseException, code: int, words: Sequence[str], message: str = ""
) -> int:
    """Print ``message`` (the error's text where there is none), once among several processes."""
    message = one_line(message or str(error))
    if "--debug" in words:
        traceback.print_exc()
    tell_torchrun(message)
    if is_told_elsewhere(error):
        return code
    print(f"{name}: {this_rank()}{message}", file=sys.stderr)
    return code
