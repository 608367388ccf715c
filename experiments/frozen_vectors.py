"""A study's settings on the frozen vectors of a pre-trained encoder, with a trained head.

    python experiments/frozen_vectors.py experiments/batch_part.toml --data DATA --encoder PATH \
        --output RUNS --reference full

Every text is encoded once; the head, a linear map that begins as the identity and a residual MLP,
is trained as ``alc train`` trains its dense layers, in seconds. Runs and tables are those of
study.py; settings of the encoder and of the method's label side have no effect.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from study import combinations, show, with_changes
from torch import Tensor, nn
from torch.nn import functional as F

from alc_kernels import Positives
from alc_kernels.trainer.config import TrainConfig, read_toml
from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.data.folder import load_dataset
from alc_kernels.trainer.encoders import build_encoder
from alc_kernels.trainer.evaluation import validation_check
from alc_kernels.trainer.finish import Evaluation
from alc_kernels.trainer.training.batch_loss import build_loss


def frozen_vectors(dataset: Dataset, encoder: str, kept: Path) -> dict[str, np.ndarray]:
    """(n, d) float32 of the labels and of each split's queries, from ``kept`` if it is there."""
    texts = {"labels": dataset.labels} | {s: own.queries for s, own in dataset.splits.items()}
    if not kept.is_file():
        model = build_encoder(encoder, TrainConfig(encoder=encoder))
        found = {name: model.encode_texts(list(own), 64).numpy() for name, own in texts.items()}
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **found)
    vectors = dict(np.load(kept))
    if {name: len(own) for name, own in vectors.items()} != {n: len(t) for n, t in texts.items()}:
        sys.exit(f"{kept}: vectors of other data; delete it, or name another --output")
    return vectors


class Head(nn.Module):
    """Unit vectors from unit vectors (n, d)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.residual = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        for last in self.residual[-1].parameters():
            nn.init.zeros_(last)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return F.normalize(x + self.residual(x), dim=1)


class Looked:
    """What scoring asks of a model: the head's vectors of texts that were encoded before."""

    def __init__(self, head: Head, dataset: Dataset, vectors: dict[str, np.ndarray]) -> None:
        self.head = head
        self.vectors = torch.from_numpy(np.concatenate(list(vectors.values())))
        texts = [dataset.labels, *(dataset.splits[name].queries for name in list(vectors)[1:])]
        self.place = {text: i for i, text in enumerate(t for own in texts for t in own)}

    @torch.no_grad()
    def encode_queries(self, texts: Sequence[str]) -> Tensor:
        """(n, d) float32."""
        return self.head(self.vectors[[self.place[text] for text in texts]])

    encode_labels = encode_queries


def train(
    config: TrainConfig, dataset: Dataset, vectors: dict[str, np.ndarray], folder: Path
) -> None:
    """Train one head and leave its figures in ``folder``."""
    torch.manual_seed(config.seed)
    draw = np.random.default_rng(config.seed)
    queries, labels = (torch.from_numpy(vectors[name]) for name in ("train", "labels"))
    relation = dataset.train.relation
    rows = np.flatnonzero(np.diff(relation.indptr))
    head = Head(queries.shape[1], config.hidden_dim)
    loss = build_loss(config, queries.shape[1])
    parameters = [*head.parameters(), *loss.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    per_epoch = max(len(rows) // config.batch_size, 1)
    total = config.epochs * per_epoch
    warm = max(round(config.warmup * total), 1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (total - step) / max(total - warm, 1))
    )
    start = time.perf_counter()
    for _ in range(config.epochs):
        draw.shuffle(rows)
        for part in np.array_split(rows, per_epoch):
            own = relation.indptr[part]
            sampled = relation.indices[own + draw.integers(np.diff(relation.indptr)[part])]
            columns = np.unique(sampled)
            pairs = relation[part][:, columns].tocsr()
            right = Positives.from_csr(
                torch.from_numpy(pairs.indptr.astype(np.int64)),
                torch.from_numpy(pairs.indices.astype(np.int64)),
                len(columns),
            )
            optimizer.zero_grad()
            value = loss(head(queries[part]), head(labels[columns]), right)
            value.backward()
            optimizer.step()
            scheduler.step()
    seconds = time.perf_counter() - start
    model = Looked(head.eval(), dataset, vectors)
    figures = validation_check(dataset)(model)
    history = [{"epoch": config.epochs, **{f"validation_{k}": v for k, v in figures.items()}}]
    folder.mkdir(parents=True, exist_ok=True)
    Evaluation(dataset, "none").run(
        model,
        folder,
        name=folder.name,
        config=dataclasses.asdict(config),
        history=history,
        training_seconds=seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", required=True, help="path or hub name of a text model")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--reference", metavar="NAME", help="a line of the table")
    arguments = parser.parse_args()
    study = with_changes(read_toml(arguments.study), arguments.set)
    study["common"]["encoder"] = arguments.encoder
    runs = combinations(study)
    torch.set_num_threads(1)
    dataset = load_dataset(arguments.data)
    vectors = frozen_vectors(dataset, arguments.encoder, arguments.output / "vectors.npz")
    folders = []
    for name, settings in runs:
        folder = arguments.output / f"{name}_{settings.get('seed', 0)}"
        folders.append(folder)
        if not (folder / "metrics.json").is_file():
            train(TrainConfig.resolve(settings), dataset, vectors, folder)
            print(f"done: {folder.name}", file=sys.stderr, flush=True)
    show(folders, arguments)


if __name__ == "__main__":
    main()
