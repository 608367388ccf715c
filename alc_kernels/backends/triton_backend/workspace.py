"""How much memory the passes may take beyond inputs, gradients and what a call returns.

``ALC_KERNELS_WORKSPACE_MIB`` sets it (a whole number of MiB, at least 1, read once at import);
the low-memory mode is 48. Every pass works in row chunks whose buffers fit in it; smaller ones
cost time, because each chunk of rows adds to all rows of the labels' gradient.
"""

from __future__ import annotations

import os

VARIABLE = "ALC_KERNELS_WORKSPACE_MIB"
DEFAULT_MIB = 256


def read_workspace_bytes() -> int:
    """The setting in bytes.

    Raises:
        ValueError: the variable is no whole number of at least 1.
    """
    text = os.environ.get(VARIABLE, str(DEFAULT_MIB))
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"{VARIABLE}={text!r}: expected a whole number of MiB, at least 1")
    return int(text) << 20


WORKSPACE_BYTES = read_workspace_bytes()
