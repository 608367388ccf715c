"""The studies of experiments/ about the acceptance model."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from alc_kernels.cli import main as alc

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


def script(name: str) -> ModuleType:
    known = f"study_{name}"  # not the name of a package
    spec = importlib.util.spec_from_file_location(known, EXPERIMENTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[known] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_draw_of_the_simulation() -> None:
    study = script("acceptance_simulation")
    design = study.Design(150, 2, "logistic")
    made = study.simulate(design, 2)
    assert set(made) == {(way, p) for way in study.WAYS for p in study.PRECISIONS}
    assert made == study.simulate(design, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["logistic", "boosting"])
@pytest.mark.parametrize(("products", "size"), [(600, 1), (300, 5)])
def test_the_promise_is_kept_through_the_chain(kind: str, products: int, size: int) -> None:
    study = script("acceptance_simulation")
    draws = 60
    made = study.simulate(study.Design(products, size, kind), draws)
    broken, coverage, none = made["out of fold", 0.9]
    # 5 % are allowed; with 60 draws 8 are more than chance (binomial, below 2 in 100).
    assert broken * draws < 8
    assert coverage > 0.3 and none < 0.1
    if kind == "boosting":  # what the fold models are for
        assert made["of the refit", 0.9][0] > 0.5


def test_study_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tiny run from training to the table, test included."""
    draw = np.random.default_rng(0)
    names = [f"{kind} {n} {s}gb" for kind in ("nova", "luma") for n in range(20) for s in (64, 128)]
    table = tmp_path / "pairs.csv"
    lines = ["query,label"]
    for number in range(1200):
        name = names[draw.integers(len(names))]
        lines.append(f"{name} {draw.choice(['new', 'black'])} {number},{name}")
    table.write_text("\n".join(lines))
    data, run = str(tmp_path / "data"), str(tmp_path / "run")
    assert alc(["data", "convert", str(table), "--output", data, "--hold-out-share", "0.15"]) == 0
    words = ["train", "--data", data, "--output", run, "--encoder", "ngrams", "--epochs", "1"]
    assert alc([*words, "--batch-size", "64", "--device", "cpu"]) == 0
    capsys.readouterr()
    study = script("acceptance")
    study.main([run])
    seen = capsys.readouterr().out
    assert "boosting" in seen and "certified" not in seen  # test is not read unless asked for
    study.main([run, "--test"])
    seen = capsys.readouterr().out
    for name in ("cosine", "TF-IDF + boosting", "boosting minus cosine", "certified on validation"):
        assert name in seen
