"""The model of the ring's cost, and the script that checks it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.ring_model import Block, main, on_h200, predict, smallest_hidden


def test_a_step_takes_the_longer_of_compute_and_transfer() -> None:
    # 1 s for a block of labels, 2 s for its gradient.
    hidden = Block(rows=10, width=10, item=2, walk=5.0, gradient=7.0, bandwidth=200.0)
    step = predict(hidden, 4)
    assert step.walk == 4 * 5.0
    assert step.gradient == 4 * 7.0 + 2.0  # the last gradient's way home is not hidden
    exposed = Block(rows=10, width=10, item=2, walk=0.5, gradient=0.0, bandwidth=200.0)
    step = predict(exposed, 4)
    assert step.walk == 3 * 1.0 + 0.5
    assert step.gradient == 3 * 3.0 + 2.0
    assert step.compute == 4 * 0.5
    apart = predict(exposed, 4, overlap=False)
    assert apart.walk == 3 * 1.5 + 0.5
    assert predict(hidden, 1).walk == 5.0


@pytest.mark.parametrize("bandwidth", [50e9, 450e9])
def test_from_where_on_it_is_hidden(bandwidth: float) -> None:
    rows = smallest_hidden(bandwidth)
    block, smaller = on_h200(rows, bandwidth), on_h200(rows - 256, bandwidth)
    assert predict(block, 8).total == pytest.approx(8 * (block.walk + block.gradient) + block.left)
    assert predict(smaller, 8).total > 8 * (smaller.walk + smaller.gradient) + smaller.left


def test_table_in_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["predict"])
    printed = capsys.readouterr().out
    page = (Path(__file__).parents[2] / "docs" / "large-batches.md").read_text()
    for line in printed.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and cells[1] == "64":
            assert (
                f"| {cells[3]} | {cells[4]} | {cells[5]} | {cells[6].replace('%', ' %')} |" in page
            )


@pytest.mark.slow
def test_simulation(tmp_path: Path) -> None:
    out = tmp_path / "ring.json"
    main(["simulate", "--processes", "2", "--rows", "64", "--repeats", "2", "--output", str(out)])
    (row,) = json.loads(out.read_text())["steps"]
    assert row["processes"] == 2
    assert min(row[name] for name in ("measured", "predicted", "ratio")) > 0
