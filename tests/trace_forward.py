"""How many files a loss's forward crosses: ``python tests/trace_forward.py [backend]``.

Counted are the Python frames of ``alc_kernels`` in the second call of the default ``ALCLoss``
(imports and caches are those of the first): the files and functions that are entered, and how
often a frame of another file is entered than the one before.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import torch

import alc_kernels

PACKAGE = str(Path(alc_kernels.__file__).parent)


class Trace(NamedTuple):
    """What one forward entered."""

    files: Counter[str]  # calls by file, relative to the package
    functions: set[tuple[str, str, int]]  # file, function, its line
    changes: int  # of file, from one call to the next


def trace_forward(backend: str = "torch", rows: int = 32, width: int = 16) -> Trace:
    """Trace the default loss's forward."""
    torch.manual_seed(0)
    loss_fn = alc_kernels.ALCLoss(width, backend=backend)
    queries, labels = (torch.randn(rows, width, requires_grad=True) for _ in range(2))
    loss_fn(queries, labels)
    entered: list[tuple[str, str, int]] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            path = code.co_filename[len(PACKAGE) + 1 :]
            entered.append((path, code.co_name, code.co_firstlineno))

    sys.setprofile(profile)
    try:
        loss_fn(queries, labels)
    finally:
        sys.setprofile(None)
    changes = sum(a[0] != b[0] for a, b in itertools.pairwise(entered))
    return Trace(Counter(path for path, _, _ in entered), set(entered), changes)


def main() -> None:
    """Print a line for every file, then the three counts."""
    found = trace_forward(*sys.argv[1:2])
    for path, calls in sorted(found.files.items()):
        print(f"{calls:5d} calls  {path}")
    print(
        f"{len(found.files)} files, {len(found.functions)} functions, "
        f"{found.changes} changes of file"
    )


if __name__ == "__main__":
    main()
