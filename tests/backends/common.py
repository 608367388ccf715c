"""What the backend tests share: the backends, poisoned memory, errors, random problems."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from alc_kernels.backends import native as native_backend
from alc_kernels.engine.interface import Problem
from tests.backends.relations import random_relation

NATIVE = native_backend.unsupported(torch.empty(1))  # why it cannot run here, or None
# The native backend is under test where it can run: on CPU tensors, when it is built.
BACKENDS = (
    "torch",
    *(["native"] if NATIVE is None and not torch.cuda.is_available() else []),
    "triton",
)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Relative error that float32 sums in another order may make whatever plain PyTorch makes.
FLOOR = 2e-6


def backend(name: str) -> Any:
    """The backend module ``name``."""
    return importlib.import_module(f"alc_kernels.backends.{name}")


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """New memory holds NaN (or the largest integer): what is read before it is written shows."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


def error(found: Tensor, expected: Tensor) -> float:
    """||found - expected|| / ||expected||; infinite when anything found is not finite."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    assert found.shape == expected.shape
    if not bool(torch.isfinite(found).all()):
        return float("inf")
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def assert_close(found: Tensor, expected: Tensor, plain: Tensor, floor: float = FLOOR) -> None:
    """``found`` errs at most half as much again as ``plain`` PyTorch in the same precision."""
    allowed = 1.5 * error(plain, expected) + floor
    assert error(found, expected) <= allowed, (error(found, expected), allowed)


def random_problem(
    num_queries: int,
    num_labels: int,
    d: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    positives: str = "empty",
    exclude: str = "empty",
    guard: bool | str = False,
    seed: int = 0,
) -> Problem:
    """Unit rows, of which the first few labels repeat queries, so that gradients are peaked.

    ``guard``: "slack" for one whose limits differ by the label as well.
    """
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(num_queries, d, generator=generator)
    labels = torch.randn(num_labels, d, generator=generator)
    shared = min(num_queries, num_labels) // 2
    labels[:shared] = queries[:shared] + 0.5 * labels[:shared]
    queries, labels = (torch.nn.functional.normalize(x) for x in (queries, labels))
    limits = 0.2 + 0.3 * torch.rand(num_queries, generator=generator)
    made = Problem(
        queries.to(device, dtype),
        labels.to(device, dtype),
        random_relation(positives, num_queries, num_labels, generator, density=0.05, device=device),
        random_relation(exclude, num_queries, num_labels, generator, density=0.05, device=device),
        limits.to(device) if guard else None,
    )
    if guard == "slack":
        numbers = (torch.rand(n, generator=generator) for n in (num_queries, num_labels))
        by_row, by_column = (x.to(device) for x in numbers)
        made = replace(made, slack=(0.4 * by_row, by_column))
    return made
