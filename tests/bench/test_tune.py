"""Tuned tiles: what may be chosen, the file, and that a bad file is refused."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from alc_kernels import functional
from alc_kernels.backends.triton import launch as config
from alc_kernels.backends.triton import launch as tuned
from alc_kernels.backends.triton.launch import Tile, all_tiles
from alc_kernels.bench import tune
from alc_kernels.cli import main
from alc_kernels.cli.bench import KERNELS, tune_all

CPU = torch.device("cpu")
FIRST, OTHER = Tile(32, 32, 32, 4, 2), Tile(16, 32, 32, 4, 2)
KEY = ("maximum", "float32", "ieee", 24)

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="times by the interpreter")


@pytest.fixture(autouse=True)
def _no_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tuned.SWITCH, raising=False)
    tuned._table.cache_clear()


def measured(kernel: str, tiles: list[Tile], dtype: torch.dtype = torch.float32) -> list[tune.Row]:
    return tune.tune(kernel, dtype, 24, 20, device="cpu", tiles=tiles, rounds=(1, 0), sets=1)


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "SMALL", (17, 30))
    # Lists as long as on a GPU take minutes in the interpreter.
    monkeypatch.setattr(tune, "TOP", {"maximum": 1, "list": 2, "long": 33})


@pytest.mark.parametrize(
    "kernel",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "long")) for name in tuned.KERNELS],
)
def test_every_kernel_is_reached_and_right(kernel: str, few_rows: None) -> None:
    rows = measured(kernel, [FIRST, OTHER])
    assert [row.tile for row in rows] == [FIRST, OTHER]
    assert all(row.problem is None and row.milliseconds > 0 for row in rows)
    assert "the table's" in "\n".join(tune.lines(rows))


@pytest.mark.parametrize("kernel", ["sums", "coefficients", "exponentials"])
def test_half_precision_is_right(kernel: str, few_rows: None) -> None:
    assert measured(kernel, [FIRST], torch.bfloat16)[0].problem is None


def spoil(monkeypatch: pytest.MonkeyPatch, wrong: Tile) -> None:
    """Let ``wrong`` give another log-sum-exp."""
    walk = tune._walk

    def spoiled(kernel, backend, problem):
        found = walk(kernel, backend, problem)
        if tuned._forced.get(kernel) == wrong:
            return {name: 1.001 * value for name, value in found.items()}
        return found

    monkeypatch.setattr(tune, "_walk", spoiled)


def test_a_wrong_tile_is_never_timed(monkeypatch: pytest.MonkeyPatch, few_rows: None) -> None:
    spoil(monkeypatch, OTHER)
    row = measured("sums", [FIRST, OTHER])[1]
    assert row.problem.startswith("wrong: error") and row.milliseconds is None
    spoil(monkeypatch, FIRST)
    with pytest.raises(ValueError, match="sums: the table's 32x32x32-4w2s: wrong: error"):
        measured("sums", [FIRST])


def test_what_does_not_run_is_told(few_rows: None) -> None:
    row = measured("maximum", [FIRST, replace(FIRST, depth=24)])[1]  # no power of two
    assert row.problem.startswith("does not run: ")


def test_only_a_clear_gain_is_taken() -> None:
    base = tune.Row(FIRST, 1.0, 0.1)
    assert tune.best([base, tune.Row(OTHER, 0.99, 0.1)]) is None
    assert tune.best([base, tune.Row(OTHER, problem="wrong")]) is None
    assert tune.best([base, tune.Row(OTHER, 0.9, 0.1)]) == OTHER


@pytest.mark.parametrize("kernel", tuned.KERNELS)
def test_candidates_are_few_distinct_and_allowed(kernel: str) -> None:
    for d, size in ((128, 2), (768, 2), (768, 4)):
        dtype = torch.bfloat16 if size == 2 else torch.float32
        start = tune.table_tile(kernel, dtype, d, CPU)
        made = tune.candidates(kernel, start, size)
        assert made[0] == start and len(set(made)) == len(made) and 3 <= len(made) <= 40
        for tile in made:
            tuned.check_tile(kernel, tile)


def test_every_tile_of_the_tables_may_be_written() -> None:
    assert KERNELS == tuned.KERNELS
    for tile in all_tiles():
        tuned.check_tile("maximum", tile)


def test_off_by_default_and_for_no_other_width(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "tiles.json"
    tuned.write(path, CPU, {KEY: OTHER})
    queries = torch.zeros(5, 24)
    assert tuned.choose("maximum", queries, "ieee", FIRST) == FIRST
    monkeypatch.setenv(tuned.SWITCH, str(path))
    for rows in (5, 4, 1):  # the batch decides nothing
        assert tuned.choose("maximum", queries[:rows], "ieee", FIRST) == OTHER
    assert tuned.choose("sums", queries, "ieee", FIRST) == FIRST
    assert tuned.choose("maximum", queries, "tf32", FIRST) == FIRST
    assert tuned.choose("maximum", queries.half(), "tf32", FIRST) == FIRST
    assert tuned.choose("maximum", torch.zeros(5, 25), "ieee", FIRST) == FIRST
    with config.override_tile(FIRST):
        assert tuned.choose("maximum", queries, "ieee", FIRST) == FIRST
    monkeypatch.setenv(tuned.SWITCH, "0")
    assert tuned.choose("maximum", queries, "ieee", FIRST) == FIRST


def test_a_user_gets_the_tuned_tile_and_the_same_values(tmp_path: Path, monkeypatch) -> None:
    pair = [torch.randn(20, 24, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    before = functional.hardest_negatives(*pair, k=1, backend="triton")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tuned.write(tuned.default_path(CPU), CPU, {KEY: Tile(16, 32, 16, 4, 2)})
    monkeypatch.setenv(tuned.SWITCH, "1")
    seen = []
    plain = tuned.choose
    monkeypatch.setattr(tuned, "choose", lambda *a: seen.append(plain(*a)) or seen[-1])
    after = functional.hardest_negatives(*pair, k=1, backend="triton")
    assert Tile(16, 32, 16, 4, 2) in seen
    assert torch.equal(before[1], after[1]) and torch.allclose(before[0], after[0])


def damage(path: Path, how: str) -> None:
    content = json.loads(path.read_text())
    if how in content["made_with"]:
        content["made_with"][how] = "else"
    elif how == "format":
        content["format"] = 0
    elif how == "kernel":
        content["tiles"][0]["kernel"] = "none"
    elif how == "tile":
        content["tiles"][0]["tile"]["rows"] = 48
    elif how == "chunked":
        content["tiles"][0].update(kernel="coefficients", tile=asdict(Tile(128, 256, 64, 8, 3)))
    elif how == "field":
        content["tiles"][0]["tile"]["ways"] = 1
    path.write_text(json.dumps(content)[: 40 if how == "cut" else None])


@pytest.mark.parametrize(
    ("how", "message"),
    [("cut", "JSONDecodeError"), ("format", "format 0"), ("kernel", "'none'"),
     ("tile", "rows = 48"), ("chunked", "cols = 256"), ("field", "ways"),
     ("device", "device 'else'"), ("capability", "capability 'else'"), ("torch", "torch 'else'"),
     ("triton", "triton 'else'"), ("alc_kernels", "alc_kernels 'else'")],
)  # fmt: skip
def test_a_stale_or_damaged_file_is_refused(how, message, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "tiles.json"
    tuned.write(path, CPU, {KEY: OTHER})
    damage(path, how)
    monkeypatch.setenv(tuned.SWITCH, str(path))
    with pytest.raises(ValueError, match=message) as caught:
        tuned.choose("maximum", torch.zeros(5, 24), "ieee", FIRST)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text and "alc bench tune" in text


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(tuned.SWITCH, str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match="no table of tuned tiles"):
        tuned.choose("maximum", torch.zeros(5, 24), "ieee", FIRST)


def test_command_line(tmp_path: Path, monkeypatch, capsys, few_rows: None) -> None:
    out = tmp_path / "tiles.json"
    assert main(["bench", "tune", "--output", str(out)]) == 2
    assert "needs a GPU" in capsys.readouterr().err and not out.exists()
    monkeypatch.setattr(tune, "candidates", lambda kernel, start, size: [FIRST, OTHER])
    words = Namespace(
        width=[24], dtype=["float32"], kernel=["maximum"], rows=40, seconds=0.0, output=out
    )
    tune_all(words, "cpu")
    assert str(out) in capsys.readouterr().out
    assert tuned.read(out, CPU).keys() == {KEY}
    assert main(["info"]) == 0
    assert "the tables' (ALC_KERNELS_TUNED is not set)" in capsys.readouterr().out
    monkeypatch.setenv(tuned.SWITCH, str(out))
    assert main(["info"]) == 0
    assert f"1 tuned, from {out}" in capsys.readouterr().out
    damage(out, "torch")
    assert main(["info"]) == 0
    assert "refused: " in capsys.readouterr().out
