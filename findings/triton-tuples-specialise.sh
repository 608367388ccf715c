#!/usr/bin/env bash
# Expected: triton.jit(do_not_specialize=["sizes"]) keeps a kernel from being compiled anew for each
# value of `sizes`, a tuple of integers, as it does for an integer argument.
# Happens: the integers inside the tuple are specialised all the same: divisible by 16, equal to 1,
# or neither, each compiles another kernel. A batch size in a named tuple recompiles for last batches.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet triton==3.6.0
cat >"$work/show.py" <<'PYTHON'
import sys
from typing import NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature


class Sizes(NamedTuple):
    rows: int
    columns: int


def kernel(count, sizes):
    pass


function = JITFunction(kernel, do_not_specialize=["count", "sizes"])
target = make_backend(GPUTarget("cuda", 90, 32))
bind = create_function_from_signature(function.signature, function.params, target)
seen = []
for value in (16, 17, 1):
    (_, of_count), (_, of_sizes) = bind(value, Sizes(value, value))[1]
    seen.append((of_count, tuple(of_sizes)))
    print(f"value {value}: specialised as an integer {of_count!r}, in a tuple {tuple(of_sizes)}")
print(f"triton {triton.__version__}, Python {sys.version.split()[0]}")
assert len({count for count, _ in seen}) == 1, "the integer is specialised"
assert len({sizes for _, sizes in seen}) == 3, "the tuple's integers are not specialised any more"
PYTHON
"$work/venv/bin/python" "$work/show.py"
