"""docs/self-supervised.md: its Python runs as it stands, one block after the other."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[2] / "docs" / "self-supervised.md"


def test_python_blocks_run():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    assert len(blocks) >= 3
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert torch.isfinite(names["loss"])
    assert names["users"].grad.abs().max() > 0
    group = names["masked"][0]
    assert group[0] == group[1]  # as the page says: hidden together
    unrelated = names["information"][2, 3].item()
    assert 1.1 < unrelated < 1.4  # the page's figure
