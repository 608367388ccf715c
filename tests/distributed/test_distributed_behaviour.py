"""Mistakes are errors on every process at once; single features across processes."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from alc_kernels import GlobalBatch, functional
from tests.distributed import behaviours
from tests.distributed.pool import shared_pool

# The error of the first and of the second process.
MISTAKES = {
    "index": ["IndexError: positives: label column 40 is out of range on process 1"] * 2,
    "negative index": ["IndexError: positives: label column -1 is out of range on process 1"] * 2,
    "columns": ["ValueError: positives: expected 10 label columns, .* got 11 on process 1"] * 2,
    "local columns": ["ValueError: positives: expected 10 label columns, .* got 5"] * 2,
    "unequal": [r"ValueError: queries: equal_sizes=True promises .* got \[4, 5\]"] * 2,
    "refused": [
        "RuntimeError: process_group: process 1 of 2 refused its arguments",
        "ValueError: positives: the default",
    ],
    "module refused": [
        "RuntimeError: process_group: process 1 of 2 refused its arguments",
        "ValueError: queries: expected width embedding_dim=12",
    ],
    "prefixes refused": [
        "RuntimeError: process_group: process 1 of 2 refused its arguments",
        "ValueError: queries: expected a width of at least 12",
    ],
    "settings": ["ValueError: process_group: the processes differ in the settings of the loss"] * 2,
    "dtype": ["ValueError: process_group: the processes differ in the dtype"] * 2,
    "width": [r"ValueError: .* the width of the embeddings: \[12, 13\] in rank order"] * 2,
    "kind": ["ValueError: process_group: the processes differ in the kind of positives"] * 2,
    "weights": ["ValueError: process_group: the processes differ in the optional arguments"] * 2,
    "gradients": ["ValueError: .* the processes differ in which gradients are wanted"] * 2,
    "mode": ["ValueError: process_group: the processes differ in the mode"] * 2,
    "second derivative": ["RuntimeError: alc_kernels computes first derivatives only"] * 2,
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    found = shared_pool().run(behaviours.mistake, 2, name)
    for text, expected in zip(found, MISTAKES[name], strict=True):
        with pytest.raises(AssertionError, match=expected):
            raise AssertionError(text)


@pytest.mark.parametrize("mode", ["gather", "ring"])
def test_mining(mode: str) -> None:
    assert shared_pool().run(behaviours.mining, 2, mode) == [[], []]


def test_bad_input_of_one_poisons_all() -> None:
    for found in shared_pool().run(behaviours.poisoned, 2):
        assert all(found)


def test_equal_sizes_are_exchanged_once() -> None:
    assert shared_pool().run(behaviours.quiet, 2) == [(1, 0), (1, 0)]


def test_several_prefix_widths() -> None:
    assert max(shared_pool().run(behaviours.matryoshka, 2)) < 1e-12


def test_learned_temperature() -> None:
    assert shared_pool().run(behaviours.learned, 2) == [True, True]


def test_cached_encoder() -> None:
    assert max(shared_pool().run(behaviours.cached, 2)) < 1e-12


@pytest.mark.slow
def test_compiled() -> None:
    for difference, message, around in shared_pool().run(behaviours.compiled, 2):
        assert difference < 1e-12 and around < 1e-12
        assert "across processes the batch part" in message


def test_arguments_of_the_group() -> None:
    x = torch.randn(3, 4)
    with pytest.raises(ValueError, match="mode='both'"):
        GlobalBatch(mode="both")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="equal_sizes=1"):
        GlobalBatch(equal_sizes=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="process_group: expected a torch"):
        functional.softmax_loss(x, x, process_group=GlobalBatch("gloo"))
    assert not dist.is_initialized()
    with pytest.raises(RuntimeError, match="there is no default process group"):
        functional.softmax_loss(x, x, process_group=GlobalBatch())
