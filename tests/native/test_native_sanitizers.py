"""The operators' own tests once more under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from csrc import flags
from tests.native.common import needs_native

ROOT = Path(__file__).resolve().parents[2]
SANITIZE = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
# What runs under them: every operator, any shape and layout, bad inputs.
TESTS = [
    "tests/native/test_native_fuzz.py",
    "tests/native/test_native_errors.py",
    "tests/native/test_native_exact.py",
    "tests/native/test_native_fresh.py",
    "tests/native/test_native_screening.py",
    "tests/backends",
    "tests/losses/test_agreement.py",
]


def runtime(name: str) -> str | None:
    """Path of a run-time library of the compiler; None when it has none."""
    command = [*flags.compiler(), f"-print-file-name={name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    path = done.stdout.strip()
    return path if done.returncode == 0 and Path(path).is_absolute() else None


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A library built with the sanitizers, and what a process needs to load it."""
    preload = [runtime(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so")]
    if None in preload:
        pytest.skip(f"{flags.compiler()[0]} has no shared sanitizer run-time libraries")
    folder = tmp_path_factory.mktemp("sanitized")
    library = folder / "sanitized.so"
    for command in flags.library_commands(ROOT, library, "-O1", "-g1", *SANITIZE):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    return os.environ | {
        "ALC_KERNELS_NATIVE_LIBRARY": str(library),
        "LD_PRELOAD": " ".join(map(str, preload)),
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }


@pytest.mark.slow
@needs_native
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("threads", [1, 3])
def test_no_report(environment, threads):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-s", "-p", "no:cacheprovider"]
    command += ["-p", "no:xdist", "-p", "no:faulthandler", "-k", "native", "-m", "not slow"]
    done = subprocess.run(
        [*command, *TESTS], cwd=ROOT, capture_output=True, text=True, timeout=1400, check=False,
        env=environment | {"ALC_TEST_THREADS": str(threads)},
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
