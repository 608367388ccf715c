"""The nine minutes on a GPU: the plan, its clock, rows on the disk, the tables; all of it, dry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fifteen import journal, plan, pool, report
from benchmarks.fifteen.__main__ import install, main

ROOT = Path(__file__).resolve().parents[2]
ITEM = plan.Item("time", "softmax", 768, seconds=1.0)
# A worker that answers with what the item's work asks for.
WORKER = """
import json, os, sys, time
print("ready", flush=True)
for line in sys.stdin:
    work = json.loads(line)["work"]
    if work == "dies": os._exit(7)
    if work == "hangs": time.sleep(600)
    print(json.dumps([{"value_error": 0.0, "pid": os.getpid()}]), flush=True)
"""


def test_the_plan_holds_what_it_must_in_its_order() -> None:
    items = list(plan.measurements(plan.FULL))
    kinds = list(dict.fromkeys(item.kind for item in items))
    assert kinds == ["time", "large", "nccl", "cuda"]
    assert [i.width for i in items if i.kind == "time"] == sorted(
        [i.width for i in items if i.kind == "time"], reverse=True
    )
    assert len({item.key for item in items}) == len(items)
    checked = {item.key[1:] for item in plan.values(plan.FULL)}
    for item in items:
        if item.kind == "time" and item.provider not in ("eager", plan.SCREENING):
            assert item.key[1:] in checked
    assert plan.prefixes(768) == (64, 128, 256, 512, 768) and plan.prefixes(16) == (8, 16)


def test_the_plan_knows_what_is_compiled_and_fits() -> None:
    recorded = plan.compile_records()
    assert {", ".join(map(str, row)) for row in plan.compiled_rows()} == set(recorded)
    text = plan.as_text(plan.FULL)
    until_tiles = next(line for line in text.splitlines() if "tiles: values" in line)
    assert float(until_tiles.split()[0]) <= 60 * plan.FULL.minutes
    values = sum(item.seconds for item in plan.values(plan.FULL)) / plan.FULL.processes
    assert plan.START + values <= plan.FULL.value_seconds


def test_the_script_prints_the_plan_and_refuses_strangers(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(ROOT / "benchmarks" / "on_gpu.sh"), str(tmp_path / "out"), *words]
        environment = {**os.environ, "PYTHON": sys.executable}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    done = run("fifteen", "--plan")
    assert done.returncode == 0 and "time mining d=768 alc_kernels" in done.stdout
    study = run("fifteen-study", "--plan")
    assert study.returncode == 0 and study.stdout.startswith("ngame_base_0\n"), study.stderr
    assert run("limits", "--dry").returncode == 2
    unknown = run("fourteen")
    assert unknown.returncode == 2 and "unknown stage fourteen" in unknown.stderr


def test_a_cut_journal_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "fifteen.jsonl"
    kept = journal.Journal(path, {"device": "none"})
    kept.add(ITEM, [{"median_ms": 1.0}, {"median_ms": 2.0}], 0.5)
    with path.open("a") as file:
        file.write('{"kind": "time", "wor')
    head, rows = journal.read(path)
    assert head["device"] == "none" and [row["median_ms"] for row in rows] == [1.0, 2.0]
    assert rows[0]["work"] == "softmax" and rows[0]["took_seconds"] == 0.5
    path.write_text("{}\n")
    with pytest.raises(ValueError, match=r"fifteen\.jsonl, line 1: expected a row"):
        journal.read(path)
    assert main([str(tmp_path / "none"), "--report"]) == 2


def test_a_wheel_that_does_not_fit_keeps_no_other_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheels = tmp_path / "wheels"
    assert install(wheels, tmp_path / "site") == []
    assert "no wheels at" in capsys.readouterr().out
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "small_peer-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small_peer.py", "")
        folder = "small_peer-1.0.dist-info/"
        wheel.writestr(
            folder + "METADATA", "Metadata-Version: 2.1\nName: small-peer\nVersion: 1.0\n"
        )
        wheel.writestr(folder + "WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(folder + "RECORD", "")
    (wheels / "other-1.0-cp27-cp27m-win32.whl").write_bytes(b"")
    assert install(wheels, tmp_path / "site") == [str(tmp_path / "site")]
    assert (tmp_path / "site" / "small_peer.py").is_file()
    said = capsys.readouterr().out.splitlines()
    assert "small_peer-1.0-py3-none-any.whl: installed" in said
    assert "not a supported wheel" in said[-2] or "not a supported wheel" in said[0]


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(pool, "COMMAND", (sys.executable, "-c", WORKER))
    monkeypatch.setattr(pool, "PATIENCE", 1.0)
    monkeypatch.setattr(pool, "GRACE", 0.5)
    told: dict[str, dict[str, Any]] = {}
    made = pool.Pool(
        "full", 2, time.monotonic() + 60, tmp_path / "log",
        lambda item, rows, seconds: told.update({item.work: rows[0]}),
    )  # fmt: skip
    yield made, told
    made.stop()


def items(*works: str, seconds: float = 0.1) -> list[plan.Item]:
    return [plan.Item("time", work, 768, seconds=seconds) for work in works]


def test_what_hangs_or_dies_costs_its_row_alone(workers: Any) -> None:
    made, told = workers
    made.one_by_one(items("first", "hangs", "second", "dies", "third"), lambda item: 0.0)
    assert told["hangs"]["missing"].startswith("cut after") and "failed" not in told["hangs"]
    assert told["dies"]["missing"] == "its process ended with 7, see log" and told["dies"]["failed"]
    assert len({told[name]["pid"] for name in ("first", "second", "third")}) == 3


def test_what_does_not_fit_is_skipped_and_said(workers: Any) -> None:
    made, told = workers
    made.one_by_one(items("long", seconds=100.0) + items("short"), lambda item: 0.0)
    assert told["long"]["missing"].startswith("skipped: it would take about 100 s, ")
    assert "pid" in told["short"]


def test_items_are_shared_among_the_workers(workers: Any) -> None:
    made, told = workers
    made.start()
    done = made.together(items("one", "dies", "two", "three"), 30.0)
    assert {key[1] for key in done} == {"one", "two", "three"}
    assert made.together(items("late"), 0.0) == set()
    assert told["late"]["missing"].startswith("skipped")


def row(work: str, provider: str, ratio: float, ours: float, **more: Any) -> dict[str, Any]:
    return {
        "kind": "time", "work": work, "provider": provider, "width": 768, "rows": 32768,
        "number": 0, "median_ms": ratio, "ratio_to_product": ratio, "ours_ms": ours,
        "extra_bytes": 100 * 2**20, **more,
    }  # fmt: skip


def test_the_report_says_what_the_figures_mean() -> None:
    head = {"rows": 32768, "widths": [768, 384], "dtype": "bfloat16", "capability": [9, 0]}
    cuda = {"kind": "cuda", "work": "k = 10", "width": 768, "provider": "", "part": "mining"}
    tiles = {"kind": "tiles", "work": "maximum", "width": 768, "provider": "alc_kernels"}
    absent = {"kind": "time", "work": "softmax", "width": 768, "provider": "memeff", "number": 0}
    rows = [
        row("softmax", "alc_kernels", 3.5, 3.5),
        row("softmax", "eager", 8.0, 3.5, extra_bytes=2**33),
        row("softmax", "torch.compile", 3.0, 3.6),
        row("matryoshka-softmax", "per width (triton)", 2.0, 3.0),
        row("mining", plan.SCREENING, 1.0, 0.5),
        absent | {"missing": "not installed"},
        cuda | {"provider": "triton", "median_ms": 2.0},
        cuda | {"provider": "cuda", "median_ms": 1.0},
        tiles | {"best": "Tile(1)", "candidates": [{"median_ms": 1.0}, {"median_ms": None}]},
        {"kind": "large", "work": "softmax", "provider": "alc_kernels", "width": 768,
         "loss": "softmax", "rows": 262144, "extra_mib": 2048.0, "errors": [1e-3], "right": False},
    ]  # fmt: skip
    text = report.text(head, rows)
    assert "| softmax | 3.50 G, 100 MiB | 8.00 G, 8,192 MiB | 3.00 G, 100 MiB |" in text
    assert "softmax, d = 768: 3.50 G, the aim is 3.2" in text
    assert "torch.compile takes 0.83 of our time" in text and "eager takes" not in text
    assert "softmax, B = 262,144: 2,048 MiB, the aim is 1,024" in text
    assert "(9, 0): frozenset(['mining'])" in text
    assert "maximum, d = 768: Tile(1)" in text
    assert "1.50 of the time width by width: DOES NOT PAY" in text
    assert "mining, d = 768: on 0.500 ms, off 1.000 ms: on" in text
    assert "not installed: time softmax d=768 memeff" in text
    assert report.failures(rows) == ["large softmax d=768 alc_kernels: wrong values"]
    slower = [{**r, "median_ms": 1.99} if r["provider"] == "cuda" else r for r in rows]
    assert "stays empty, no part is faster by 5%" in report.text(head, slower)


def dry(out: Path) -> subprocess.Popen[str]:
    command = ["bash", "benchmarks/on_gpu.sh", str(out), "fifteen", "--dry"]
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_dry_run_takes_every_row_and_prints_the_tables(tmp_path: Path) -> None:
    process = dry(tmp_path)
    text = process.communicate()[0]
    assert process.returncode == 0, text
    _, rows = journal.read(tmp_path / "fifteen.jsonl")
    taken = {(r["kind"], r["work"], r["width"], r["provider"], r["number"]): r for r in rows}
    sizes = plan.DRY
    planned = [*plan.values(sizes), *plan.measurements(sizes), *plan.tile_values(sizes)]
    planned += plan.tiles(sizes)
    assert {item.key for item in planned} == set(taken)
    for key, found in taken.items():
        if key[0] == "time" and key[3] in (*plan.OURS, "eager", "torch.compile"):
            assert found["median_ms"] > 0 and "missing" not in found, found
        if key[0] == "values" and key[3] == "alc_kernels":
            assert found["value_error"] < 1e-4
        if key[0] in ("tiles", "large", "sample"):
            assert "missing" not in found, found
    assert taken["time", "softmax", 32, "memeff", 0]["missing"] == "needs a GPU"
    assert (tmp_path / "fifteen.txt").read_text() in text
    assert "| softmax | " in text and "8-bit screening: this version has none" in text
    assert {path.name for path in tmp_path.iterdir()} == {
        f"fifteen.{ending}" for ending in ("json", "jsonl", "log", "txt")
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_run_keeps_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = dry(tmp_path)
    path = tmp_path / "fifteen.jsonl"
    while process.poll() is None and (not path.is_file() or path.read_text().count("\n") < 4):
        time.sleep(0.2)
    before = path.read_text().splitlines()[:4]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert path.read_text().splitlines()[:4] == before
    _, rows = journal.read(path)
    assert len(rows) >= 3 and all(json.dumps(one) for one in rows)
    assert main([str(tmp_path), "--report"]) == 0
    assert "Not measured" in capsys.readouterr().out


@pytest.mark.slow
def test_a_dry_study_trains_and_compares(tmp_path: Path) -> None:
    command = ["bash", "benchmarks/on_gpu.sh", str(tmp_path), "fifteen-study", "--dry"]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "fifteen-study.jsonl").read_text().splitlines()
    runs = [json.loads(line) for line in lines]
    assert [one["run"] for one in runs] == ["ngame_base_0", "ngame_alc+tcm_0"]
    for one in runs:
        assert "coverage_90" in one["validation"] and "p1" in one["test"]["open"]
    comparison = (tmp_path / "comparison.txt").read_text()
    assert "Differences" in comparison and "Examples" not in comparison
