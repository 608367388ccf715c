"""A million titles need no more memory than a few hundred MiB, from conversion to batches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TITLES, LABELS, LIMIT = 1_000_000, 300_000, 400  # MiB

# Runs on its own, so that the peak is that of these steps alone.
SCRIPT = """
import json, resource, sys
from pathlib import Path

import numpy as np

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data import load_dataset
from alc_kernels.trainer.data.convert import ConvertOptions, convert
from alc_kernels.trainer.data.inspect import inspect_dataset
from alc_kernels.trainer.data.layouts import find_source
from alc_kernels.trainer.encoders import ConcatTokens, build_encoder

source, output, model = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
encoder = build_encoder(model, TrainConfig(embedding_dim=8, hidden_dim=8, max_length=32))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


start, grown = peak(), {}
if not output.exists():
    convert(find_source(source)[0], output, ConvertOptions(hold_out_share=0.1))
    grown["convert"] = peak() - start
data = load_dataset(output)
grown["load"] = peak() - start
tokens = ConcatTokens(
    encoder.tokenize(data.train.queries, cache=data.cache),
    encoder.tokenize(data.labels, cache=data.cache),
)
grown["tokenise"] = peak() - start
order = np.random.default_rng(0).permutation(len(tokens))
seen = 0
for batch in np.array_split(order, len(order) // 1024)[:300]:
    seen += len(tokens.gather(batch)[0])
grown["select"] = peak() - start
if len(sys.argv) > 4:
    encoder.adapt(tokens)
    grown["adapt"] = peak() - start
    inspect_dataset(data)
    grown["inspect"] = peak() - start
grown["titles"], grown["labels"], grown["ids"] = len(data.train), len(data.labels), seen
print(json.dumps(grown))
"""


def write_source(folder: Path) -> None:
    """Titles of about 60 characters, two labels each, in the raw layout."""
    folder.mkdir()
    words = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("lmon", "rtex", "nüva", "x9")]

    def title(number: int, width: int) -> str:
        mixed = number * 2654435761 % 2**32
        return f"{number:07d} " + " ".join(words[(mixed >> i) % len(words)] for i in range(width))

    with (folder / "lbl.raw.txt").open("w", encoding="utf-8") as file:
        file.writelines(f"{title(i, 5)}\n" for i in range(LABELS))
    for name, count in (("trn", TITLES), ("tst", 1000)):
        with (folder / f"{name}.raw.txt").open("w", encoding="utf-8") as file:
            file.writelines(f"{title(i, 8)}\n" for i in range(count))
        with (folder / f"{name}_X_Y.txt").open("w", encoding="utf-8") as file:
            file.write(f"{count} {LABELS}\n")
            file.writelines(f"{i % LABELS}:1.0 {i * 7 % LABELS}:1.0\n" for i in range(count))


def run(source: Path, output: Path, model: str, *more: str) -> dict[str, float]:
    words = [sys.executable, "-c", SCRIPT, str(source), str(output), model, *more]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_million_titles_in_a_few_hundred_mebibytes(tmp_path: Path) -> None:
    write_source(tmp_path / "source")
    grown = run(tmp_path / "source", tmp_path / "data", "ngrams", "inspect")
    assert grown["titles"] > 0.7 * TITLES and grown["labels"] == LABELS
    for step in ("convert", "load", "tokenise", "select", "adapt", "inspect"):
        assert grown[step] < LIMIT, grown
    again = run(tmp_path / "source", tmp_path / "data", "ngrams")
    assert again["ids"] == grown["ids"] and again["select"] < LIMIT, again
    print(grown, again)
