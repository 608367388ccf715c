"""How the CPU passes are compiled: for ``setup.py`` and for the tests that build them anew."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path("csrc") / "cpu"
# No trapping, no errno: comparisons and square roots vectorise. Results stay exact per operation;
# sums may only be reordered where a loop says so (#pragma omp simd reduction).
OPTIMIZE = ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
# Threads are PyTorch's: of OpenMP only what says that a loop may be vectorised.
LANGUAGE = ["-std=c++20", "-fopenmp-simd", "-fvisibility=hidden"]
WARNINGS = ["-Wall", "-Wno-unknown-pragmas"]
TRY = "#include <bit>\nint main() { return 0; }\n"


def sources(root: Path) -> list[str]:
    """Every .cpp file below csrc/cpu, relative to ``root``."""
    found = sorted((root / FOLDER).rglob("*.cpp"))
    return [str(path.relative_to(root)) for path in found]


def headers(root: Path) -> list[str]:
    """What a change of which compiles everything again."""
    return [str(path.relative_to(root)) for path in sorted((root / FOLDER).rglob("*.h"))]


def digest(root: Path) -> str:
    """Of the sources: with another one the library may have another interface."""
    made = hashlib.sha256()
    for path in [*sources(root), *headers(root)]:
        made.update((root / path).read_bytes())
    return made.hexdigest()


def compiler() -> list[str]:
    """The C++ compiler."""
    return os.environ.get("CXX", "c++").split()


def _compiles(flags: list[str], text: str) -> str | None:
    """Why the compiler cannot build ``text`` with ``flags``, or None when it can."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "try.cpp"
        source.write_text(text, encoding="utf-8")
        command = [*compiler(), *flags, str(source), "-o", str(Path(folder) / "try")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines() or ["no message"]
    return None if done.returncode == 0 else lines[0]


def missing() -> str | None:
    """Why nothing can be compiled here, or None."""
    if sys.platform == "win32":
        return "the sources are written for gcc and clang"
    if shutil.which(compiler()[0]) is None:
        return f"there is no C++ compiler ({compiler()[0]})"
    reason = _compiles(LANGUAGE, TRY)
    return None if reason is None else f"{compiler()[0]} cannot compile C++20: {reason}"


def compile_flags() -> list[str]:
    return [*LANGUAGE, *OPTIMIZE, *WARNINGS]


def library_commands(root: Path, library: Path, *more: str) -> list[list[str]]:
    """The commands that make ``library`` of the sources, beside object files of its own.

    All but the last are independent of each other.
    """
    objects: list[str] = []
    commands = []
    for source in sources(root):
        made = library.parent / (Path(source).stem + ".o")
        commands.append(
            [
                *compiler(),
                *compile_flags(),
                *more,
                "-fPIC",
                "-c",
                str(root / source),
                "-o",
                str(made),
            ]
        )
        objects.append(str(made))
    return [*commands, [*compiler(), *more, "-shared", *objects, "-o", str(library)]]
