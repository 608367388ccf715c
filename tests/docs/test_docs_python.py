"""Python on the pages runs as it stands: the blocks of a page one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.docs.pages import PAGES, blocks

# Its blocks need a model and data: tests/integrations/test_integrations_docs.py runs them.
ELSEWHERE = "docs/integrations.md"
WITH_PYTHON = [page for page in PAGES if blocks(page, "python") and page != ELSEWHERE]


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own; the environment and the process group are put back."""
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)
    if dist.is_initialized():
        dist.destroy_process_group()


def test_pages_are_found() -> None:
    assert {"README.md", "docs/start.md", "docs/losses.md", "docs/coverage.md"} <= set(WITH_PYTHON)


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_blocks_run(page: str) -> None:
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block.before, f"{block.where} (before)", "exec"), names)
        exec(compile(block.code, block.where, "exec"), names)
