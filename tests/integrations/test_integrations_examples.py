"""The examples run as they stand, made small."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SMALL = ["--labels", "60", "--titles", "240", "--batch-size", "48"]


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for module in ("titles", name):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return importlib.import_module(name)


def test_lightning(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lightning")
    example = load("lightning_train", monkeypatch)
    first = example.main([*SMALL, "--epochs", "1"])
    last = example.main([*SMALL, "--epochs", "6"])
    assert last["loss"] < first["loss"] - 0.1
    assert 0 <= last["coverage@0.9"] <= 1
    assert "coverage@0.9" in capsys.readouterr().out


@pytest.fixture
def new_accelerate_state() -> Iterator[None]:
    """Accelerate keeps one state per process; mixed precision must not leak into other tests."""
    state = pytest.importorskip("accelerate").state.AcceleratorState
    state._reset_state(True)
    yield
    state._reset_state(True)


def test_accelerate(monkeypatch: pytest.MonkeyPatch, new_accelerate_state: None) -> None:
    example = load("accelerate_train", monkeypatch)
    first = example.main([*SMALL, "--epochs", "1"])
    last = example.main([*SMALL, "--epochs", "6"])
    assert last["loss"] < first["loss"] - 0.1
    example.Accelerator().state._reset_state(True)
    mixed = [*SMALL, "--epochs", "6", "--accumulate", "2", "--mixed-precision", "bf16"]
    assert example.main(mixed)["loss"] < first["loss"]


def test_table_of_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    example = load("sentence_transformers_compare", monkeypatch)
    runs = [
        {"seconds per step": s, "CPU seconds per step": 1.0, "MiB": 5.0, "coverage@0.9": c}
        for s, c in ((1.0, 0.25), (9.0, 0.75), (2.0, 0.5))
    ]
    assert example.table({"a": runs, "b": runs[:1]}).splitlines()[2:] == [
        "| a | 2.000 | 1.000 | 5 | 0.500 (0.250, 0.750, 0.500) |",
        "| b | 1.000 | 1.000 | 5 | 0.250 |",
    ]


@pytest.mark.slow
def test_comparison(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sentence_transformers")
    example = load("sentence_transformers_compare", monkeypatch)
    output = tmp_path / "table.md"
    names = ["MNRL", "cached softmax + ALC + TCM"]
    sizes = ["--labels", "60", "--titles", "240", "--batch-size", "48", "--epochs", "2"]
    example.main([*sizes, "--output", str(output), "--losses", *names])
    rows = output.read_text().splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in names]
    for row in rows:
        numbers = [float(cell) for cell in row.strip("| ").split(" | ")[1:]]
        assert len(numbers) == 7 and 0 < numbers[3] <= 1 and numbers[0] > 0
    with pytest.raises(SystemExit):
        example.main(["--losses", "unknown"])
    assert "--losses unknown: expected MNRL" in capsys.readouterr().err


def test_listed_examples_exist() -> None:
    listed = re.findall(r"^\| `(\w+\.py)`", (EXAMPLES / "README.md").read_text(), re.M)
    assert len(listed) >= 3
    for name in listed:
        assert (EXAMPLES / name).is_file(), name
