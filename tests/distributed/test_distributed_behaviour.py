"""Mistakes are errors on every process at once; single features across processes."""

from __future__ import annotations

import re

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


# What the error of every process names; "the settings of the loss" elsewhere.
DIFFERENCES = {
    "temperature": r"temperature, scale or bias \(here temperature=0.0?5\)",
    "temperature of a module": r"temperature, scale or bias \(here temperature=0.0?5\)",
    "temperature tensor": r"the value of temperature, scale or bias \(here \[0.0?5\d*, 0.0\]\)",
    "temperature tensor and number": "temperature, scale or bias",
    "scale": r"temperature, scale or bias \(here scale=1[01].0, bias=-10.0\)",
    "bias of a module": r"temperature, scale or bias \(here scale=10.0, bias=-?10.0\)",
    "learned bias": r"the value of temperature, scale or bias \(here \[10.\d*, -1[01].0\]\)",
    "exclude_above of mining": "the settings of mining",
    "k": "the settings of mining",
    "label_offset": "the optional arguments",
    "batch_weight": "the settings of the module .*batch_weight=[12].0",
    "context_size": "the settings of the module .*context_size=[45]",
    "widths": r"the settings of the module .*widths=\(4,",
    "weights of widths": r"the settings of the module .*weights=\(1.0, [12].0\)",
    "weight of the one width": r"the settings of the module .*weights=\([12].0,\)",
    "matmul precision": "the dtype .*matmul precision 'high",
    "averaged": "equal_sizes or gradients_are_averaged",
    "equal_sizes": "equal_sizes or gradients_are_averaged",
}


def test_settings_that_differ_are_the_same_error_everywhere() -> None:
    for found in shared_pool().run(behaviours.differing, 2):
        assert set(found) == set(behaviours.DIFFERING) >= set(DIFFERENCES)
        for name, text in found.items():
            words = DIFFERENCES.get(name, "the settings of the loss")
            start = "ValueError: process_group: the processes differ in "
            assert re.match(start + words, text), (name, text)
            assert text.endswith("expected the same on all of them")


@pytest.mark.parametrize("learned", [False, True])
def test_scalars_that_drift_apart_make_the_loss_nan(learned: bool) -> None:
    found = shared_pool().run(behaviours.drifting, 2, learned)
    assert found == [[False, True, False]] * 2


@pytest.mark.parametrize(
    ("numbers", "same"),
    [
        ([[0.1, -10.0]] * 3, True),
        ([[0.1, -10.0], [0.1, 10.0]], False),  # differs in one bit, the highest
        ([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]], False),  # the middle one is the mean
        ([[0.1, 0.0], [0.1, 0.0], [0.1 + 2**-56, 0.0]], False),
        ([[float("nan"), 0.0]] * 2, True),
    ],
)
def test_numbers_compared_without_the_host(numbers: list[list[float]], same: bool) -> None:
    count = len(numbers)
    assert shared_pool().run(behaviours.unknown, count, numbers) == [same] * count


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
