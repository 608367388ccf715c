"""The works whose answer is labels: hardest negatives and search, also on hard inputs.

Their steps return (2, B, k) float64: scores, then label numbers. Another label in a place is right
where its own score, in float64, is as large up to the rounding of the inputs' dtype; of equal
scores no order is asked of others. Ours with screening must give what it gives without, label for
label (:mod:`alc_kernels.bench.screening`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from alc_kernels import functional
from alc_kernels.bench.measure import Errors, Truth
from alc_kernels.bench.peers import Peer, Step
from alc_kernels.bench.screening import Without

K = 10
NEAR = 1e-3  # noise of near duplicates, beside rows of length 1
ROUNDING = 8  # eps of the inputs' dtype by which scores may differ for the order of their sums


def answer(found: tuple[Tensor, Tensor]) -> Tensor:
    """Scores and labels (B, k) as one tensor (2, B, k)."""
    return torch.stack([found[0].double(), found[1].double()])


def judge(found: Tensor, truth: Truth, pair: list[Tensor]) -> Errors:
    """The scores' error; infinite where a label is wrong, or stands twice."""
    scores, labels = found
    best, known = truth.value
    error = float((scores - best).norm() / best.norm())
    row, place = (labels != known).nonzero(as_tuple=True)
    q, k = (F.normalize(x.detach().double(), dim=1) for x in pair)
    own = torch.einsum("ij,ij->i", q[row], k[labels[row, place].long()])
    slack = ROUNDING * torch.finfo(pair[0].dtype).eps
    short = (best[row, place] - own).abs().max() if len(row) else torch.zeros(())
    ordered = labels.sort(dim=1).values
    twice = bool((ordered[:, 1:] == ordered[:, :-1]).any())
    return Errors(error if short <= slack and not twice else math.inf)


# Inputs on which few labels, or none, can be ruled out: they may only cost a little time.


def _equal(pair: list[Tensor]) -> list[Tensor]:
    """All labels are one."""
    return _made(pair, pair[1].detach()[:1].expand_as(pair[1]).clone())


def _near(pair: list[Tensor]) -> list[Tensor]:
    """All labels are near duplicates of one."""
    return _made(pair, _duplicates(pair[1].detach()[:1].expand_as(pair[1])))


def _late(pair: list[Tensor]) -> list[Tensor]:
    """The last tenth of the labels are near duplicates of what all queries look for.

    So every one of them is a candidate, and no label before says that it will be so.
    """
    queries, labels = (x.detach().clone() for x in pair)
    tail = labels[-max(1, len(labels) // 10) :]
    tail.copy_(_duplicates(tail[:1].expand_as(tail)))
    queries = F.normalize(queries + tail[:1], dim=1).requires_grad_()
    return _made([queries, labels], labels)


def _duplicates(rows: Tensor) -> Tensor:
    g = torch.Generator(rows.device).manual_seed(0)
    noise = torch.randn(rows.shape, generator=g, device=rows.device)
    return rows + NEAR * F.normalize(noise, dim=1).to(rows.dtype)


def _made(pair: list[Tensor], labels: Tensor) -> list[Tensor]:
    labels = F.normalize(labels.double(), dim=1).to(labels.dtype)
    return [pair[0], labels.requires_grad_()]


HARD: dict[str, Callable[[list[Tensor]], list[Tensor]]] = {
    "equal": _equal,
    "near": _near,
    "late": _late,
}


# Hardest negatives: query i matches label i.


def hardest(backend: str) -> Step:
    def step(queries: Tensor, labels: Tensor) -> Tensor:
        own = torch.arange(len(queries), device=queries.device)
        return answer(functional.hardest_negatives(queries, labels, own, k=K, backend=backend))

    return step


def eager_hardest(queries: Tensor, labels: Tensor) -> Tensor:
    """A stored matrix, its diagonal taken out, topk."""
    s = F.normalize(queries, dim=1) @ F.normalize(labels, dim=1).T
    own = torch.eye(*s.shape, dtype=torch.bool, device=s.device)
    scores, labels = s.masked_fill(own, -torch.inf).topk(K, dim=1)
    return answer((scores, labels))


# Search.


def search(backend: str) -> Step:
    def step(queries: Tensor, labels: Tensor) -> Tensor:
        return answer(functional.topk_similarity(queries, labels, K, backend=backend))

    return step


def eager_search(queries: Tensor, labels: Tensor) -> Tensor:
    """A stored matrix and topk."""
    s = F.normalize(queries, dim=1) @ F.normalize(labels, dim=1).T
    scores, labels = s.topk(K, dim=1)
    return answer((scores, labels))


class Indexed:
    """A search in what is made of the labels once; making it is not timed.

    Args:
        build: labels (M, d) of length 1 -> index.
        find: queries (B, d) of length 1 and an index -> scores and labels (B, k).
    """

    def __init__(
        self,
        build: Callable[[Tensor], Any],
        find: Callable[[Tensor, Any], tuple[Tensor, Tensor]],
    ) -> None:
        self.build, self.find, self.known = build, find, WeakTensorKeyDictionary()

    def __call__(self, queries: Tensor, labels: Tensor) -> Tensor:
        index = self.known.get(labels)
        if index is None:
            index = self.known[labels] = self.build(F.normalize(labels.detach(), dim=1))
        return answer(self.find(F.normalize(queries.detach(), dim=1), index))


def prepared() -> Step:
    """Ours with a catalogue of ``functional.prepare``."""
    return Indexed(
        lambda labels: functional.prepare(labels, backend="native"),
        lambda queries, catalogue: functional.topk_similarity(queries, catalogue, K),
    )


def _faiss() -> Step:
    import faiss

    def build(labels: Tensor) -> Any:
        index = faiss.IndexFlatIP(labels.shape[1])
        index.add(labels.float().numpy())
        return index

    def find(queries: Tensor, index: Any) -> tuple[Tensor, Tensor]:
        faiss.omp_set_num_threads(torch.get_num_threads())
        scores, labels = index.search(queries.float().numpy(), K)
        return torch.from_numpy(scores), torch.from_numpy(labels)

    return Indexed(build, find)


def _usearch() -> Step:
    from usearch.index import MetricKind
    from usearch.index import search as exact

    def find(queries: Tensor, rows: Any) -> tuple[Tensor, Tensor]:
        found = exact(
            rows, queries.float().numpy(), K, MetricKind.IP, exact=True,
            threads=torch.get_num_threads(),
        )  # fmt: skip
        labels = torch.from_numpy(found.keys.astype("int64"))
        return 1.0 - torch.from_numpy(found.distances), labels  # distances are 1 - q k

    return Indexed(lambda labels: labels.float().numpy(), find)


def off(step: Step, name: str = "screening off (native)") -> Peer:
    """Ours, native, in full precision throughout."""
    return Peer(name, None, "torch", lambda: Without(step), gpu_only=False)


HARDEST = (off(hardest("native")),)
SEARCH = (
    off(search("native")),
    Peer("prepared (native)", None, "torch", prepared, gpu_only=False),
    Peer("faiss IndexFlatIP", "faiss-cpu", "faiss", _faiss, gpu_only=False),
    Peer("usearch exact, f32", "usearch", "usearch", _usearch, gpu_only=False),
)
