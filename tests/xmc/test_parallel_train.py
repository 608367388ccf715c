"""Two and three processes train what one trains, and go on where another number of them stopped."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parallel_cases import CASES, SETTINGS, interrupt, run_cases, run_training, start

from alc_kernels.trainer.parallel import Processes
from alc_kernels.trainer.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

ALONE = Processes()
# Sums of float32 in another order, and of bfloat16 vectors; relative for weights of size 1.
TOLERANCE = {"bf16": 1e-3}
# Where a gradient is within bfloat16's rounding of 0, it may have either sign, and a step of AdamW
# is as long as the rate (1e-3) however small the gradient: two runs are then two rates apart.
WEIGHTS_APART = {1e-3: 2e-3}


def assert_close(found: Any, expected: dict[str, Any], tolerance: float = 1e-5) -> None:
    assert isinstance(found, dict), found  # else what the processes wrote to stderr
    steps = len(found["losses"])
    assert found["losses"] == pytest.approx(expected["losses"][-steps:], abs=tolerance)
    for one, other in zip(found["history"], expected["history"], strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert value == pytest.approx(other[key], abs=tolerance), key
    assert found["weights"].keys() == expected["weights"].keys()
    apart = WEIGHTS_APART.get(tolerance, tolerance)
    for name, weight in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], weight, rtol=0, atol=apart)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["losses"] == expected["losses"][-len(found["losses"]) :]
    assert found["history"] == expected["history"]
    for name, weight in expected["weights"].items():
        assert torch.equal(found["weights"][name], weight), name


def assert_found_the_same(found: Any, expected: dict[str, Any]) -> None:
    assert isinstance(found, dict), found
    for name, (indices, scores) in expected.items():
        np.testing.assert_array_equal(found[name][0], indices, err_msg=name)
        np.testing.assert_array_equal(found[name][1], scores, err_msg=name)


def alone(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    return {name: CASES[name](ALONE, folder / f"one {name}") for name in names}


def problems(checks: Mapping[str, Callable[[], None]]) -> str:
    """What failed, by case: starting processes takes longer than all cases together."""
    made = []
    for name, check in checks.items():
        try:
            check()
        except Exception:
            made.append(f"--- {name}\n{traceback.format_exc()}")
    return "\n".join(made)


def test_two_processes(tmp_path: Path) -> None:
    """They train and find what one does, stop together, go on with what one began, ..."""
    interrupt(ALONE, tmp_path / "one", SETTINGS["averaged"], 3)
    two, one = run_cases(2, tmp_path, list(CASES)), alone(tmp_path, [*SETTINGS, "search"])

    def is_the_same(name: str) -> Callable[[], None]:
        return lambda: assert_close(two[name], one[name], TOLERANCE.get(name, 1e-5))

    def goes_on_bit_for_bit(name: str) -> Callable[[], None]:
        def check() -> None:
            assert isinstance(two[name], dict), two[name]
            assert len(two[name]["resumed"]["losses"]) == 1
            assert_same(two[name]["resumed"], two[name]["whole"])

        return check

    def goes_on_with_what_one_began(name: str) -> Callable[[], None]:
        def check() -> None:
            assert_close(two[name], one["averaged"])
            assert len(two[name]["losses"]) == 1

        return check

    def one_goes_on() -> None:
        left = tmp_path / "run cut for others"
        assert load_checkpoint(left / "checkpoint").position.step == 3
        assert_close(run_training(ALONE, left, SETTINGS["averaged"], resume=True), one["averaged"])

    def sharded_leaves_whole_tensors() -> None:
        parts, whole = (
            load_checkpoint(tmp_path / f"run {name}" / "checkpoint").parts["optimizers"]
            for name in ("sharded", "ngame")
        )
        assert {k: v.shape for k, v in parts.items()} == {k: v.shape for k, v in whole.items()}

    checks = {name: is_the_same(name) for name in SETTINGS}
    checks |= {name: goes_on_bit_for_bit(name) for name in ("cut", "cut sharded")}
    checks |= {name: goes_on_with_what_one_began(name) for name in ("resumed", "resumed sharded")}
    checks["one goes on with what two began"] = one_goes_on
    checks["checkpoint of a sharded run"] = sharded_leaves_whole_tensors
    checks["search"] = lambda: assert_found_the_same(two["search"], one["search"])
    assert not problems(checks)


def more_processes(folder: Path, size: int, names: Sequence[str]) -> str:
    found, one = run_cases(size, folder, [*names, "search"]), alone(folder, [*names, "search"])

    def is_the_same(name: str) -> Callable[[], None]:
        return lambda: assert_close(found[name], one[name], TOLERANCE.get(name, 1e-5))

    checks = {name: is_the_same(name) for name in names}
    checks["search"] = lambda: assert_found_the_same(found["search"], one["search"])
    return problems(checks)


def test_three_processes(tmp_path: Path) -> None:
    """With batches of two queries one process has none in every step."""
    assert not more_processes(tmp_path, 3, ["ngame", "tiny"])


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 4])
def test_every_way_to_train_with_more_processes(tmp_path: Path, size: int) -> None:
    assert not more_processes(tmp_path, size, list(SETTINGS))


@pytest.mark.parametrize("shards", [2, 3, 100])
def test_shards_of_the_labels_change_nothing(tmp_path: Path, shards: int) -> None:
    """100 are more than there are labels."""
    found = CASES["search"](ALONE, tmp_path)
    for name in ("random", "ties"):
        for part in ("", " all"):
            whole, cut = found[f"{name} 1{part}"], found[f"{name} {shards}{part}"]
            np.testing.assert_array_equal(cut[0], whole[0])
            np.testing.assert_allclose(cut[1], whole[1], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"parallel": "fsdp", "cache_chunk": 9, "ema": 0.9}])
def test_a_hugging_face_encoder(tmp_path: Path, settings: dict[str, Any]) -> None:
    """With a layer that pooling does not use, which gets no gradient anywhere."""
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    model = tmp_path / "tiny-bert"
    model.mkdir()
    (model / "vocab.txt").write_text("\n".join([*words, *(f"##{w}" for w in words[5:])]) + "\n")
    transformers.BertTokenizer(str(model / "vocab.txt")).save_pretrained(model)
    shape = transformers.BertConfig(
        vocab_size=80, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertModel(shape).save_pretrained(model)
    settings = {**settings, "encoder": str(model), "max_length": 16, "epochs": 1, "accumulate": 2}
    started = start(2, ["fresh", str(tmp_path / "two"), json.dumps(settings)])
    errors = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    one = run_training(ALONE, tmp_path / "one", settings)
    two = load_checkpoint(tmp_path / "two" / "checkpoint")
    assert two.position.history[0]["loss"] == pytest.approx(one["history"][0]["loss"], abs=1e-5)
    for name, weight in two.model.state_dict().items():
        torch.testing.assert_close(one["weights"][name], weight, rtol=0, atol=1e-5)
