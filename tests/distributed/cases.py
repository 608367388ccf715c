"""What the processes of a pool run: a loss on their part, beside one process on the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from alc_kernels import ALCLoss, GlobalBatch, functional, reference
from tests.distributed.data import Piece, cuts, make_batch
from tests.losses.cases import CASES, Case
from tests.tolerances import TOLERANCES

BY_NAME = {case.name: case for case in CASES}


@dataclass(frozen=True)
class Setup:
    """One comparison."""

    kind: str
    rows: Sequence[int]
    labels: Sequence[int] | None = None
    mode: str = "gather"
    case: str = "triplet"  # of tests.losses.cases
    dtype: torch.dtype = torch.float64
    backend: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    equal_sizes: bool = False
    averaged: bool = False
    seed: int = 0
    allowed: float = 1e-10  # of the largest element

    @property
    def label_sizes(self) -> Sequence[int]:
        return self.rows if self.labels is None or self.kind == "diagonal" else self.labels


def compare(rank: int, group: Any, setups: Sequence[Setup]) -> list[str]:
    """Run every comparison; what is wrong with which, on the first process."""
    return _each(rank, group, setups, _function)


def compare_modules(rank: int, group: Any, setups: Sequence[Setup]) -> list[str]:
    """As ``compare``, with ALCLoss(**options)."""
    return _each(rank, group, setups, _module)


def compare_with_plain(rank: int, group: Any, setups: Sequence[Setup]) -> list[str]:
    """Errors against float64 beside those of the reference computing in ``setup.dtype``."""
    bad = []
    for setup in setups:
        batch = make_batch(setup.kind, setup.rows, setup.labels, seed=setup.seed)
        across = GlobalBatch(group, setup.mode)
        found = _function(setup, batch.pieces[rank].to(setup.dtype), across)
        everything: list[Any] = [None] * len(setup.rows)
        dist.gather_object(found, everything if rank == 0 else None, group=group, group_dst=0)
        if rank:
            continue
        whole = batch.whole.to(setup.dtype)
        # The truth is of the rows as they are rounded: half rows are normalised, then rounded.
        half = setup.dtype.itemsize == 2
        rounding = {"compute_dtype": setup.dtype} if half else {}
        truth = _plain(setup, whole.to(torch.float64), rounding)
        plain = _plain(setup, whole, {})
        for name, exact in truth.items():
            joined = torch.cat([one[name] for one in everything]) if exact.dim() else None
            ours = everything[0][name] if joined is None else joined
            error, allowed = ((x.double() - exact).norm() for x in (ours, plain[name]))
            # What one process is allowed (tests/tolerances.py), or twice plain PyTorch's error.
            floor = TOLERANCES[setup.dtype].gradient * max(float(exact.norm()), 1e-3)
            if not float(error) <= 2 * float(allowed) + floor:
                bad.append(f"{setup}: {name} errs by {error:.3g}, plain PyTorch by {allowed:.3g}")
    return bad


def _plain(setup: Setup, piece: Piece, more: dict[str, Any]) -> dict[str, Tensor]:
    value = BY_NAME[setup.case].call(reference, piece, **more)
    (value * 1.5).backward()
    assert piece.queries.grad is not None and piece.labels.grad is not None
    return {
        "same:value": value.detach(),
        "rows:queries": piece.queries.grad,
        "labels:labels": piece.labels.grad,
    }


def _each(rank: int, group: Any, setups: Sequence[Setup], run: Any) -> list[str]:
    bad = []
    for setup in setups:
        batch = make_batch(setup.kind, setup.rows, setup.labels, seed=setup.seed)
        across = GlobalBatch(
            group, setup.mode, setup.equal_sizes, gradients_are_averaged=setup.averaged
        )
        found = run(setup, batch.pieces[rank].to(setup.dtype), across)
        everything: list[Any] = [None] * len(setup.rows)
        dist.gather_object(found, everything if rank == 0 else None, group=group, group_dst=0)
        if rank == 0:
            expected = run(setup, batch.whole.to(setup.dtype), None)
            bad += [f"{setup}: {text}" for text in _differences(setup, everything, expected)]
    return bad


def _function(setup: Setup, piece: Piece, across: GlobalBatch | None) -> dict[str, Tensor]:
    case: Case = replace(
        BY_NAME[setup.case], options={**BY_NAME[setup.case].options, **setup.options}
    )
    value = case.call(functional, piece, backend=setup.backend, process_group=across)
    if setup.options.get("reduction") == "none":
        # A gradient per row.
        (value * (piece.weight + 0.5)).sum().backward()
        found = {"rows:value": value.detach()}
    else:
        (value * 1.5).backward()
        found = {"same:value": value.detach()}
    found["rows:queries"], found["labels:labels"] = piece.queries.grad, piece.labels.grad
    return found


def _module(setup: Setup, piece: Piece, across: GlobalBatch | None) -> dict[str, Tensor]:
    torch.manual_seed(5)
    loss_fn = ALCLoss(12, backend=setup.backend, process_group=across, **setup.options)
    loss_fn.to(setup.dtype)
    terms = loss_fn.terms(piece.queries, piece.labels, piece.positives, piece.exclude)
    again = loss_fn(piece.queries, piece.labels, piece.positives, piece.exclude)
    (terms.total + 0.5 * again).backward()
    found = {"rows:queries": piece.queries.grad, "labels:labels": piece.labels.grad}
    for name in ("total", "base", "pair", "batch", "tcm_positive", "tcm_negative"):
        found[f"same:{name}"] = getattr(terms, name).detach()
    for name in ("active_positives", "active_negatives"):
        found[f"same:{name}"] = getattr(terms, name)
    for name in ("hardest_score", "hardest_index"):
        found[f"rows:{name}"] = getattr(terms, name)
    for name, parameter in loss_fn.named_parameters():
        found[f"share:{name}"] = parameter.grad
    return found


# Of the results, what is a gradient, and so multiplied for wrappers that average.
_NO_GRADIENTS = ("rows:value", "rows:hardest_score", "rows:hardest_index")


def _together(gradient: Tensor) -> Tensor:
    """(M, d) with what the equal labels 3 and 7 (``make_batch``) get added up.

    Which of them is the k-th hardest is for the rounding of their scores to say, and that depends
    on the shape of the block that they are in.
    """
    if len(gradient) <= 9:
        return gradient
    made = gradient.clone()
    made[3] += made[7]
    made[7] = 0
    return made


def _differences(
    setup: Setup, found: list[dict[str, Tensor]], expected: dict[str, Tensor]
) -> list[str]:
    """Values that are the same everywhere, rows and labels in rank order, shares that sum up."""
    out = []
    sizes = {"rows": setup.rows, "labels": setup.label_sizes}
    for name, value in expected.items():
        where, parts = name.split(":")[0], [one[name] for one in found]
        if name == "labels:labels" and all(
            len(p) == n for p, n in zip(parts, sizes[where], strict=True)
        ):
            parts = list(_together(torch.cat(parts)).split(list(sizes[where])))
            value = _together(value)
        if setup.averaged and where != "same" and name not in _NO_GRADIENTS:
            value = value * len(found)
        if where == "same":
            pairs = [(part, value) for part in parts]
        elif where == "share":
            pairs = [(sum(parts), value)]
        else:
            ranges = cuts(sizes[where])
            pairs = [(part, value[i:j]) for part, (i, j) in zip(parts, ranges, strict=True)]
        finite = value[value.isfinite()].abs()
        scale = max(float(finite.max()), 1e-3) if finite.numel() else 1.0
        for rank, (a, b) in enumerate(pairs):
            if a.shape != b.shape or a.dtype != b.dtype:
                kind = f"{a.dtype} {tuple(a.shape)}, expected {b.dtype} {tuple(b.shape)}"
                out.append(f"{name} on {rank}: {kind}")
                continue
            unequal = ~((a == b) | (a.isnan() & b.isnan()))
            error = float((a - b)[unequal].abs().max()) if bool(unequal.any()) else 0.0
            if not error <= setup.allowed * scale:
                out.append(f"{name} on {rank}: error {error:.3g} of {scale:.3g}")
    return out
