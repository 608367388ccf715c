"""What ALC's batch part costs in its forms: one step, forward and backward, beside the bare loss.

    python -m benchmarks.batch_part --rows 256 1024 8192 --output benchmarks/results/NAME.json

"bare" has no auxiliary part; every other line is timed in turn with it. "default, eager" is the
default in plain PyTorch, without any dropout. "MiB": memory of a step beyond inputs and gradients.
Times are of one machine: look at the ratios.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import torch

from alc_kernels import ALCLoss, Auxiliary
from alc_kernels.bench import eager, measure, record

FORMS = {
    "bare": None,
    "+ pair part": Auxiliary(batch_weight=0.0),
    "default": Auxiliary(),
    "default, eager": Auxiliary(dropout=0.0),
    "default, all rows": Auxiliary(context_rows=None),
    "groups of 256": Auxiliary(context_size=256),
    "wide, groups of 256": Auxiliary.wide(context_size=256),
    "wide": Auxiliary.wide(),
}


def action(form: str, width: int, device: str) -> Any:
    """The loss of two (B, d)."""
    loss = ALCLoss(width, auxiliary=FORMS[form]).to(device)
    return functools.partial(eager.alc, heads=loss) if form.endswith("eager") else loss


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[256, 1024, 8192])
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--form", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each number of rows")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows: list[dict[str, Any]] = []
    for count in arguments.rows:
        size = count, count, arguments.width
        pairs = [measure.inputs(*size, torch.float32, device, seed) for seed in range(2)]
        actions: dict[str, list[Any]] = {
            "G": [functools.partial(torch.mm, q.detach(), k.detach().T) for q, k in pairs]
        }
        for form in arguments.form:
            loss = action(form, arguments.width, device)
            actions[form] = [functools.partial(measure.run, loss, pair) for pair in pairs]
        times = measure.interleaved(actions, device, arguments.repeats, arguments.seconds)
        peaks = {
            form: measure.peak_memory(action(form, arguments.width, device), pairs[0])
            for form in arguments.form
        }
        medians = {
            name: float(measure.summary(taken)["median_ms"]) for name, taken in times.items()
        }
        print(f"\nB = {count}, d = {arguments.width}")
        print(f"{'':32}{'ms':>10}{'x G':>8}{'x bare':>8}{'MiB':>8}")
        for name, milliseconds in medians.items():
            made = {
                "form": name, "rows": count, "width": arguments.width, "median_ms": milliseconds,
                "ratio_to_product": milliseconds / medians["G"],
                "ratio_to_bare": milliseconds / medians["bare"],
                "peak_bytes": peaks.get(name),
            }  # fmt: skip
            rows.append(made)
            print(f"{name:32}{milliseconds:10.2f}{made['ratio_to_product']:8.2f}"
                  f"{made['ratio_to_bare']:8.2f}{(peaks.get(name) or 0) / 2**20:8.1f}")  # fmt: skip
    if arguments.output is not None:
        record.write(arguments.output, rows, "python -m benchmarks.batch_part")


if __name__ == "__main__":
    main()
