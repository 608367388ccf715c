"""Compiles every .cu file for every GPU generation and holds what ptxas says against budgets.

Record budgets after a change that was meant to alter them (and look at the difference):

    python -m tests.compile_gate.cuda_gate
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

from csrc import nvcc

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUDGETS = HERE / "cuda_budgets.json"
WHEELS = ROOT / ".venv-cuda"  # make nvcc
TARGETS = ("sm_80", "sm_90a", "sm_100")
# Versions of the assembler differ by a little. Nothing may spill beyond its budget.
SLACK = {"registers": 8, "spilled": 0, "stack": 0, "shared": 0}

_ENTRY = re.compile(r"Compiling entry function '(\S+)' for")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")

Needs = dict[str, int]


def compiler() -> str | None:
    """nvcc of this machine, or of the wheels that ``make nvcc`` installs; None: neither."""
    found = nvcc.find()
    if found is None:
        wheels = sorted(WHEELS.glob("lib/python*/site-packages/nvidia/cu*/bin/nvcc"))
        found = str(wheels[-1]) if wheels else None
    return found


def readable(symbol: str) -> str:
    """ "sum_runs_kernel BFloat16 aligned" for a mangled kernel of csrc/cuda."""
    kernel = re.search(r"\d+([a-z][a-z_]*_kernel)", symbol)
    if kernel is None:
        raise ValueError(f"not a kernel's name: {symbol}")
    types = re.findall(r"BFloat16|Float16|Float32", symbol)
    aligned = {"Lb1E": ["aligned"], "Lb0E": ["unaligned"]}
    flags = [word for mark, words in aligned.items() if mark in symbol for word in words]
    return " ".join([kernel.group(1), *types[:1], *flags])


def parse(report: str) -> dict[str, Needs]:
    """Kernel -> registers, spilled and stack bytes, static shared bytes, from ``ptxas -v``."""
    found: dict[str, Needs] = {}
    name = None
    for line in report.splitlines():
        if entry := _ENTRY.search(line):
            name = readable(entry.group(1))
            found[name] = {"shared": 0}
        if name is None:
            continue
        if stack := _STACK.search(line):
            found[name] |= {"stack": int(stack.group(1)), "spilled": int(stack.group(2))}
        if used := _USED.search(line):
            shared = _SHARED.search(line)
            found[name] |= {"registers": int(used.group(1))}
            found[name]["shared"] = int(shared.group(1)) if shared else 0
    return found


def compile_file(command: str, source: str, target: str) -> dict[str, Needs]:
    """Compile one file for one target.

    Raises:
        RuntimeError: it does not compile, or warns, or ptxas reports nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        line = [command, *nvcc.COMPILE, f"-arch={target}", "-cubin", "-Xptxas", "-v"]
        line += ["-Werror", "all-warnings", "-o", str(Path(folder) / "x.cubin"), str(ROOT / source)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
    report = done.stdout + done.stderr
    if done.returncode != 0:
        raise RuntimeError(f"{source} does not compile for {target}:\n{report[-3000:]}")
    found = parse(report)
    if not found or any(set(needs) != set(SLACK) for needs in found.values()):
        raise RuntimeError(f"{source}, {target}: cannot read what ptxas reports:\n{report[-3000:]}")
    return found


def compile_all(command: str, target: str) -> dict[str, Needs]:
    """Every kernel of csrc/cuda for one target."""
    kernels: dict[str, Needs] = {}
    for source in nvcc.sources(ROOT):
        kernels |= compile_file(command, source, target)
    return kernels


def load_budgets() -> dict[str, dict[str, Needs]]:
    """Kernel -> target -> needs."""
    return json.loads(BUDGETS.read_text(encoding="utf-8")) if BUDGETS.exists() else {}


def problems(kernels: dict[str, Needs], target: str, budgets: dict[str, dict[str, Needs]]):
    """What is wrong, one line each."""
    found = []
    for name, needs in kernels.items():
        budget = budgets.get(name, {}).get(target)
        if budget is None:
            found.append(f"{name}: has no recorded budget for {target}")
            continue
        for what, slack in SLACK.items():
            if needs[what] > budget[what] + slack:
                found.append(f"{name}, {target}: {what} {needs[what]}, budget {budget[what]}")
    gone = [name for name in budgets if target in budgets[name] and name not in kernels]
    return found + [f"{name}: has a budget for {target} but is no kernel" for name in gone]


def record() -> None:
    """Write what the kernels need now as their budgets."""
    command = compiler()
    if command is None:
        raise SystemExit("there is no nvcc: make nvcc installs one into .venv-cuda")
    budgets: dict[str, dict[str, Needs]] = {}
    for target in TARGETS:
        for name, needs in compile_all(command, target).items():
            budgets.setdefault(name, {})[target] = dict(sorted(needs.items()))
    lines = [f"  {json.dumps(name)}: {json.dumps(budgets[name])}" for name in sorted(budgets)]
    BUDGETS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    record()
