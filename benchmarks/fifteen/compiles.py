"""How many Triton kernels a row of the plan compiles, and how long that takes, without a GPU.

    python3 -m benchmarks.fifteen.compiles        # writes compiles.json beside this file

A step runs once in Triton's interpreter, at a small batch: all that the batch decides, whether the
k hardest are found in two passes, is decided as for the plan's. What it launches is noted and then
compiled ahead of time for compute capability 9.0, in a process of its own, since Triton decides at
a kernel's definition who will run it. Seconds are the processor's, the assembler's among them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("compiles.json")
ROOT = Path(__file__).resolve().parents[2]
ROWS = 40  # no multiple of any tile, as the last batch of an epoch is
LAUNCH_OPTIONS = ("num_warps", "num_stages", "maxnreg")
DTYPES = {"torch.float32": "fp32", "torch.float16": "fp16", "torch.bfloat16": "bf16",
          "torch.float64": "fp64", "torch.int64": "i64", "torch.int32": "i32",
          "torch.uint8": "u8", "torch.int8": "i8", "torch.bool": "i1"}  # fmt: skip

Launch = dict[str, Any]  # a kernel with all that decides its machine code


def described(kernel: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Launch:
    """What Triton's launcher would specialise a launch on; places are paths into the arguments."""
    named = {**dict(zip(kernel.arg_names, arguments, strict=False)), **options}
    fixed = {name for name, kind in kernel.fn.__annotations__.items() if "constexpr" in str(kind)}
    loose = set(kernel.kwargs.get("do_not_specialize") or ())
    constants: list[tuple[list[int], Any]] = []
    divisible: list[list[int]] = []

    def kind_of(value: Any, path: list[int], fixed: bool, loose: bool) -> Any:
        if isinstance(value, tuple):
            if hasattr(value, "UPCAST"):  # the interpreter's own way to multiply bfloat16
                value = value._replace(UPCAST=type(value.UPCAST)(False))
            return [kind_of(part, [*path, n], False, False) for n, part in enumerate(value)]
        if type(value).__name__ == "constexpr":
            fixed, value = True, value.value
        if fixed or value is None or (type(value) is int and value == 1 and not loose):
            constants.append((path, value))
            return "constexpr"
        if hasattr(value, "data_ptr"):
            if value.data_ptr() % 16 == 0:
                divisible.append(path)
            return "*" + DTYPES[str(value.dtype)]
        if isinstance(value, float):
            return "fp32"
        if isinstance(value, bool):
            return "i1"
        if value % 16 == 0 and not loose:
            divisible.append(path)
        return "i32"

    return {
        "module": kernel.fn.__module__,
        "kernel": kernel.fn.__name__,
        "signature": {
            name: kind_of(named[name], [n], name in fixed, name in loose)
            for n, name in enumerate(kernel.arg_names)
        },
        "constants": constants,
        "divisible": divisible,
        "options": {name: named[name] for name in LAUNCH_OPTIONS if named.get(name)},
    }


def launches(work: str, width: int, provider: str) -> list[Launch]:
    """Every distinct launch of one forward and backward pass in bfloat16."""
    import torch
    from triton.runtime.interpreter import InterpretedFunction

    from alc_kernels.backends.triton.dense import launch as coefficients
    from alc_kernels.backends.triton.walk import launch as walk_launch
    from alc_kernels.bench import measure
    from benchmarks.fifteen.plan import FULL, prefixes

    coefficients.is_hopper = lambda device: True
    two_passes = walk_launch.takes_two_passes
    walk_launch.takes_two_passes = lambda rows, labels, *rest: two_passes(
        FULL.rows, FULL.rows, *rest
    )
    found: dict[str, Launch] = {}
    plain = InterpretedFunction.run

    def noted(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        launch = described(self, arguments, options)
        found.setdefault(json.dumps(launch, sort_keys=True), launch)
        options.pop("maxnreg", None)
        return plain(self, *arguments, grid=grid, warmup=warmup, **options)

    pair = measure.inputs(ROWS, ROWS, width, torch.bfloat16, "cpu", 0)
    step = step_of(work, width, provider, measure.margin_for(pair, 0.0005), prefixes(width))
    InterpretedFunction.run = noted
    try:
        measure.run(step, pair, backward=work != "mining")
    finally:
        InterpretedFunction.run = plain
    return list(found.values())


def step_of(work: str, width: int, provider: str, margin: float, widths: tuple[int, ...]) -> Any:
    """Our version, or that of our providers beside it."""
    from alc_kernels.bench.works import works

    known = works(width, "cpu", margin, 0.0005, widths)[work]
    if provider == "alc_kernels":
        return known.ours("triton")
    return next(peer.build() for peer in known.peers if peer.name == provider)


def compile_all(noted: list[Launch]) -> list[float]:
    """Seconds that each launch takes to compile for compute capability 9.0."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    seconds = []
    for launch in noted:
        kernel = getattr(importlib.import_module(launch["module"]), launch["kernel"])
        classes = typing.get_type_hints(kernel.fn)
        signature = {
            name: classes[name](*kind) if isinstance(kind, list) else kind
            for name, kind in launch["signature"].items()
        }
        constants = {tuple(path): value for path, value in launch["constants"]}
        at = {tuple(path): [["tt.divisibility", 16]] for path in launch["divisible"]}
        source = ASTSource(kernel, signature, constants, at)
        started = sum(os.times()[:4])  # of this process and those that it waited for
        triton.compile(source, target=GPUTarget("cuda", 90, 32), options=launch["options"])
        seconds.append(sum(os.times()[:4]) - started)
    return seconds


def in_process(argument: str, text: str, **environment: str) -> Any:
    """What this module prints, called in a process of its own."""
    values = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    command = [sys.executable, "-m", "benchmarks.fifteen.compiles", argument]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, cwd=ROOT, env=values, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{argument}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def record(rows: list[tuple[str, int, str]]) -> None:
    """ "work, width, provider" -> how many kernels, and the seconds they compile in one process."""
    made: dict[str, Any] = {}
    known: dict[str, float] = {}  # a launch that several rows have is compiled once
    for row in rows:
        noted = in_process("--launches", json.dumps(row), TRITON_INTERPRET="1")
        keys = {json.dumps(launch, sort_keys=True): launch for launch in noted}
        new = {key: launch for key, launch in keys.items() if key not in known}
        text = json.dumps(list(new.values()))
        known |= dict(
            zip(new, in_process("--compile", text, TRITON_ALWAYS_COMPILE="1"), strict=True)
        )
        seconds = round(sum(known[key] for key in keys), 1)
        made[", ".join(map(str, row))] = {"kernels": len(keys), "seconds": seconds}
        print(row, len(keys), seconds, file=sys.stderr, flush=True)
        RECORD.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--launches", action="store_true")
    parser.add_argument("--compile", action="store_true")
    chosen = parser.parse_args()
    if chosen.launches:
        print(json.dumps(launches(*json.load(sys.stdin))))
    elif chosen.compile:
        print(json.dumps(compile_all(json.load(sys.stdin))))
    else:
        from benchmarks.fifteen.plan import compiled_rows

        record(compiled_rows())


if __name__ == "__main__":
    main()
