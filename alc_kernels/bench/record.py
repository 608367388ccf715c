"""The frame of a result of record: where and with what it was measured."""

from __future__ import annotations

import json
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from alc_kernels.whole import write_whole


def environment() -> dict[str, Any]:
    """Hardware, driver, versions and commit."""
    try:
        from triton import __version__ as triton_version
    except ImportError:
        triton_version = None
    found: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "triton": triton_version,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "commit": _output("git", "rev-parse", "HEAD"),
        "modified": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
    }
    if torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
        found["driver"] = _output(
            "nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"
        )
    else:
        found["device"] = f"CPU, {platform.machine()}"
    return found


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def read(path: Path) -> dict[str, Any]:
    """Read a result of record; :class:`ValueError` names the file when it is not one."""
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a result of record ({error})") from None
    if not isinstance(made, dict) or not {"environment", "command", "rows"} <= made.keys():
        raise ValueError(f"{path}: expected a result of record with environment, command and rows")
    return made


def write(path: Path, rows: list[dict[str, Any]], command: str) -> None:
    """Write a result of record as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"environment": environment(), "command": command, "rows": rows}
    write_whole(path, json.dumps(record, indent=1) + "\n")
