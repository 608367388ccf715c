"""All that matters most of a GPU, in nine minutes.

    python3 -m benchmarks.fifteen OUTPUT [--dry] [--plan] [--report] [--wheels DIR] [--minutes N]

OUTPUT gets fifteen.jsonl (a line per row, on disk when it is taken), fifteen.json (the result of
record), fifteen.txt (tables, ready to paste) and fifteen.log (what the workers said). ``--report``
makes the last two of an fifteen.jsonl that is there, of a run that was cut, say. Exits with 1 where
something of ours failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.fifteen import plan, report
from benchmarks.fifteen.journal import Journal, read
from benchmarks.fifteen.pool import ROOT, Pool

REPORT_SECONDS = 8.0  # kept free at the end
BUILD_SECONDS = 30.0  # that the CUDA kernels may take longer than the values
Row = dict[str, Any]


def say(text: str) -> None:
    print(text, flush=True)


def environment(sizes: plan.Sizes) -> Row:
    """Where and with what; PyTorch must see a GPU unless the run is dry."""
    import torch

    from alc_kernels.bench import record

    if sizes.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU that PyTorch can use: --dry runs all of this in Triton's interpreter")
    head: Row = {**record.environment(), "rows": sizes.rows, "widths": sizes.widths}
    head |= {"dtype": sizes.dtype, "active": 0.0005}
    if sizes.device == "cuda":
        head["capability"] = torch.cuda.get_device_capability()
        head["memory_gib"] = torch.cuda.get_device_properties(0).total_memory // 2**30
    return head


def install(wheels: Path, folder: Path) -> list[str]:
    """Put the carried wheels where the workers look; what is absent is said by its rows."""
    if not list(wheels.glob("*.whl")):
        say(f"no wheels at {wheels}: other libraries are measured only if they are installed")
        return []
    names = [str(name) for name in sorted(wheels.glob("*.whl"))]
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    command += ["--find-links", str(wheels), "--no-compile", "--target", str(folder)]
    # All at once; where one does not fit here, one by one, so that it keeps no other away.
    for group in [names, *([name] for name in names)]:
        done = subprocess.run([*command, *group], capture_output=True, text=True, check=False)
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        short = ", ".join(Path(name).name for name in group)
        say(f"{short}: {'installed' if done.returncode == 0 else last}")
        if group is names and done.returncode == 0:
            break
    return [str(folder)]


def build_cuda(folder: Path) -> tuple[subprocess.Popen[bytes] | None, dict[str, str]]:
    """Compile the CUDA kernels while the values are checked, where there is nvcc."""
    sys.path.insert(0, str(ROOT))
    from csrc import nvcc

    compiler = nvcc.find()
    if compiler is None:
        say("no nvcc: the CUDA kernels are not measured")
        return None, {}
    os.environ.setdefault(nvcc.VARIABLE, "90")
    library = folder / "alc_cuda.so"
    with (folder / "nvcc.log").open("w") as log:
        try:
            command = nvcc.library_command(compiler, ROOT, library)
        except ValueError as error:
            say(f"the CUDA kernels are not measured: {error}")
            return None, {}
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    return process, {"ALC_KERNELS_CUDA_LIBRARY": str(library)}


def finished(process: subprocess.Popen[bytes]) -> bool:
    """Whether the compiler ended well, within BUILD_SECONDS more."""
    try:
        return process.wait(timeout=BUILD_SECONDS) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        return False


class Run:
    """One run: its pool, its journal, and what is printed of them.

    Args:
        sizes: of the plan.
        out: where the files go.
        minutes: for everything, from ``started`` on.
        started: by the monotonic clock.
    """

    def __init__(self, sizes: plan.Sizes, out: Path, minutes: float, started: float) -> None:
        self.sizes, self.out, self.started = sizes, out, started
        end = started + 60 * minutes - REPORT_SECONDS
        out.mkdir(parents=True, exist_ok=True)
        log = out / "fifteen.log"
        log.write_text("", encoding="utf-8")
        mode = "dry" if sizes.device == "cpu" else "full"
        self.pool = Pool(mode, sizes.processes, end, log, self.report)
        # torch.compile's own processes, of each of ours.
        self.pool.environment["TORCHINDUCTOR_COMPILE_THREADS"] = "2"
        if mode == "dry":
            self.pool.environment |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}

    def report(self, item: plan.Item, rows: list[Row], seconds: float) -> None:
        """Onto the disk, then a line."""
        self.journal.add(item, rows, seconds)
        for row in rows:
            text = row.get("missing")
            if text is None and "ratio_to_product" in row:
                text = f"{row['median_ms']:.3f} ms, {row['ratio_to_product']:.2f} G"
                memory = row.get("extra_bytes")
                text += "" if memory is None else f", {memory / 2**20:.0f} MiB"
            elif text is None and "errors" in row:
                text = f"{row.get('extra_mib', '?')} MiB, {'right' if row['right'] else 'WRONG'}"
            elif text is None and "value_error" in row:
                text = "right"
            clock = time.monotonic() - self.started
            say(f"{clock:6.1f} s  {item!s:52} {seconds:5.1f} s  {text or 'done'}")

    def all(self, temporary: Path) -> None:
        """The plan from its first item to its last."""
        sizes, pool = self.sizes, self.pool
        process, added = (None, {}) if sizes.device == "cpu" else build_cuda(temporary)
        pool.environment |= added
        pool.start()
        try:
            self.journal = Journal(self.out / "fifteen.jsonl", environment(sizes))
            done = pool.together(plan.values(sizes), sizes.value_seconds)
            if process is not None and not finished(process):
                lines = (temporary / "nvcc.log").read_text(errors="replace").splitlines()
                reason = (lines or ["not done in time"])[-1]
                say(f"the CUDA kernels do not compile: {reason}")
            pool.one_by_one(plan.measurements(sizes), self.still_to_compile(done))
            write_report(self.out)  # on disk whatever becomes of the tiles
            if pool.together(plan.tile_values(sizes), sizes.value_seconds / 2):
                pool.one_by_one(plan.tiles(sizes), lambda item: 0.0)
            else:
                for item in plan.tiles(sizes):
                    self.report(item, [{"missing": "no tile was compiled in time"}], 0.0)
        finally:
            pool.stop()
            if process is not None and process.poll() is None:
                process.kill()

    def still_to_compile(self, done: set[tuple[Any, ...]]) -> Callable[[plan.Item], float]:
        """Seconds that an item takes more because its values were not reached."""

        def seconds(item: plan.Item) -> float:
            key = replace(item, kind="values").key
            if item.kind != "time" or key in done or item.provider in ("eager", plan.SCREENING):
                return 0.0
            if not self.sizes.guessed:
                return 0.0
            return plan.compile_seconds(item.work, item.width, item.provider)

        return seconds


def write_report(out: Path) -> str:
    """fifteen.json and fifteen.txt of fifteen.jsonl; the text."""
    import json

    head, rows = read(out / "fifteen.jsonl")
    text = report.text(head, rows)
    (out / "fifteen.txt").write_text(text, encoding="utf-8")
    timed = [row for row in rows if row["kind"] == "time" and "columns" in row]
    record = {"environment": head, "command": "benchmarks/on_gpu.sh OUT fifteen", "rows": timed}
    (out / "fifteen.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return text


def main(arguments: list[str] | None = None) -> int:
    started = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="benchmarks/on_gpu.sh", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--dry", action="store_true", help="toy sizes, in Triton's interpreter")
    parser.add_argument("--plan", action="store_true", help="print what is measured, and stop")
    parser.add_argument("--report", action="store_true", help="of the rows that are there")
    parser.add_argument("--wheels", type=Path, default=ROOT / ".wheels", help="(.wheels)")
    parser.add_argument("--minutes", type=float, help="for everything (9)")
    chosen = parser.parse_args(arguments)
    sizes = plan.DRY if chosen.dry else plan.FULL
    if chosen.plan:
        say(plan.as_text(sizes))
        return 0
    if not chosen.report:
        run = Run(sizes, chosen.output, chosen.minutes or sizes.minutes, started)
        with tempfile.TemporaryDirectory() as folder:
            site = install(chosen.wheels, Path(folder) / "site")
            paths = [*site, run.pool.environment["PYTHONPATH"]]
            run.pool.environment["PYTHONPATH"] = os.pathsep.join(paths)
            run.all(Path(folder))
    try:
        text = write_report(chosen.output)
        _, rows = read(chosen.output / "fifteen.jsonl")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    say("\n" + text)
    return 1 if report.failures(rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
