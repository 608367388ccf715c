"""The benchmark itself: every version of a work is the same loss, and slips are told."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from alc_kernels.bench import measure, record
from alc_kernels.bench import record as charts
from alc_kernels.bench.record import compare
from alc_kernels.bench.run import Case, line, measure_case
from alc_kernels.bench.works import works
from alc_kernels.cli import main

CASE = Case(rows=48, columns=48, width=16, dtype=torch.float64, active=0.01)
NAMES = list(works(16, "cpu", 0.5, 0.01))


@pytest.mark.parametrize("name", NAMES)
def test_every_version_is_the_same_loss(name: str) -> None:
    pair = measure.inputs(48, 48, 16, torch.float64, "cpu", seed=1)
    work = works(16, "cpu", measure.margin_for(pair, 0.01), 0.01)[name]
    versions = [v for v in (work.eager, work.chunked) if v is not None]
    for version in versions:
        # The plain versions take logs and exponentials in float32, as their users do.
        made = pair if work.inputs is None else work.inputs(pair)
        truth = measure.exactly(work.ours("torch"), made, work.backward)
        assert measure.errors(version, truth, made, work.backward, work.judge).worst < 1e-5
    assert versions or name.startswith("alc-")


@pytest.mark.parametrize("name", ["triplet1+tcm", "triplet10+tcm", "alc-default", "softmax"])
def test_the_repeatable_version_is_the_same_loss(name: str) -> None:
    if not os.environ.get("TRITON_INTERPRET") and not torch.cuda.is_available():
        pytest.skip("Triton's kernels need a GPU or the interpreter")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pair = measure.inputs(48, 48, 16, torch.float32, device, seed=1)
    work = works(16, device, measure.margin_for(pair, 0.01), 0.01)[name]
    (repeatable,) = (peer for peer in work.peers if peer.name.startswith("deterministic"))
    truth = measure.exactly(work.ours("torch"), pair, work.backward)
    assert measure.errors(repeatable.build(), truth, pair, work.backward).worst < 1e-5


def test_margin_is_exceeded_by_the_share_that_was_asked_for() -> None:
    pair = measure.inputs(400, 400, 32, torch.float32, "cpu", seed=2)
    margin = measure.margin_for(pair, 0.05)
    with torch.no_grad():
        s = pair[0] @ pair[1].T
    off = s[~torch.eye(400, dtype=torch.bool)]
    assert float((off > margin).float().mean()) == pytest.approx(0.05, abs=1e-4)


def test_rows_are_complete_and_a_missing_peer_is_named() -> None:
    rows = measure_case(CASE, ["softmax"], device="cpu", repeats=3, sets=2)
    found = {row["provider"]: row for row in rows}
    assert found["inf-cl"]["missing"] == "needs a GPU"
    ours = found["alc_kernels"]
    assert ours["median_ms"] > 0 and ours["ratio_to_product"] > 0 and ours["calls"] == 3
    assert max(ours["gradient_errors"]) < 1e-9
    if sys.platform == "linux":
        assert 0 <= ours["extra_bytes"] < 2**26
    assert all(line(row) for row in rows)


@pytest.mark.parametrize("name", NAMES)
def test_there_may_be_more_labels_than_queries(name: str) -> None:
    case = Case(rows=20, columns=50, width=16, dtype=torch.float64, active=0.01)
    rows = measure_case(case, [name], ["alc_kernels", "chunked"], device="cpu", repeats=1, sets=1)
    found = {row["provider"]: row for row in rows}
    assert found["alc_kernels"]["median_ms"] > 0
    square = works(16, "cpu", 0.5, 0.01)[name].square
    if square and "eager" in found:
        assert found["eager"]["missing"] == "written for B = M"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")
def test_memory_on_the_cpu_sees_a_stored_matrix() -> None:
    pair = measure.inputs(64, 64, 8, torch.float32, "cpu", seed=0)

    def step(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        stored = torch.ones(3000, 3000)  # 34 MiB
        return (q * k).sum() + stored.sum()

    size = 3000 * 3000 * 4
    assert 0.9 * size < measure.peak_memory(step, pair) < 1.5 * size


def test_a_wrong_version_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    from alc_kernels.bench import eager

    plain = eager.softmax
    monkeypatch.setattr(eager, "softmax", lambda q, k: 1.5 * plain(q, k))
    rows = measure_case(CASE, ["softmax"], ["eager"], device="cpu", repeats=1, sets=1)
    eager_row = next(row for row in rows if row["provider"] == "eager")
    assert eager_row["missing"].startswith("wrong: error 0.5")
    assert "median_ms" not in eager_row


def result(path: Path, **ratios: float) -> Path:
    rows = [
        {"work": work, "provider": "alc_kernels", "rows": 8, "columns": 8, "width": 4,
         "dtype": "float32", "active": 0.1, "median_ms": ratio, "ratio_to_product": ratio,
         "extra_bytes": None}
        for work, ratio in ratios.items()
    ]  # fmt: skip
    record.write(path, rows, "made up")
    return path


def test_compare_finds_what_got_slower(tmp_path: Path) -> None:
    before = result(tmp_path / "before.json", softmax=3.0, tcm=2.0, gone=1.0)
    after = result(tmp_path / "after.json", softmax=3.3, tcm=1.5)
    text, slower = compare(before, after, 0.05)
    assert slower == 2  # softmax, and what is no longer measured
    softmax = next(row for row in text.splitlines() if row.startswith("softmax"))
    assert "+10.0%" in softmax and "SLOWER" in softmax
    assert "faster" in next(row for row in text.splitlines() if row.startswith("tcm"))
    assert compare(before, before, 0.05)[1] == 0


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.json"
    words = ["bench", "table", "--rows", "16", "32", "--width", "8", "--work", "sigmoid"]
    words += ["--provider", "alc_kernels", "--repeats", "2", "--output", str(out)]
    assert main(words) == 0
    content = json.loads(out.read_text())
    assert {"torch", "commit", "device"} <= content["environment"].keys()
    assert [row["rows"] for row in content["rows"] if row["provider"] == "alc_kernels"] == [16, 32]
    assert main(["bench", "charts", str(out), "--output", str(tmp_path / "charts")]) == 0
    picture = next((tmp_path / "charts").iterdir())
    assert picture.suffix == ".png" and picture.stat().st_size > 5000
    slow = result(tmp_path / "slow.json", sigmoid=9.0)
    assert main(["bench", "compare", str(slow), str(out)]) == 2
    capsys.readouterr()
    assert main(["bench", "table", "--work", "sofmax"]) == 2
    assert "--work sofmax: expected one of mining" in capsys.readouterr().err
    assert main(["bench", "table", "--provider", "eagre"]) == 2
    assert "--provider eagre: expected one of alc_kernels, eager" in capsys.readouterr().err
    (tmp_path / "bad.json").write_text("{}")
    assert main(["bench", "compare", str(slow), str(tmp_path / "bad.json")]) == 2
    assert "expected a result of record" in capsys.readouterr().err
    assert main(["bench", "charts", str(slow), "--output", str(tmp_path)]) == 2


def test_charts_against_active(tmp_path: Path) -> None:
    rows = [
        {"work": "tcm", "provider": provider, "rows": 8, "columns": 8, "width": 4,
         "dtype": "float32", "active": active, "median_ms": 1.0, "ratio_to_product": 1.0,
         "extra_bytes": None}
        for provider in ("alc_kernels", "eager") for active in (0.001, 0.1)
    ]  # fmt: skip
    record.write(tmp_path / "r.json", rows, "made up")
    assert [p.name for p in charts.draw([tmp_path / "r.json"], tmp_path)] == [
        "tcm-active-8-4-float32.png"
    ]
