"""The study of a pre-trained encoder in nine minutes on a GPU, in the order of its worth.

    python experiments/fifteen.py OUTPUT --encoder FOLDER --data CSV_OR_FOLDER [--jobs 8]
    python experiments/fifteen.py OUTPUT --dry      # tiny random encoder, generated catalogue, CPU

Runs of minilm_fifteen.toml, several at a time. OUTPUT gets a line per finished run, on disk when it
is finished (fifteen-study.jsonl: validation and test), the tables (fifteen-study.txt) and the
comparison (comparison.txt, without titles). What is cut or does not fit is said. Exits with 1 where
a run failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "experiments")]

import study  # noqa: E402

STUDY = ROOT / "experiments" / "minilm_fifteen.toml"
# Seconds: a first run's guess (eight side by side), and what is kept free for the tables.
RUN_SECONDS, COMPARE_SECONDS = 110.0, 75.0
DRY = {"epochs": 1, "batch_size": 64, "max_length": 16, "precision": "fp32", "device": "cpu"}
DRY_TITLES = ("60", "400")  # products and titles


def tiny_encoder(folder: Path, texts: list[str]) -> Path:
    """A random BERT of one layer that knows the words of ``texts``."""
    import torch
    import transformers

    folder.mkdir()
    words = dict.fromkeys(word for text in texts for word in text.lower().split())
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    shape = transformers.BertConfig(
        vocab_size=len(tokens), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertModel(shape).save_pretrained(folder)
    return folder


def alc(*words: str, seconds: float | None = None) -> str:
    """What ``alc`` prints; ends this program where it fails.

    Raises:
        subprocess.TimeoutExpired: it took longer than ``seconds``.
    """
    command = [sys.executable, "-m", "alc_kernels", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=seconds
    )
    if done.returncode != 0:
        sys.exit(f"alc {words[0]}: {done.stderr.strip()}")
    return done.stdout


def prepared(chosen: argparse.Namespace, work: Path) -> tuple[Path, Path, dict[str, Any]]:
    """Encoder, data folder, settings that differ from the study's."""
    if chosen.dry:
        labels, titles = DRY_TITLES
        data = work / "data"
        alc("data", "generate", "--labels", labels, "--titles", titles, "--output", str(data))
        from alc_kernels.trainer.data import load_dataset

        return tiny_encoder(work / "encoder", list(load_dataset(data).labels)), data, DRY
    if chosen.encoder is None or chosen.data is None:
        sys.exit("--encoder and --data: expected both, or --dry")
    if not (chosen.encoder / "config.json").is_file():
        sys.exit(f"--encoder {chosen.encoder}: expected a folder with config.json and weights")
    data = chosen.data
    if data.suffix == ".csv":
        data = work / "data"
        alc("data", "pricerunner", str(chosen.data), "--output", str(data))
    return chosen.encoder.resolve(), data, {"device": "cuda"}


class Study:
    """Runs side by side under a clock; each finished one is a line on the disk.

    Args:
        out: where the lines go.
        end: when the last run must be finished, by the monotonic clock.
        guess: seconds of a run before one is finished.
    """

    def __init__(self, out: Path, end: float, guess: float) -> None:
        self.end, self.longest, self.lock = end, guess, threading.Lock()
        self.measured = False
        self.file = (out / "fifteen-study.jsonl").open("w", encoding="utf-8")
        self.missing: list[str] = []
        self.failed: list[str] = []

    def run(self, folder: Path, settings: dict[str, Any], data: Path) -> None:
        """Train, unless the time left is too short for it."""
        left = self.end - time.monotonic()
        if left < self.longest:
            self.note(f"skipped: about {self.longest:.0f} s, {max(left, 0):.0f} s left", folder)
            return
        started = time.monotonic()
        fault = study.train(folder, settings, data, threads=1, seconds=left)
        took = time.monotonic() - started
        if fault is not None:
            if time.monotonic() >= self.end:
                self.note(f"cut after {took:.0f} s", folder)
            else:
                self.failed.append(fault)
            return
        found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        row = {"run": folder.name, "seconds": round(took, 1)}
        row |= {"validation": study.validation(folder), "test": found["metrics"]}
        with self.lock:
            self.longest = max(self.longest, took) if self.measured else took
            self.measured = True
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())

    def note(self, reason: str, folder: Path) -> None:
        with self.lock:
            self.missing.append(f"{folder.name}: {reason}")
        print(self.missing[-1], file=sys.stderr, flush=True)


def compared(folders: list[Path], data: Path, seconds: float) -> str:
    """``alc compare`` without the examples, which are product titles."""
    try:
        text = alc("compare", *map(str, folders), "--data", str(data), seconds=seconds)
    except subprocess.TimeoutExpired:
        return f"the comparison was cut after {seconds:.0f} s: the lines of the runs have all\n"
    return text.split("\nExamples")[0].rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--encoder", type=Path, help="folder of a Hugging Face text encoder")
    parser.add_argument("--data", type=Path, help="pricerunner_aggregate.csv or a data folder")
    parser.add_argument("--jobs", type=int, default=8, help="runs at a time (8)")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything (9)")
    parser.add_argument("--dry", action="store_true", help="tiny, on the CPU")
    parser.add_argument("--plan", action="store_true", help="print the runs in order, and stop")
    chosen = parser.parse_args()
    started = time.monotonic()
    runs = study.combinations(study.read_toml(STUDY))
    if chosen.plan:
        for name, settings in runs:
            print(f"{name}_{settings['seed']}")
        rounds = (60 * chosen.minutes - COMPARE_SECONDS) // RUN_SECONDS
        print(f"guessed at {RUN_SECONDS:.0f} s each, {chosen.jobs} at a time: the first "
              f"{int(rounds) * chosen.jobs} fit in {chosen.minutes:g} minutes")  # fmt: skip
        return
    chosen.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        encoder, data, changes = prepared(chosen, work)
        made = {**study.read_toml(STUDY)}
        made["common"] = {**made["common"], **changes, "encoder": str(encoder)}
        runs = study.combinations(made)
        if chosen.dry:  # both losses of a table, one method and seed
            runs = runs[:2]
        reserve = 0.0 if chosen.dry else COMPARE_SECONDS
        end = started + 60 * chosen.minutes - reserve
        clock = Study(chosen.output, end, 1.0 if chosen.dry else RUN_SECONDS)
        folders = [work / "runs" / f"{name}_{s['seed']}" for name, s in runs]
        with ThreadPoolExecutor(1 if chosen.dry else chosen.jobs) as pool:
            list(pool.map(lambda f, s: clock.run(f, s[1], data), folders, runs))
        finished = [folder for folder in folders if (folder / "metrics.json").is_file()]
        for folder in folders:
            log = folder.parent / f"{folder.name}.log"
            if folder not in finished and log.is_file():
                shutil.copy(log, chosen.output / "fifteen-study.log")  # of the last that failed
        text = study.table(study.grouped(finished)) + "\n" if finished else "no run finished\n"
        text += "".join(f"{line}\n" for line in ["", *clock.missing, *clock.failed])
        (chosen.output / "fifteen-study.txt").write_text(text, encoding="utf-8")
        print(text, flush=True)
        if finished:
            left = started + 60 * chosen.minutes - time.monotonic() - 5
            comparison = compared(finished, data, max(left, 10.0))
            (chosen.output / "comparison.txt").write_text(comparison, encoding="utf-8")
            print(comparison)
    if clock.failed or not finished:
        sys.exit(1)


if __name__ == "__main__":
    main()
