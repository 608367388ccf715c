"""What the processes of a pool run in the tests of mistakes, failures and single features."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from alc_kernels import (
    ALCLoss,
    Auxiliary,
    GlobalBatch,
    MatryoshkaLoss,
    Positives,
    Sigmoid,
    Softmax,
    ThresholdMargin,
    functional,
)
from alc_kernels.cached import cached_encode
from alc_kernels.distributed import control
from alc_kernels.distributed.part import Sums
from tests.distributed.data import KINDS, make_batch

ROWS, LABELS = [6, 9], [8, 5]


def rows(count: int, width: int = 12, seed: int = 0, **more: Any) -> torch.Tensor:
    """(count, width) float64 leaf."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=g, dtype=torch.float64, **more)


def mistake(rank: int, group: Any, name: str) -> str:
    """The error of one of the calls in ``MISTAKES``; afterwards the group must still work."""
    try:
        MISTAKES[name](rank, group)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    else:
        found = "no error"
    x = rows(4, seed=rank)
    functional.softmax_loss(x, x, process_group=group)
    return found


def _wrong_index(rank: int, group: Any) -> None:
    index = torch.tensor([0, 1, 2, 40 if rank else 3])
    functional.softmax_loss(rows(4), rows(5), index, process_group=group)


def _negative_index(rank: int, group: Any) -> None:
    index = torch.tensor([0, 1, 2, -1 if rank else 3])
    functional.hardest_negatives(rows(4), rows(5), index, process_group=group)


def _sparse(rank: int, group: Any, columns: int) -> None:
    pairs = Positives.from_pairs(torch.arange(4), torch.arange(4), (4, columns))
    functional.triplet_loss(rows(4), rows(5), pairs, process_group=group)


def _unequal(rank: int, group: Any) -> None:
    x = rows(4 + rank)
    functional.softmax_loss(x, x, process_group=GlobalBatch(group, equal_sizes=True))


def _refused(rank: int, group: Any) -> None:
    functional.softmax_loss(rows(4), rows(4 + rank), process_group=group)


def _module_refused(rank: int, group: Any) -> None:
    loss_fn = ALCLoss(12, auxiliary=None, process_group=group).double()
    x = rows(4, 12 + rank)
    loss_fn(x, x)


def _prefixes_refused(rank: int, group: Any) -> None:
    loss_fn = MatryoshkaLoss(ALCLoss(auxiliary=None, process_group=group), (4, 12))
    x = rows(4, 12 - rank)
    loss_fn(x, x)


def _margin(rank: int, group: Any) -> None:
    functional.triplet_loss(rows(4), rows(4), margin=0.1 + rank, process_group=group)


def _dtype(rank: int, group: Any) -> None:
    x = rows(4).to(torch.float32 if rank else torch.float64)
    functional.triplet_loss(x, x, process_group=group)


def _width(rank: int, group: Any) -> None:
    x = rows(4, 12 + rank)
    functional.topk_similarity(x, x, 2, process_group=group)


def _kind(rank: int, group: Any) -> None:
    positives = torch.arange(4) if rank else None
    functional.softmax_loss(rows(4), rows(4), positives, process_group=group)


def _weights(rank: int, group: Any) -> None:
    weight = torch.ones(4) if rank else None
    functional.softmax_loss(rows(4), rows(4), row_weight=weight, process_group=group)


def _gradients(rank: int, group: Any) -> None:
    x = rows(4).requires_grad_(bool(rank))
    functional.softmax_loss(x, rows(4), process_group=group)


def _mode(rank: int, group: Any) -> None:
    x = rows(4)
    functional.softmax_loss(x, x, process_group=GlobalBatch(group, "ring" if rank else "gather"))


# Settings that differ between the processes: what each of them calls.
DIFFERING: dict[str, Callable[[int, torch.Tensor, Any], Any]] = {
    "temperature": lambda r, x, g: functional.softmax_loss(
        x, x, temperature=(0.05, 0.5)[r], process_group=g
    ),
    "temperature of a module": lambda r, x, g: _module(g, base=Softmax(temperature=(0.05, 0.5)[r]))(
        x, x
    ),
    "temperature tensor": lambda r, x, g: functional.softmax_loss(
        x, x, temperature=torch.tensor((0.05, 0.5)[r]), process_group=g
    ),
    "temperature tensor and number": lambda r, x, g: functional.softmax_loss(
        x, x, temperature=(torch.tensor(0.05), 0.05)[r], process_group=g
    ),
    "scale": lambda r, x, g: functional.sigmoid_loss(x, x, scale=10.0 + r, process_group=g),
    "bias of a module": lambda r, x, g: _module(
        g, base=Sigmoid(bias=(10.0, -10.0)[r], learnable=False)
    )(x, x),
    "learned bias": lambda r, x, g: _module(g, base=Sigmoid(bias=-10.0 - r))(x, x),
    "learnable": lambda r, x, g: _module(g, base=Sigmoid(learnable=bool(r)))(x, x),
    "exclude_above": lambda r, x, g: functional.softmax_loss(
        x, x, exclude_above=(None, 0.1)[r], process_group=g
    ),
    "exclude_above of mining": lambda r, x, g: functional.hardest_negatives(
        x, x, exclude_above=0.1 * r, process_group=g
    ),
    "k": lambda r, x, g: functional.topk_similarity(x, x, 1 + r, process_group=g),
    "normalize": lambda r, x, g: functional.triplet_loss(x, x, normalize=bool(r), process_group=g),
    "label_offset": lambda r, x, g: functional.softmax_loss(
        x, x, label_offset=(None, x[:, 0])[r], process_group=g
    ),
    "margin of the threshold": lambda r, x, g: functional.threshold_margin_loss(
        x, x, positive_margin=0.9 - 0.1 * r, process_group=g
    ),
    "threshold": lambda r, x, g: _module(g, threshold=(None, ThresholdMargin())[r])(x, x),
    "base_weight": lambda r, x, g: _module(g, base_weight=1.0 + r)(x, x),
    "batch_weight": lambda r, x, g: _module(g, auxiliary=Auxiliary(batch_weight=1.0 + r))(x, x),
    "context_size": lambda r, x, g: _module(g, auxiliary=Auxiliary(context_size=4 + r))(x, x),
    "widths": lambda r, x, g: MatryoshkaLoss(_module(g), ((4, 12), (4,))[r])(x, x),
    "weights of widths": lambda r, x, g: MatryoshkaLoss(_module(g), (4, 12), (1.0, 1.0 + r))(x, x),
    "weight of the one width": lambda r, x, g: MatryoshkaLoss(
        _module(g, auxiliary=Auxiliary()), (12,), (1.0 + r,)
    )(x, x),
    "matmul precision": lambda r, x, g: _precision(r, x, g),
    "averaged": lambda r, x, g: functional.softmax_loss(
        x, x, process_group=GlobalBatch(g, gradients_are_averaged=bool(r))
    ),
    "equal_sizes": lambda r, x, g: functional.softmax_loss(
        x, x, process_group=GlobalBatch(g, equal_sizes=bool(r))
    ),
}


def _precision(rank: int, x: torch.Tensor, group: Any) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(("highest", "high")[rank])
    try:
        functional.softmax_loss(x.float(), x.float(), process_group=group)
    finally:
        torch.set_float32_matmul_precision(before)


def _module(group: Any, **settings: Any) -> ALCLoss:
    settings = {"base": Softmax(), "auxiliary": None, "threshold": None, **settings}
    return ALCLoss(12, process_group=group, **settings).double()


def differing(rank: int, group: Any) -> dict[str, str]:
    """The error of every call in ``DIFFERING``; the group works on after each."""
    found = {}
    for name, make in DIFFERING.items():
        x = rows(4, seed=rank)
        try:
            make(rank, x, group)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
        else:
            found[name] = "no error"
        functional.softmax_loss(x, x, process_group=group)
    return found


def drifting(rank: int, group: Any, learned: bool) -> list[bool]:
    """With equal_sizes the first call compares settings; whether the loss and a gradient are NaN
    where the temperatures agree, where they drift apart later, and where they agree again."""
    across, out = GlobalBatch(group, equal_sizes=True), []
    for temperature in (0.07, 0.07 + 0.1 * rank, 0.08):
        x = rows(4, seed=rank).requires_grad_()
        value = torch.tensor(temperature, requires_grad=True) if learned else temperature
        loss = functional.softmax_loss(x, x, temperature=value, process_group=across)
        loss.backward()
        out.append(bool(loss.isnan() & x.grad.isnan().all()))
    return out


def unknown(rank: int, group: Any, numbers: list[list[float]]) -> bool:
    """Whether ``Sums`` finds that the processes hold the same numbers."""
    sums = Sums(torch.ones(()))
    sums.compare(torch.tensor(numbers[rank], dtype=torch.float64))
    sums.put("after", torch.tensor([2.0]))
    sums.reduce(group)
    assert sums.get("after") == 2.0 * group.size()
    return not bool(sums.poison.isnan())


def _second(rank: int, group: Any) -> None:
    x = rows(4).requires_grad_()
    value = functional.softmax_loss(x, rows(4, seed=1), process_group=group)
    (grad,) = torch.autograd.grad(value, x, create_graph=True)
    grad.sum().backward()


MISTAKES: dict[str, Callable[[int, Any], None]] = {
    "index": _wrong_index,
    "negative index": _negative_index,
    "columns": lambda rank, group: _sparse(rank, group, 10 + rank),
    "local columns": lambda rank, group: _sparse(rank, group, 5),
    "unequal": _unequal,
    "refused": _refused,
    "module refused": _module_refused,
    "prefixes refused": _prefixes_refused,
    "settings": _margin,
    "dtype": _dtype,
    "width": _width,
    "kind": _kind,
    "weights": _weights,
    "gradients": _gradients,
    "mode": _mode,
    "second derivative": _second,
}


def mining(rank: int, group: Any, mode: str) -> list[str]:
    """Hardest negatives and nearest labels with their gradients, beside the whole batch."""
    bad = []
    across = GlobalBatch(group, mode)
    start, label_start = sum(ROWS[:rank]), sum(LABELS[:rank])
    for kind in KINDS:
        batch = make_batch(kind, ROWS, LABELS)
        whole, piece = batch.whole.to(torch.float64), batch.pieces[rank].to(torch.float64)
        calls = [
            lambda p, g: functional.hardest_negatives(
                p.queries, p.labels, p.positives, p.exclude, 4, process_group=g
            ),
            lambda p, g: functional.hardest_negatives(
                p.queries, p.labels, p.positives, p.exclude, exclude_above=0.1, process_group=g
            ),
            lambda p, g: functional.topk_similarity(
                p.queries, p.labels, 20, p.exclude, process_group=g
            ),
        ]
        for call in calls:
            expected, expected_index = call(whole, None)
            found, index = call(piece, across)
            stop = start + ROWS[rank]
            for scores in (expected, found):
                torch.where(scores > -9, scores, 0.0).sum().backward()
            label_stop = label_start + piece.labels.shape[0]
            if kind == "diagonal":
                label_start, label_stop = start, stop
            sides = [
                (found, expected[start:stop]),
                (piece.queries.grad, whole.queries.grad[start:stop]),
                (piece.labels.grad, whole.labels.grad[label_start:label_stop]),
            ]
            if not torch.equal(index, expected_index[start:stop]):
                bad.append(f"{kind}: other indices")
            if any(not torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in sides):
                bad.append(f"{kind}: other scores or gradients")
            label_start = sum(LABELS[:rank])
    return bad


def poisoned(rank: int, group: Any) -> list[bool]:
    """One element that is not finite, on one process, makes everything NaN everywhere."""
    torch.manual_seed(0)
    loss_fn = ALCLoss(12, auxiliary=Auxiliary(dropout=0.0), process_group=group).double()
    queries, labels = rows(5, seed=rank), rows(5, seed=rank + 9)
    if rank == 1:
        labels[3, 2] = torch.inf
    queries.requires_grad_(), labels.requires_grad_()
    loss = loss_fn(queries, labels)
    loss.backward()
    made = [loss, queries.grad, labels.grad]
    for parameter in loss_fn.parameters():  # the sum of the shares is the gradient
        dist.all_reduce(parameter.grad, group=group)
        made.append(parameter.grad)
    return [bool(x.isnan().all()) for x in made]


def quiet(rank: int, group: Any) -> tuple[int, int]:
    """How many messages about sizes the first and the second call of a kind send."""
    sent: list[int] = []
    whole, control.sum_over = control.sum_over, lambda *a: sent.append(1) or whole(*a)  # type: ignore[func-returns-value]
    try:
        across = GlobalBatch(group, equal_sizes=True)
        x = rows(5, seed=rank).requires_grad_()
        functional.softmax_loss(x, x, temperature=0.11, process_group=across)
        first = len(sent)
        functional.softmax_loss(x, x, temperature=0.11, process_group=across).backward()
    finally:
        control.sum_over = whole
    return first, len(sent) - first


def matryoshka(rank: int, group: Any) -> float:
    """Largest difference of a loss at several widths from that of one process."""
    batch = make_batch("pairs", ROWS, LABELS)
    made = []
    for piece, across in ((batch.whole, None), (batch.pieces[rank], group)):
        loss = ALCLoss(auxiliary=None, process_group=across)
        sides = [x.detach().requires_grad_() for x in (piece.queries, piece.labels)]
        value = MatryoshkaLoss(loss, (3, 7))(*sides, piece.positives)
        value.backward()
        made.append((value.detach(), sides[0].grad))
    (whole, grad), (value, own) = made
    start = sum(ROWS[:rank])
    return max(
        abs(value - whole).item(), (own - grad[start : start + ROWS[rank]]).abs().max().item()
    )


def learned(rank: int, group: Any) -> bool:
    """A temperature tensor gets each process's share."""
    batch = make_batch("pairs", ROWS, LABELS)
    shares = []
    for piece, across in ((batch.whole, None), (batch.pieces[rank], group)):
        temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        functional.softmax_loss(
            piece.queries, piece.labels, piece.positives, temperature=temperature, symmetric=True,
            decoupled=True, process_group=across,
        ).backward()  # fmt: skip
        shares.append(temperature.grad)
    dist.all_reduce(shares[1], group=group)
    return torch.allclose(shares[0], shares[1], rtol=1e-10)


def cached(rank: int, group: Any) -> float:
    """The largest difference of a chunked step's encoder gradient from the whole batch's."""
    torch.manual_seed(1)
    encoder = nn.Sequential(nn.Linear(7, 20), nn.GELU(), nn.Linear(20, 12)).double()
    loss_fn = ALCLoss(12, auxiliary=Auxiliary(dropout=0.0, context_size=4)).double()
    across = ALCLoss(12, auxiliary=loss_fn.auxiliary, process_group=group).double()
    across.load_state_dict(loss_fn.state_dict())
    x, y = rows(15, 7, seed=3), rows(15, 7, seed=4)
    loss_fn(encoder(x), encoder(y)).backward()
    expected = [p.grad.clone() for p in encoder.parameters()]
    encoder.zero_grad()
    own = slice(sum(ROWS[:rank]), sum(ROWS[: rank + 1]))
    across(cached_encode(encoder, x[own], 4), cached_encode(encoder, y[own], 4)).backward()
    for p in encoder.parameters():
        dist.all_reduce(p.grad, group=group)
    pairs = zip(encoder.parameters(), expected, strict=True)
    return max(float((p.grad - e).abs().max()) for p, e in pairs)


def compiled(rank: int, group: Any) -> list[Any]:
    """Compiled without a graph break; with the batch part, a clear refusal."""
    x = rows(6, seed=rank).requires_grad_()
    y = rows(6, seed=rank + 7)
    out: list[Any] = []
    loss_fn = ALCLoss(
        12, base=Softmax(), auxiliary=Auxiliary(batch_weight=0.0), process_group=group
    ).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step = torch.compile(loss_fn, fullgraph=True, backend="aot_eager")
        out.append(abs(float(step(x, y)) - float(loss_fn(x, y))))
        step(x, y).backward()
        batch_part = ALCLoss(12, process_group=group).double()
        try:
            torch.compile(batch_part, fullgraph=True, backend="aot_eager")(x, y)
        except Exception as error:
            out.append(str(error))
        torch.manual_seed(0)
        batch_part.eval()  # no dropout
        around = torch.compile(batch_part, backend="aot_eager")
        out.append(abs(float(around(x, y)) - float(batch_part(x, y))))
    return out


def stop(rank: int, group: Any, mode: str, how: str) -> tuple[str, float]:
    """Process 1 dies, sleeps or sends another size in the third step; what the others see."""
    across = GlobalBatch(group, mode, equal_sizes=how == "size")
    x = rows(5, seed=rank).requires_grad_()
    began = time.monotonic()
    try:
        for step in range(6):
            if rank == 1 and step == 2:
                if how == "killed":
                    os._exit(1)
                elif how == "delayed":
                    time.sleep(60)
                else:
                    x = rows(4, seed=rank).requires_grad_()
            began = time.monotonic()
            functional.softmax_loss(x, x, process_group=across).backward()
    except Exception as error:
        return f"{type(error).__name__}: {error}", time.monotonic() - began
    return "no error", 0.0
