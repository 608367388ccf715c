"""The README's Python runs as it stands, one block after the other."""

import re
from pathlib import Path

import torch

README = Path(__file__).parent.parent / "README.md"


def test_python_blocks_run():
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    assert len(blocks) >= 2
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)


def test_linked_files_exist():
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (README.parent / target).exists(), target
    for path in re.findall(r"`((?:alc_kernels|benchmarks|tests|csrc)/[\w/.\-]+)`", text):
        assert (README.parent / path).exists(), path
