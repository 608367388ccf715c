"""Commands on the pages: the options exist, the files too, and what is marked runs."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from alc_kernels.cli import main
from alc_kernels.cli.app import build_parser
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.errors import BadInput
from tests.docs.pages import PAGES, ROOT, Block, blocks

WITH_BASH = [page for page in PAGES if blocks(page, "bash")]
RULES = re.findall(r"^([\w-]+(?: [\w-]+)*):", (ROOT / "Makefile").read_text(), re.M)
MAKE_TARGETS = {target for targets in RULES for target in targets.split()}
EXTRAS = set(
    re.findall(
        r"^([\w-]+) = \[",
        (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1],
        re.M,
    )
)


def commands(block: Block) -> list[list[str]]:
    """The words of every command, variables replaced."""
    variables: dict[str, str] = {}
    found = []
    # One command per line; a backslash or an open quote goes on.
    lines = re.findall(r'(?:[^"\n\\]|\\.|"[^"]*"|\\\n)+', block.code.replace("\\\n", " "))
    for line in lines:
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if len(words) == 1 and (match := re.fullmatch(r"(\w+)=(.*)", words[0], re.S)):
            variables[match[1]] = match[2]
            continue
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        found.append(words)
    return found


def check(words: list[str]) -> None:
    """Fail if a command cannot be what its page says it is."""
    match words:
        case ["alc", *rest]:
            check_alc(rest)
        case ["torchrun", *rest]:
            check_torchrun(rest)
        case ["make", *targets]:
            for target in targets:
                assert target in MAKE_TARGETS or re.fullmatch(r"[A-Z_]+=.*", target), target
        case ["pip", "install", *rest]:
            named = re.findall(r"\[(.*?)\]", " ".join(rest))
            assert {extra for text in named for extra in text.split(",")} <= EXTRAS, rest
        case ["python", "-m", module, *rest]:
            check_script(module.replace(".", "/") + ".py", rest)
        case ["python", "train.py"]:
            pass  # the reader's own
        case ["python", script, *rest]:
            check_script(script, rest)
        case [script, *_] if script.endswith(".sh") or script.startswith(".ci/"):
            subprocess.run(["bash", "-n", ROOT / script], check=True)
        case _:
            pytest.fail(f"unknown command: {shlex.join(words)}")


def check_alc(words: list[str]) -> None:
    """Parse, and check the settings' values as ``alc train`` does before it reads data."""
    arguments = build_parser().parse_args(words)
    if words[0] == "train":
        given = {k: v for k, v in vars(arguments).items() if k in TrainConfig.__dataclass_fields__}
        TrainConfig(**{k: v for k, v in given.items() if v is not None})


def check_torchrun(words: list[str]) -> None:
    """What torchrun starts; its own options are left to it."""
    if "..." in words:
        words = [word for word in words if word != "..."]
    start = next((i for i, w in enumerate(words) if w.endswith(".py") or w == "-m"), None)
    assert start is not None, words
    if words[start] == "-m":
        assert words[start + 1] == "alc_kernels", words
        check_alc(words[start + 2 :])
    else:
        check_script(words[start], words[start + 1 :])


def check_script(name: str, words: list[str]) -> None:
    """The script is there, compiles, and knows every option."""
    source = (ROOT / name).read_text(encoding="utf-8")
    ast.parse(source)
    for option in [word for word in words if word.startswith("--")]:
        assert f'"{option}"' in source, f"{name} has no option {option}"


@pytest.mark.parametrize("page", WITH_BASH)
def test_commands_are_right(page: str) -> None:
    for block in blocks(page, "bash"):
        for words in commands(block):
            try:
                check(words)
            except Exception as error:
                raise AssertionError(f"{block.where}: {shlex.join(words)}: {error}") from error


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a parser and of the commands below it."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= set().union(*map(options_of, action.choices.values()))
    return found


def test_options_in_the_text_exist() -> None:
    known = options_of(build_parser()) | {"--no-build-isolation", "--fixed_pos"}  # pip's, ViXML's
    named = 0
    for page in PAGES:
        for option in re.findall(r"`(--[\w-]+)[^`]*`", (ROOT / page).read_text(encoding="utf-8")):
            assert option in known, f"{page}: no command has {option}"
            named += 1
    assert named > 20


@pytest.mark.parametrize(
    "line",
    [
        "alc train --data D --output O --epoch 3",
        "make everything",
        'pip install ".[nothing]"',
        "python experiments/study.py --wrong",
        "python experiments/missing.py",
        "rm -rf /",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises((AssertionError, BadInput, OSError, pytest.fail.Exception)):
        check(shlex.split(line))


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if any(b.run for b in blocks(p, "bash"))])
def test_marked_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block.before + block.code, block.where, "exec"), names)
    for block in [b for b in blocks(page, "bash") if b.run]:
        for words in commands(block):
            assert words[0] == "alc" and main(words[1:]) == 0, f"{block.where}: {words}"
    assert (tmp_path / "matches.csv").read_text().count("\n") >= 3
