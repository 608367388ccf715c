"""``alc bench tune``: measure tiles on this GPU and keep the faster ones in a file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from alc_kernels.cli.arguments import number
from alc_kernels.cli.errors import BadInput

DTYPES = ("bfloat16", "float16", "float32")
# alc_kernels.backends.triton_backend.launch.KERNELS, without importing Triton.
KERNELS = ("maximum", "sums", "list", "long", "coefficients", "exponentials")


def add_tune(kinds: Any) -> None:
    tune = kinds.add_parser(
        "tune",
        help="measure the kernels' tiles on this GPU and keep the faster ones",
        description="Check and time the tile of the tables and its neighbours, and write those "
        "that are faster by more than 2 %% to a file. Nothing reads it unless "
        "ALC_KERNELS_TUNED is 1 or names it.",
    )
    tune.add_argument("--width", type=number(int, 1), nargs="+", metavar="D", default=[768])
    tune.add_argument("--dtype", choices=DTYPES, nargs="+", default=["bfloat16"])
    tune.add_argument("--kernel", choices=KERNELS, nargs="+", default=list(KERNELS))
    tune.add_argument(
        "--rows", type=number(int, 2), default=16384, metavar="B", help="B = M (16384)"
    )
    tune.add_argument("--seconds", type=number(float, 0), default=10.0, help="per entry (10)")
    tune.add_argument("--output", type=Path, metavar="FILE", help="instead of the user's cache")
    tune.set_defaults(run=run_tune)


def run_tune(arguments: argparse.Namespace) -> None:
    import torch

    if not torch.cuda.is_available():
        raise BadInput("alc bench tune needs a GPU: times in Triton's interpreter mean nothing")
    from alc_kernels.backends import triton_backend
    from alc_kernels.backends.cuda_kernels.enabled import SWITCH, switch

    reason = triton_backend.unsupported(torch.empty(1, device="cuda"))
    if reason is not None:
        raise BadInput(reason)
    if switch() == "1":
        raise BadInput(f"alc bench tune is about the Triton kernels: unset {SWITCH}")
    tune_all(arguments, "cuda")


def tune_all(arguments: argparse.Namespace, device: str) -> None:
    """Measure every entry that was asked for, and write each as soon as it is known."""
    import torch

    from alc_kernels.backends.triton_backend import launch as tuned
    from alc_kernels.backends.triton_backend.launch import dot_precision
    from alc_kernels.bench.tune import best, lines, tune

    where = torch.device(device)
    path = arguments.output or tuned.path_in_use(where) or tuned.default_path(where)
    # What is in use does not decide what is measured; a file that would be refused, at once.
    os.environ.pop(tuned.SWITCH, None)
    try:
        tuned.write(path, where, {})
        for kernel in arguments.kernel:
            for name in arguments.dtype:
                for d in arguments.width:
                    dtype = getattr(torch, name)
                    print(f"\n{kernel}, {name}, d = {d}, B = M = {arguments.rows}", flush=True)
                    rows = tune(
                        kernel, dtype, d, arguments.rows, device=device, seconds=arguments.seconds
                    )
                    print("\n".join(lines(rows)), flush=True)
                    # Where the table's own entry is the best it is written too: an older choice
                    # may not stay.
                    key = tuned.key(kernel, dtype, dot_precision(dtype), d)
                    tuned.write(path, where, {key: best(rows) or rows[0].tile})
    except ValueError as error:
        raise BadInput(str(error)) from None
    print(f"\nWritten: {path}. {tuned.SWITCH}={path} uses it.")
