"""The default loss's forward stays readable: few files, few jumps between them."""

from __future__ import annotations

from tests.trace_forward import trace_forward

MOST_FILES, MOST_CHANGES = 15, 60


def test_the_default_loss_crosses_few_files() -> None:
    found = trace_forward("torch")
    assert "backends/torch/passes.py" in found.files, "the trace saw no walk"
    assert len(found.files) <= MOST_FILES, sorted(found.files)
    assert found.changes <= MOST_CHANGES
