"""ALCRankingLoss beside MultipleNegativesRankingLoss and its cached form: same data, same seed.

python examples/sentence_transformers_compare.py --seeds 3 --output results.txt

A BERT of a million parameters with random weights learns to match generated product titles.
Each training runs in a process of its own. Time is that of the training loop; memory is what the
process grows by beyond its size before training (Linux). Coverage is that of the test titles on
the open catalogue, where some titles have no right answer: at its best threshold (C@.9), and at
the threshold chosen on the validation titles.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")  # a bar for every file that is written or read

MINI_BATCH = 32


def losses(model: Any) -> dict[str, Any]:
    """What is compared; each is made when it is called."""
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )

    from alc_kernels import Softmax
    from alc_kernels.integrations.sentence_transformers import ALCRankingLoss, CachedALCRankingLoss

    softmax = Softmax(temperature=0.05)  # scale 20
    plain = {"base": softmax, "auxiliary": None, "threshold": None, "duplicates": None}
    mini = {"mini_batch_size": MINI_BATCH}
    return {
        "MNRL": lambda: MultipleNegativesRankingLoss(model),
        "fused softmax (= MNRL)": lambda: ALCRankingLoss(model, **plain),
        "fused softmax, equal texts match": lambda: ALCRankingLoss(model, softmax, None, None),
        "softmax + ALC + TCM": lambda: ALCRankingLoss(model, softmax),
        "triplet + ALC + TCM (default)": lambda: ALCRankingLoss(model),
        "cached MNRL": lambda: CachedMultipleNegativesRankingLoss(model, **mini),
        "cached fused softmax (= MNRL)": lambda: CachedALCRankingLoss(model, **plain, **mini),
        "cached softmax + ALC + TCM": lambda: CachedALCRankingLoss(model, softmax, **mini),
    }


def vocabulary(texts: list[str], num_words: int = 2000) -> list[str]:
    """WordPieces: special ones, characters, frequent words. The same in every process."""
    counts = Counter(word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower()))
    words = sorted(counts, key=lambda word: (-counts[word], word))[:num_words]
    letters = sorted({letter for word in counts for letter in word})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return list(dict.fromkeys([*special, *letters, *(f"##{x}" for x in letters), *words]))


def make_model(texts: list[str], seed: int) -> Any:
    """A small BERT with the vocabulary of the training texts, and mean pooling."""
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join(vocabulary(texts)) + "\n", "utf-8")
        tokenizer = transformers.BertTokenizer(str(Path(folder) / "vocab.txt"))
        tokenizer.save_pretrained(folder)
        torch.manual_seed(seed)
        config = transformers.BertConfig(
            vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=256, max_position_embeddings=64,
        )  # fmt: skip
        transformers.BertModel(config).save_pretrained(folder)
        body = Transformer(folder)
    pooling = Pooling(body.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[body, pooling], device="cpu")


def make_evaluator(dataset: Any) -> Any:
    """Test titles on the open catalogue, thresholds from the validation titles."""
    from alc_kernels.integrations.sentence_transformers import CoverageEvaluator

    catalogue = dataset.open_catalogue()

    def split(name: str) -> tuple[dict[str, str], dict[str, set[str]]]:
        queries = {str(i): text for i, text in enumerate(dataset.splits[name].queries)}
        relation = catalogue.relations[name]
        right = {str(i): {str(j) for j in relation[i].indices} for i in range(len(queries))}
        return queries, right

    corpus = {str(j): text for j, text in enumerate(catalogue.texts)}
    (queries, right), (val_queries, val_right) = split("test"), split("validation")
    return CoverageEvaluator(
        queries, corpus, right, precisions=(0.9,), batch_size=256,
        validation_queries=val_queries, validation_relevant_docs=val_right,
    )  # fmt: skip


def train_one(settings: argparse.Namespace) -> dict[str, float]:
    """Train with one loss in this process and measure."""
    import resource

    import datasets
    import torch
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from titles import make_dataset, training_pairs

    dataset = make_dataset(settings.labels, settings.titles)
    pairs = training_pairs(dataset)
    data = datasets.Dataset.from_dict(
        {"query": [pair[0] for pair in pairs], "positive": [pair[1] for pair in pairs]}
    )
    model = make_model([text for pair in pairs for text in pair[:2]], settings.seed)
    loss = losses(model)[settings.one]()
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder, num_train_epochs=settings.epochs, max_steps=settings.max_steps,
            per_device_train_batch_size=settings.batch_size, learning_rate=1e-3, warmup_steps=10,
            report_to="none", save_strategy="no", use_cpu=True, seed=settings.seed,
            disable_tqdm=True, logging_strategy="no", dataloader_drop_last=True,
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=loss)
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        begun, cpu = time.perf_counter(), time.process_time()
        trainer.train()
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    steps = trainer.state.global_step
    found = {
        "seconds per step": seconds / steps,
        "CPU seconds per step": cpu / steps,
        "MiB": max(0, peak - before) / 2**20,
        "steps": steps,
        "threads": torch.get_num_threads(),
    }
    return found if settings.max_steps > 0 else {**found, **make_evaluator(dataset)(model)}


COLUMNS = {
    "seconds per step": "{:.3f}",
    "CPU seconds per step": "{:.3f}",
    "MiB": "{:.0f}",
    "accuracy@1": "{:.3f}",
    "coverage@0.9": "{:.3f}",
    "transferred_coverage@0.9": "{:.3f}",
    "transferred_precision@0.9": "{:.3f}",
}


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """One row per loss: medians of time and memory, means of the rest (seeds in brackets)."""
    columns = [name for name in COLUMNS if name in next(iter(results.values()))[0]]
    lines = ["| loss | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for loss, runs in results.items():
        cells = []
        for name in columns:
            values, form = [run[name] for run in runs], COLUMNS[name]
            measured = name in ("seconds per step", "CPU seconds per step", "MiB")
            middle = statistics.median(values) if measured else statistics.mean(values)
            each = "" if measured or len(values) == 1 else (
                " (" + ", ".join(form.format(v) for v in values) + ")"
            )  # fmt: skip
            cells.append(form.format(middle) + each)
        lines.append(f"| {loss} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=800)
    parser.add_argument("--titles", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--max-steps", type=int, default=-1, help="time and memory only")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--losses", nargs="*", help="a part of them")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    settings = parser.parse_args(arguments)
    if settings.one:
        print(json.dumps(train_one(settings)))
        return ""
    names = settings.losses or list(losses(None))
    unknown = set(names) - set(losses(None))
    if unknown:
        parser.error(f"--losses {', '.join(sorted(unknown))}: expected {', '.join(losses(None))}")

    shared = []
    for name in ("labels", "titles", "epochs", "batch_size", "max_steps"):
        shared += [f"--{name.replace('_', '-')}", str(getattr(settings, name))]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for seed in range(settings.seeds):
        for name in names:
            command = [sys.executable, __file__, *shared, "--seed", str(seed), "--one", name]
            found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results[name].append(json.loads(found.stdout.splitlines()[-1]))
            run = results[name][-1]
            figures = [f"{c} {form.format(run[c])}" for c, form in COLUMNS.items() if c in run]
            print(f"seed {seed}, {name}: {', '.join(figures)}", flush=True)
    text = table(results)
    print(text)
    if settings.output:
        settings.output.write_text(text + "\n", encoding="utf-8")
    return text


if __name__ == "__main__":
    main()
