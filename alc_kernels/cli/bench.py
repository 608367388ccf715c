"""``alc bench``: time the losses beside plain PyTorch and other libraries; compare two results."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from alc_kernels.cli.arguments import check_ending, number
from alc_kernels.trainer.errors import BadInput

# ``alc bench tune``: measure tiles on this GPU and keep the faster ones in a file.


DTYPES = ("bfloat16", "float16", "float32")
# alc_kernels.backends.triton.launch.KERNELS, without importing Triton.
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
    from alc_kernels.backends import triton as triton_backend
    from alc_kernels.backends.cuda.library import SWITCH, switch

    reason = triton_backend.unsupported(torch.empty(1, device="cuda"))
    if reason is not None:
        raise BadInput(reason)
    if switch() == "1":
        raise BadInput(f"alc bench tune is about the Triton kernels: unset {SWITCH}")
    tune_all(arguments, "cuda")


def tune_all(arguments: argparse.Namespace, device: str) -> None:
    """Measure every entry that was asked for, and write each as soon as it is known."""
    import torch

    from alc_kernels.backends.triton import launch as tuned
    from alc_kernels.backends.triton.launch import dot_precision
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
                        kernel,
                        dtype,
                        d,
                        arguments.rows,
                        device=device,
                        rounds=(50, arguments.seconds),
                    )
                    print("\n".join(lines(rows)), flush=True)
                    # Where the table's own entry is the best it is written too: an older choice
                    # may not stay.
                    key = tuned.key(kernel, dtype, dot_precision(dtype), d)
                    tuned.write(path, where, {key: best(rows) or rows[0].tile})
    except ValueError as error:
        raise BadInput(str(error)) from None
    print(f"\nWritten: {path}. {tuned.SWITCH}={path} uses it.")


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="time the losses beside plain PyTorch and other libraries",
        description="Check every provider's value and gradients against float64, then time all in "
        "turn. G is the time of torch.mm(Q, K.T) in the same dtype in the same run.",
    )
    kinds = parser.add_subparsers(metavar="KIND", dest="kind")
    table = kinds.add_parser("table", help="measure at given sizes")
    table.add_argument("--rows", type=number(int, 2), nargs="+", metavar="B", help="queries")
    table.add_argument(
        "--columns-per-row", type=number(int, 1), default=1, metavar="N", help="M = N B (1)"
    )
    table.add_argument("--width", type=number(int, 1), nargs="+", metavar="D")
    table.add_argument("--dtype", choices=DTYPES, nargs="+")
    table.add_argument("--work", nargs="+", default=[], help="works (all)")
    table.add_argument("--provider", nargs="+", default=[], help="providers (all)")
    table.add_argument(
        "--active",
        type=number(float, 0, 1),
        nargs="+",
        default=[0.0005],
        help="shares of negatives above TCM's margin (0.0005)",
    )
    table.add_argument(
        "--backend", help="ours: triton on a GPU, else native where it is built, else torch"
    )
    table.add_argument("--repeats", type=number(int, 1), help="timed rounds at most")
    table.add_argument("--seconds", type=number(float, 0), default=20.0, help="per work (20)")
    table.add_argument("--output", type=Path, metavar="FILE", help="JSON result of record")
    table.set_defaults(run=run_table)

    compare = kinds.add_parser("compare", help="what got slower between two results of record")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    compare.add_argument(
        "--tolerance",
        type=number(float, 0),
        default=0.05,
        help="share by which a ratio to G may grow (0.05)",
    )
    compare.set_defaults(run=run_compare)

    charts = kinds.add_parser("charts", help="draw results of record")
    charts.add_argument("results", type=Path, nargs="+")
    charts.add_argument("--output", type=Path, required=True, metavar="DIR")
    charts.set_defaults(run=run_charts)
    add_tune(kinds)
    parser.set_defaults(run=_no_kind)


def _no_kind(arguments: argparse.Namespace) -> None:
    raise BadInput("what? alc bench table, compare, charts or tune")


def run_table(arguments: argparse.Namespace) -> None:
    import torch

    from alc_kernels.bench import record
    from alc_kernels.bench.run import HEADER, line, measure_case, provider_names
    from alc_kernels.bench.works import works

    if arguments.output is not None:
        check_ending(arguments.output, (".json",))
    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    if not gpu:
        print("No GPU here: the CPU table. Absolute times mean little; look at the ratios.")
    known = works(16, "cpu", 0.5, 0.0)
    _check("--work", arguments.work, list(known))
    _check("--provider", arguments.provider, provider_names(known.values()))
    rows: list[dict[str, Any]] = []
    for case in _cases(arguments, gpu):
        size = f"B = {case.rows}, M = {case.columns}, d = {case.width}"
        print(f"\n{size}, {case.describe()['dtype']}, {100 * case.active:g} % active\n{HEADER}")
        rows += measure_case(
            case,
            arguments.work,
            arguments.provider,
            device=device,
            repeats=arguments.repeats or (100 if gpu else 7),
            seconds=arguments.seconds,
            report=lambda row: print(line(row), flush=True),
        )
    if arguments.output is not None:
        record.write(arguments.output, rows, "alc " + shlex.join(sys.argv[1:]))
        print(f"\nWritten: {arguments.output}")
    ours = [row for row in rows if row["provider"] == "alc_kernels"]
    if ours and all("median_ms" not in row for row in ours):
        raise BadInput("nothing of alc_kernels could be timed, see the table")


def _check(option: str, names: list[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            raise BadInput(f"{option} {name}: expected one of {', '.join(known)}")


def _cases(arguments: argparse.Namespace, gpu: bool) -> list[Any]:
    import torch

    from alc_kernels.bench.run import Case

    return [
        Case(
            rows,
            rows * arguments.columns_per_row,
            width,
            getattr(torch, dtype),
            active,
            arguments.backend or ("triton" if gpu else "auto"),
        )
        for dtype in arguments.dtype or ["bfloat16" if gpu else "float32"]
        for width in arguments.width or [768 if gpu else 384]
        for rows in arguments.rows or [32768 if gpu else 2048]
        for active in arguments.active
    ]


def run_compare(arguments: argparse.Namespace) -> None:
    from alc_kernels.bench.record import compare

    try:
        text, slower = compare(arguments.before, arguments.after, arguments.tolerance)
    except ValueError as error:
        raise BadInput(str(error)) from None
    print(text)
    if slower:
        raise BadInput(f"{slower} slower than before by more than {arguments.tolerance:.0%}")


def run_charts(arguments: argparse.Namespace) -> None:
    from alc_kernels.bench.record import draw

    try:
        made = draw(arguments.results, arguments.output)
    except ValueError as error:
        raise BadInput(str(error)) from None
    print(f"Written: {', '.join(str(path) for path in made)}")


# ``alc info``: versions, and which backends can run here.


PACKAGES = ("torch", "triton", "numpy", "scipy", "scikit-learn", "matplotlib", "rich",
            "transformers", "faiss-cpu", "faiss-gpu")  # fmt: skip


def add_info(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="versions and backends",
        description="Print versions, the devices, and which backends of the losses can run here.",
    )
    parser.set_defaults(run=run_info)


def run_info(arguments: argparse.Namespace) -> None:
    import torch

    import alc_kernels

    print(f"alc-kernels {alc_kernels.__version__}, Python {platform.python_version()}")
    print(", ".join(f"{name} {_version(name)}" for name in PACKAGES))
    print("\nDevices")
    print(f"  cpu: {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        print(f"  cuda:{index}: {properties.name}, {memory:.0f} GiB")
    if not torch.cuda.is_available():
        print("  no GPU that PyTorch can use")
    print("\nBackends of the losses (float32)")
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for device in devices:
        for name, reason in _backends(device):
            live = "live" + _details(name)
            print(f"  {device} {name}: {live if reason is None else 'not live: ' + reason}")
    print(f"\n{_cuda_kernels()}")
    print(_tuned_tiles())


def _cuda_kernels() -> str:
    """Whether the CUDA kernels can run here, and what they are used for."""
    import torch

    from alc_kernels.backends.cuda import library

    device = "cuda" if torch.cuda.is_available() else "cpu"
    reason = library.unavailable(torch.empty(0, device=device))
    if reason is not None:
        return f"CUDA kernels: not live: {reason}"
    parts = [part for part in library.PARTS if library.enabled(part, torch.empty(0, device=device))]
    used = f"used for {', '.join(parts)}" if parts else f"not used ({library.SWITCH}=1 uses them)"
    return f"CUDA kernels: live, {used}"


def _tuned_tiles() -> str:
    """Whether the Triton kernels take tiles from a file of ``alc bench tune``."""
    import torch

    try:
        from alc_kernels.backends.triton import launch as tuned

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        path = tuned.path_in_use(device)
        if path is None:
            return f"Tiles of the Triton kernels: the tables' ({tuned.SWITCH} is not set)"
        tiles = tuned.read(path, device)
    except ImportError as error:
        return f"Tiles of the Triton kernels: none, {error}"
    except ValueError as error:
        return f"Tiles of the Triton kernels: refused: {error}"
    return f"Tiles of the Triton kernels: {len(tiles)} tuned, from {path}; the tables' otherwise"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _details(name: str) -> str:
    """What else is worth knowing of a backend that runs."""
    if name != "native":
        return ""

    from alc_kernels.backends.native import library, screening

    if library.load() is not None:
        return ""
    loops, products = library.simd()
    text = f"8-bit screening with {products}"
    if os.environ.get(screening.SWITCH) == "off":
        text = f"no 8-bit screening: {screening.SWITCH}=off"
    elif products == "baseline":
        text = "no 8-bit screening: no instructions for it"
    return f" (vector loops for {loops}, {text})"


def _backends(device: str) -> list[tuple[str, str | None]]:
    """Name and, where it cannot run, the reason, of every backend on ``device``."""
    import torch

    from alc_kernels.engine.prepare import BACKENDS, unavailable

    example = torch.empty(1, 1, device=device)
    return [
        (name, unavailable(name, example, torch.float32)) for name in BACKENDS if name != "auto"
    ]
