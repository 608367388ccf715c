"""What is measured: each work with its plain version, ours, and the peers that compute it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alc_kernels import (
    ALCLoss,
    Auxiliary,
    MatryoshkaLoss,
    Softmax,
    ThresholdMargin,
    Triplet,
    functional,
)
from alc_kernels.bench import eager, peers, search
from alc_kernels.bench.measure import Judge
from alc_kernels.bench.peers import Peer, Step


@dataclass(frozen=True)
class Work:
    """One row of the table.

    Attributes:
        name: as ``--work`` takes it.
        ours: our version for a backend.
        eager: plain PyTorch with S stored; None where nobody has a plain version.
        chunked: plain PyTorch in row chunks; None where there is none.
        peers: other libraries.
        choices: the value depends on which label is hardest, not only on its score: where two
            are equally hard up to rounding, either may be taken.
        backward: False times the forward pass alone.
        products: matrix products of the size of S that the work needs at least, for TFLOP/s.
        square: the plain version and the peers are written for B = M.
        inputs: what to make of the random inputs; None: nothing.
        judge: the errors of results that are no numbers.
    """

    name: str
    ours: Callable[[str], Step]
    eager: Step | None = None
    chunked: Step | None = None
    peers: tuple[Peer, ...] = ()
    backward: bool = True
    choices: bool = False
    products: int = 3
    square: bool = True
    inputs: Callable[[list[Tensor]], list[Tensor]] | None = None
    judge: Judge | None = None


class _Module:
    """A loss module as a step; the auxiliary heads are the same for every backend."""

    def __init__(self, width: int, device: str, backend: str, **options: Any) -> None:
        torch.manual_seed(0)
        self.loss: nn.Module = ALCLoss(width, backend=backend, **options).to(device)
        self.dtype = torch.float32

    def __call__(self, queries: Tensor, labels: Tensor) -> Tensor:
        self.fit(queries.dtype if queries.dtype == torch.float64 else torch.float32)
        found: Tensor = self.loss(queries, labels, positives=relation(queries, labels))
        return found

    def fit(self, dtype: torch.dtype) -> None:
        """Have the heads in ``dtype``."""
        if dtype != self.dtype:
            self.dtype = dtype
            self.loss.to(dtype)


class _EagerModule(_Module):
    """The same heads with the default loss as plain PyTorch; they compute in the inputs' dtype."""

    def __call__(self, queries: Tensor, labels: Tensor) -> Tensor:
        self.fit(queries.dtype)
        return eager.alc(queries, labels, self.loss)


def relation(queries: Tensor, labels: Tensor) -> Tensor | None:
    """Query i matches label i, as an index where there are more labels than queries."""
    if len(queries) == len(labels):
        return None
    return torch.arange(len(queries), device=queries.device)


def _mining(backend: str, negative_margin: float) -> Step:
    loss = ALCLoss(
        base=None,
        auxiliary=None,
        threshold=ThresholdMargin(negative_margin=negative_margin),
        backend=backend,
    )

    def step(queries: Tensor, labels: Tensor) -> Tensor:
        terms = loss.terms(queries, labels, positives=relation(queries, labels))
        return torch.cat([terms.hardest_score, terms.total[None]])

    return step


def prefix_widths(width: int) -> tuple[int, ...]:
    """``width`` halved while it stays 64 or more, ascending: 96, 192, 384, 768."""
    steps = [width >> n for n in range(5) if width >> n >= 64]
    return tuple(sorted(steps or [max(width // 2, 1), width]))


def _matryoshka(widths: tuple[int, ...], backend: str, together: bool, **options: Any) -> Step:
    """A loss at several prefix widths: from one walk, or called once per width."""
    loss = ALCLoss(auxiliary=None, backend=backend, **options)
    shared = MatryoshkaLoss(loss, widths)

    def step(queries: Tensor, labels: Tensor) -> Tensor:
        positives = relation(queries, labels)
        if together:
            found: Tensor = shared(queries, labels, positives=positives)
            return found
        each = [loss(queries[:, :w], labels[:, :w], positives=positives) for w in widths]
        return torch.stack(each).sum()

    return step


def _matryoshka_works(
    name: str, widths: tuple[int, ...], plain: Step, others: tuple[Peer, ...] = (), **options: Any
) -> Work:
    """One walk for all widths, beside a call per width of ours and of plain PyTorch."""

    def each(queries: Tensor, labels: Tensor) -> Tensor:
        values = [plain(queries[:, :w], labels[:, :w]) for w in widths]
        return torch.stack(values).sum()

    return Work(
        name,
        lambda backend: _matryoshka(widths, backend, True, **options),
        each,
        peers=(
            *(
                Peer(
                    f"per width ({backend})", None, "torch",
                    functools.partial(_matryoshka, widths, backend, False, **options),
                    gpu_only=backend == "triton",
                )
                for backend in ("torch", "native", "triton")
            ),
            *others,
        ),
    )  # fmt: skip


def _search_works() -> list[Work]:
    """Hardest negatives and search, on random inputs and on those that are hard to screen."""
    kinds = {
        "hardest10": (search.hardest, search.eager_hardest, search.HARDEST),
        "topk10": (search.search, search.eager_search, search.SEARCH),
    }
    return [
        Work(
            name + end, ours, plain, peers=others, backward=False, products=1, square=False,
            inputs=make, judge=search.judge,
        )
        for name, (ours, plain, others) in kinds.items()
        for end, make in {"": None, **{f"-{kind}": f for kind, f in search.HARD.items()}}.items()
    ]  # fmt: skip


def works(
    width: int,
    device: str,
    negative_margin: float,
    active: float,
    prefixes: tuple[int, ...] = (),
) -> dict[str, Work]:
    """Every work, by name.

    Args:
        width: d.
        device: ``"cpu"`` or ``"cuda"``, where the modules live.
        negative_margin: TCM's, chosen so that ``active`` of all pairs exceed it.
        active: that share; it only appears in names.
        prefixes: the widths of the Matryoshka works; ``prefix_widths(width)`` where empty.
    """
    prefixes = prefixes or prefix_widths(width)
    tcm = ThresholdMargin(negative_margin=negative_margin)

    def module(**options: Any) -> Callable[[str], Step]:
        return lambda backend: _Module(width, device, backend, **options)

    def function(call: Callable[..., Tensor], **options: Any) -> Callable[[str], Step]:
        def make(backend: str) -> Step:
            def step(queries: Tensor, labels: Tensor) -> Tensor:
                positives = relation(queries, labels)
                return call(queries, labels, positives, backend=backend, **options)

            return step

        return make

    def repeatable(kind: Callable[..., Callable[[str], Step]], *given: Any, **options: Any) -> Peer:
        """Ours with deterministic=True: what repeatable bits cost on a GPU."""
        make = functools.partial(kind(*given, deterministic=True, **options), "triton")
        return Peer("deterministic (triton)", None, "triton", make)

    def triplet(k: int) -> dict[str, Any]:
        return {"base": Triplet(num_negatives=k), "auxiliary": None, "threshold": tcm}

    # A margin below all of S: no pair can be ruled out.
    below = triplet(10) | {"threshold": ThresholdMargin(negative_margin=-1.0)}
    pair = Auxiliary(batch_weight=0.0)
    quiet = {
        "alc-default": Auxiliary(dropout=0.0),
        "alc-wide": Auxiliary.wide(dropout=0.0),
    }
    made = [
        Work(
            "mining",
            lambda backend: _mining(backend, negative_margin),
            functools.partial(eager.mining, negative_margin=negative_margin),
            backward=False,
            products=1,
        ),
        *(
            Work(
                f"triplet{k}+tcm",
                module(**triplet(k)),
                functools.partial(
                    eager.triplet_threshold, num_negatives=k, negative_margin=negative_margin
                ),
                peers=(
                    repeatable(module, **triplet(k)),
                    search.off(module(**triplet(k))("native")),
                ),
                products=1,
            )
            for k in (1, 10)
        ),
        *_search_works(),
        Work(
            "triplet10+tcm-below",
            module(**below),
            functools.partial(eager.triplet_threshold, num_negatives=10, negative_margin=-1.0),
            peers=(search.off(module(**below)("native")),),
        ),
        Work("alc-bare", module(auxiliary=None), products=1),
        Work("alc-pair+tcm", module(auxiliary=pair, threshold=tcm), choices=True, products=1),
        *(
            Work(
                name,
                module(auxiliary=part),
                _EagerModule(width, device, "torch", auxiliary=part),
                peers=(repeatable(module, auxiliary=part),),
                choices=True,
                products=1,
            )
            for name, part in quiet.items()
        ),
        Work(
            "softmax",
            function(functional.softmax_loss),
            eager.softmax,
            eager.chunked_softmax,
            (*peers.SOFTMAX, repeatable(function, functional.softmax_loss)),
        ),
        Work(
            "softmax-decoupled",
            function(functional.softmax_loss, decoupled=True),
            eager.decoupled_softmax,
        ),
        Work(
            "softmax-symmetric",
            module(base=Softmax(symmetric=True), auxiliary=None, threshold=None),
            eager.symmetric_softmax,
            peers=peers.SYMMETRIC,
        ),
        Work(
            "sigmoid",
            function(functional.sigmoid_loss),
            eager.sigmoid,
            eager.chunked_sigmoid,
            peers.SIGMOID,
        ),
        Work(
            "tcm",
            function(functional.threshold_margin_loss, **vars(tcm)),
            functools.partial(eager.threshold, negative_margin=negative_margin),
            peers=peers.threshold(negative_margin),
            products=3 if active > 0.003 else 1,
        ),
    ]
    made += [
        _matryoshka_works(
            "matryoshka-triplet",
            prefixes,
            functools.partial(
                eager.triplet_threshold, num_negatives=10, negative_margin=negative_margin
            ),
            base=Triplet(num_negatives=10),
            threshold=tcm,
        ),
        _matryoshka_works(
            "matryoshka-softmax",
            prefixes,
            eager.softmax,
            peers.matryoshka_softmax(prefixes),
            base=Softmax(),
            threshold=None,
        ),
    ]
    return {work.name: work for work in made}
