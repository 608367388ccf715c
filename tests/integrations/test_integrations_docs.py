"""docs/integrations.md: its Python runs as it stands, one block after the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "integrations.md"


def test_python_blocks_run(
    make_model: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    for library in ("accelerate", "lightning", "pytorch_metric_learning"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    assert len(blocks) >= 9
    data = datasets.Dataset.from_dict(
        {"query": ["nova 8", "red case"] * 4, "positive": ["nova 8 phone", "case red"] * 4}
    )
    names: dict[str, object] = {"model": make_model(), "data": data}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert len((tmp_path / "run" / "coverage_evaluation_titles_results.csv").read_text()) > 50
    loss, matryoshka, triplets = names["loss"], names["matryoshka"], names["triplets"]
    assert loss.requires_grad and matryoshka.matryoshka_dims == (16, 8)
    assert triplets[0].numel() == 5 * 64
    assert any("pair_head" in name for name, _ in names["Matcher"]().named_parameters())


def test_linked_files_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:examples|experiments|alc_kernels)/[\w/.\-]+)`", text):
        assert (ROOT / path).exists(), path
