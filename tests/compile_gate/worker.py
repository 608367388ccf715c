"""Compile a share of the variants for one target and print what each needs, one JSON per line.

Run as a program, in a process without TRITON_INTERPRET: Triton decides when a kernel is defined
whether it will be interpreted.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tests.compile_gate.variant import Variant
from tests.compile_gate.variants import variants

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# What reads or writes the matrix units.
MATRIX_INSTRUCTIONS = {"cuda": ("wgmma.mma_async", "mma.sync", "tcgen05.mma"), "hip": ("v_mfma",)}


def compile_variant(variant: Variant, target: GPUTarget) -> Any:
    """The compiled kernel."""
    signature, constants, attributes, options = variant.launch.specialised(target)
    source = ASTSource(variant.launch.kernel, signature, constants, attributes)
    return triton.compile(source, target=target, options=options)


def cubin_resources(cubin: bytes) -> dict[str, int]:
    """Registers per thread and bytes of stack (spills live there) of a cubin's kernel."""
    tool = triton.knobs.nvidia.cuobjdump.path
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"REG:(\d+) STACK:(\d+)", listing)
    if len(found) != 1:
        raise RuntimeError(f"cannot read the resources of one kernel from: {listing!r}")
    return {"registers": int(found[0][0]), "stack": int(found[0][1])}


def amd_resources(assembly: str) -> dict[str, int]:
    """Vector registers and bytes of scratch memory of an AMD kernel."""
    registers = re.findall(r"\.vgpr_count:\s+(\d+)", assembly)
    scratch = re.findall(r"\.private_segment_fixed_size:\s+(\d+)", assembly)
    return {"registers": int(registers[0]), "stack": int(scratch[0])}


def measure(variant: Variant, target: GPUTarget) -> dict[str, Any]:
    """Compile; registers, stack and shared memory in bytes, and the use of the matrix units."""
    compiled = compile_variant(variant, target)
    if target.backend == "cuda":
        text = compiled.asm["ptx"]
        resources = cubin_resources(compiled.asm["cubin"])
    else:
        text = compiled.asm["amdgcn"]
        resources = amd_resources(text)
    used = any(name in text for name in MATRIX_INSTRUCTIONS[target.backend])
    return {**resources, "shared": compiled.metadata.shared, "matrix_units": used}


def main() -> None:
    """Print one line per variant."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", choices=list(TARGETS), required=True)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--share", default="0/1", help="i/n: every n-th variant from the i-th on")
    options = parser.parse_args()
    index, count = map(int, options.share.split("/"))
    chosen = [variant for variant in variants(options.target) if variant.fast or not options.fast]
    for variant in chosen[index::count]:
        start = time.monotonic()
        line: dict[str, Any] = {"name": variant.name, "products": variant.products}
        try:
            line.update(measure(variant, TARGETS[options.target]))
        except Exception as error:  # reported as this variant's failure, not the run's
            line["error"] = f"{type(error).__name__}: {error}"[:2000]
        line["seconds"] = round(time.monotonic() - start, 2)
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
