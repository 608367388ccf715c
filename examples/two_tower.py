"""Do self-supervised objectives help the tail? A two-tower model on generated interactions.

    python examples/two_tower.py                         # one seed, minutes on a CPU
    python examples/two_tower.py --seeds 0 1 2 --study   # weights by validation, then test, once

Items have a popularity that falls with a power law, and eight categorical features in four
groups: the two of a group are noisy views of one hidden attribute. Users like some values of
these attributes, and each item has a quirk that only interactions tell. So for a popular item the
id says all, for a rare one the features say most. Recall is split into head (the items that make
up half of the training interactions) and tail.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from alc_kernels import Positives
from alc_kernels.functional import softmax_loss, topk_similarity
from alc_kernels.metrics import paired_bootstrap
from alc_kernels.selfsupervised import (
    StreamingFrequency,
    apply_mask,
    cca_loss,
    correlated_mask,
    log_q_offset,
    masked_reconstruction_loss,
    mutual_information,
    random_mask,
    view_contrastive_loss,
)

GROUPS, VALUES, VOCABULARY = 4, 40, 50  # hidden attributes, their values, values of a feature
FEATURES = 2 * GROUPS
TASTES = 8  # dimensions of a user's taste


class Interactions(NamedTuple):
    features: Tensor  # (items, F) int64
    train: Tensor  # (n, 2) int64: user, item
    validation: Tensor  # (users, 2)
    test: Tensor  # (users, 2)
    head: Tensor  # (items,) bool

    @property
    def num_users(self) -> int:
        return int(self.train[:, 0].max()) + 1


def generate(users: int, items: int, per_user: int, seed: int = 0) -> Interactions:
    """Every user meets ``per_user`` items of the training set, one of validation, one of test."""
    g = torch.Generator().manual_seed(seed)
    attributes = torch.randint(VALUES, (items, GROUPS), generator=g)
    features = []
    for column in attributes.repeat_interleave(2, dim=1).unbind(1):
        noise = torch.rand(items, generator=g) < 0.15
        values = torch.randperm(VOCABULARY, generator=g)[column]
        features.append(
            torch.where(noise, torch.randint(VOCABULARY, (items,), generator=g), values)
        )
    meaning = torch.randn(GROUPS, VALUES, TASTES, generator=g)
    taste = torch.randn(users, TASTES, generator=g)
    vectors = sum(meaning[a][attributes[:, a]] for a in range(GROUPS))
    vectors = vectors / 2 + 0.5 * torch.randn(items, TASTES, generator=g)  # the quirk
    rank = torch.randperm(items, generator=g) + 1
    utility = 0.6 * taste @ vectors.T - rank.float().log()  # popularity ~ 1 / rank
    gumbel = -torch.empty(users, items).exponential_(generator=g).log()
    chosen = (utility + gumbel).topk(per_user + 2, dim=1).indices
    chosen = chosen.gather(1, torch.rand(chosen.shape, generator=g).argsort(dim=1))
    pairs = torch.stack([torch.arange(users)[:, None].expand_as(chosen), chosen], dim=2)
    counts = torch.bincount(chosen[:, 2:].reshape(-1), minlength=items)
    order = counts.argsort(descending=True)
    head = torch.zeros(items, dtype=torch.bool)
    head[order[counts[order].cumsum(0) <= counts.sum() // 2]] = True
    train = pairs[:, 2:].reshape(-1, 2)
    return Interactions(torch.stack(features, dim=1), train, pairs[:, 0], pairs[:, 1], head)


class TwoTower(nn.Module):
    """Users by id; items by id and features. Value VOCABULARY of a feature means "not shown"."""

    def __init__(self, users: int, items: int, width: int = 32) -> None:
        super().__init__()
        self.user = nn.Embedding(users, width)
        self.item = nn.Embedding(items + 1, width)  # the last one: not shown
        self.values = nn.ModuleList(nn.Embedding(VOCABULARY + 1, 16) for _ in range(FEATURES))
        self.tower = nn.Sequential(
            nn.Linear(width + 16 * FEATURES, 64), nn.ReLU(), nn.Linear(64, width)
        )
        self.decoder = nn.Linear(width, 16 * FEATURES)
        for table in (self.user, self.item, *self.values):
            nn.init.normal_(table.weight, std=0.1)  # the default of 1 takes long to unlearn

    def encode_items(self, ids: Tensor, features: Tensor) -> Tensor:
        parts = [table(column) for table, column in zip(self.values, features.T, strict=True)]
        return self.tower(torch.cat([self.item(ids), *parts], dim=1))  # (B, width)


class Method(NamedTuple):
    """A weight of 0 leaves the objective out."""

    log_q: bool = True
    mask: str = "correlated"
    contrast: float = 0.0
    cca: float = 0.0
    reconstruction: float = 0.0


class SelfSupervision:
    """The objectives of one step, on items drawn uniformly from the catalogue."""

    def __init__(self, data: Interactions, method: Method, batch: int, seed: int) -> None:
        self.data, self.method, self.batch = data, method, batch
        self.generator = torch.Generator().manual_seed(seed)
        self.information = mutual_information(data.features)
        self.unknown = torch.full((FEATURES,), VOCABULARY)

    def __call__(self, model: TwoTower) -> Tensor:
        method, data = self.method, self.data
        items = len(data.features)
        ids = torch.randint(items, (self.batch,), generator=self.generator).unique()
        shown = data.features[ids]
        if method.mask == "random":
            masked = random_mask(FEATURES, generator=self.generator)
        else:
            masked = correlated_mask(self.information, generator=self.generator)
        hidden_id = torch.full_like(ids, items)  # else the id alone would tell the views' item
        first = model.encode_items(hidden_id, apply_mask(shown, masked, self.unknown))
        loss = first.new_zeros(())
        if method.contrast or method.cca:
            second = model.encode_items(hidden_id, apply_mask(shown, ~masked, self.unknown))
            if method.contrast:
                loss = loss + method.contrast * view_contrastive_loss(first, second)
            if method.cca:
                loss = loss + method.cca * cca_loss(first, second) / first.shape[1]
        if method.reconstruction:
            predictions = model.decoder(first).split(16, dim=1)
            tables = [table.weight[:VOCABULARY] for table in model.values]
            loss = loss + method.reconstruction * masked_reconstruction_loss(
                predictions, tables, shown, masked
            )
        return loss


def train(data: Interactions, method: Method, seed: int, epochs: int, batch: int = 512) -> TwoTower:
    torch.manual_seed(seed)
    model = TwoTower(data.num_users, len(data.features))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    supervision = SelfSupervision(data, method, batch, seed)
    frequency = StreamingFrequency(len(data.features))
    for _ in range(epochs):
        for rows in torch.randperm(len(data.train)).split(batch):
            users, ids = data.train[rows].T
            frequency.update(ids)
            offset = log_q_offset(frequency.probability(ids)).float() if method.log_q else None
            loss = softmax_loss(
                model.user(users),
                model.encode_items(ids, data.features[ids]),
                exclude=Positives.from_ids(ids, ids),  # the same item is no negative
                temperature=0.1,
                label_offset=offset,
            )
            if method.contrast or method.cca or method.reconstruction:
                loss = loss + supervision(model)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


@torch.no_grad()
def ranks(model: TwoTower, data: Interactions, pairs: Tensor) -> np.ndarray:
    """(users,) place of each user's item among those it has not met in training, from 1."""
    items = model.encode_items(torch.arange(len(data.features)), data.features)
    seen = Positives.from_pairs(data.train[:, 0], data.train[:, 1], (data.num_users, len(items)))
    found = topk_similarity(model.user.weight, items, DEPTH, exclude=seen)[1]
    hit = found == pairs[:, 1:]
    return torch.where(hit.any(dim=1), hit.int().argmax(dim=1) + 1, DEPTH + 1).numpy()


DEPTH = 100
RECALL_AT = 20


def recall(ranks: np.ndarray, counted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Recall@20 of the counted users, in percent; (S,) for weights (S, users)."""
    hit = (ranks <= RECALL_AT) * counted
    w = np.ones(len(ranks)) if weights is None else weights
    return 100 * (w @ hit) / (w @ counted)


def mrr(ranks: np.ndarray, counted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean reciprocal rank, 0 below place 100, in percent."""
    gain = np.where(ranks <= DEPTH, 1 / ranks, 0) * counted
    w = np.ones(len(ranks)) if weights is None else weights
    return 100 * (w @ gain) / (w @ counted)


METHODS = {
    "batch softmax": [Method(log_q=False)],
    "with log-Q": [Method()],
    "+ contrast, random masks": [Method(mask="random", contrast=a) for a in (0.03, 0.1, 0.3)],
    "+ contrast, correlated masks": [Method(contrast=a) for a in (0.03, 0.1, 0.3)],
    "+ CCA": [Method(cca=a) for a in (0.03, 0.1, 0.3)],
    "+ reconstruction": [Method(reconstruction=a) for a in (0.03, 0.1, 0.3)],
    "+ CCA + reconstruction": [
        Method(cca=a, reconstruction=b) for a, b in ((0.03, 0.1), (0.1, 0.3), (0.3, 1.0))
    ],
}


def choose(data: Interactions, options: list[Method], seed: int, epochs: int) -> Method:
    """The option with the best validation recall over all items, by one seed of its own."""
    everyone = np.ones(data.num_users)
    if len(options) == 1:
        return options[0]
    scores = [
        recall(ranks(train(data, option, seed, epochs), data, data.validation), everyone)
        for option in options
    ]
    print(f"  validation: {', '.join(f'{s:.2f}' for s in scores)}", flush=True)
    return options[int(np.argmax(scores))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--study", action="store_true", help="choose the weights on validation")
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--items", type=int, default=3000)
    parser.add_argument("--per-user", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    data = generate(arguments.users, arguments.items, arguments.per_user)
    in_head = data.head[data.test[:, 1]].numpy()
    parts = {"all": np.ones(len(in_head)), "head": in_head * 1.0, "tail": ~in_head * 1.0}
    print(f"{data.num_users} users, {len(data.features)} items, {len(data.train)} training pairs;")
    print(
        f"head: {int(data.head.sum())} items; test: {in_head.sum()} head, {(~in_head).sum()} tail"
    )
    results: dict[str, list[np.ndarray]] = {}
    for name, options in METHODS.items():
        start = time.perf_counter()
        method = options[len(options) // 2]
        if arguments.study:
            method = choose(data, options, seed=1000, epochs=arguments.epochs)
        results[name] = [
            ranks(train(data, method, seed, arguments.epochs), data, data.test)
            for seed in arguments.seeds
        ]
        print(f"{name}: {method._asdict()}, {time.perf_counter() - start:.0f} s", flush=True)
    for title, metric in ((f"recall@{RECALL_AT}", recall), ("MRR", mrr)):
        print(f"\n{title}, %, mean of seeds; difference to log-Q with 95 % interval over users")
        for name, runs in results.items():
            line = f"{name:30}"
            for part, counted in parts.items():
                own = [(run, counted) for run in runs]
                base = [(run, counted) for run in results["with log-Q"]]
                mean = np.mean([metric(*run) for run in own])
                gain = paired_bootstrap(partial(metric), own, base)
                line += f" | {part} {mean:5.2f} {gain.estimate:+.2f}"
                line += f" ({gain.low:+.2f}, {gain.high:+.2f})"
            print(line)


if __name__ == "__main__":
    main()
