"""The script for large batches through an encoder measures what it says."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest


def test_a_row_per_size(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    script = Path(__file__).parents[2] / "benchmarks" / "large_batch.py"
    words = "--pairs 24 --plain 12 --chunk 8 --layers 1 --width 32 --length 4 --precision fp32"
    words += " --backend torch --device cpu --repeats 1 --seconds 0"
    out = tmp_path / "rows.json"
    runpy.run_path(str(script))["main"]([*words.split(), "--output", str(out)])
    made = json.loads(out.read_text())
    assert made["command"].startswith("python benchmarks/large_batch.py --pairs 24")
    assert [(row["pairs"], row["chunk"]) for row in made["rows"]] == [(24, 8), (12, 0)]
    for row in made["rows"]:
        assert 0 < row["loss_share"] < 1 and row["peak_bytes"] > 0
        assert row["step"]["median_ms"] > row["loss"]["median_ms"]
