"""Early stopping, checkpoint parts, files, TensorBoard."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alc_kernels.trainer.errors import ConfigError
from alc_kernels.trainer.training.batch_loss import Precision
from alc_kernels.trainer.training.callbacks import Board, EarlyStopping
from alc_kernels.trainer.training.checkpoint import replacing, sweep
from alc_kernels.trainer.training.state import RandomState, pack, unpack


def test_early_stopping_waits_for_a_gain() -> None:
    stopping = EarlyStopping(2)
    values = [0.5, 0.5, 0.6, 0.59, 0.6]
    gains = [stopping.update(epoch, value) for epoch, value in enumerate(values, start=1)]
    assert gains == [True, False, True, False, False]
    assert stopping.enough and stopping.best_epoch == 3 and stopping.best == 0.6


def test_early_stopping_goes_on_from_its_state() -> None:
    one, other = EarlyStopping(2), EarlyStopping(2)
    one.update(1, 0.0)  # no threshold attains the precision yet: the first is best all the same
    one.update(2, 0.0)
    assert one.best_epoch == 1 and not one.enough
    other.load_state_dict(one.state_dict())
    assert not other.update(3, 0.0) and other.enough
    assert not EarlyStopping(0).enough


class Keeper:
    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.state = saved


def test_states_survive_packing() -> None:
    one = {"a.b": torch.arange(3), "n": 3, "x": 0.1 + 0.2, "none": None, "s": "text"}
    other = {"rows": np.array([[1, 2]], np.int64), "mask": np.array([True, False])}
    tensors, values = pack({"one": Keeper(one), "other": Keeper(other), "empty": Keeper({})})
    assert set(tensors) == {"one.a.b", "other.rows", "other.mask"}
    found = unpack(tensors, values)
    assert found["empty"] == {}
    assert torch.equal(found["one"].pop("a.b"), one.pop("a.b")) and found["one"] == one
    for name, value in other.items():
        assert isinstance(found["other"][name], np.ndarray)
        np.testing.assert_array_equal(found["other"][name], value)


def test_random_state() -> None:
    random = RandomState(torch.device("cpu"))
    with torch.random.fork_rng():
        saved = random.state_dict()
        first = torch.rand(3)
        random.load_state_dict(saved)
        assert torch.equal(torch.rand(3), first)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    current, previous = tmp_path / "c", tmp_path / "p"
    for text in ("1", "2", "3"):
        with replacing(current, previous) as folder:
            (folder / "file").write_text(text)
    assert (current / "file").read_text() == "3" and (previous / "file").read_text() == "2"
    with pytest.raises(OSError, match="full"), replacing(current, previous) as folder:
        (folder / "file").write_text("4")
        raise OSError("full")
    assert (current / "file").read_text() == "3" and (previous / "file").read_text() == "2"
    (tmp_path / ".c.99.new").mkdir()
    (tmp_path / ".other").mkdir()
    sweep(current)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other", "c", "p"]


def test_precision_on_the_cpu() -> None:
    layer, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.half)):
        precision = Precision(name, torch.device("cpu"))
        with precision.autocast():
            assert layer(x).dtype == dtype
        assert precision.scaler.is_enabled() == (name == "fp16")


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_board_hides_what_a_resumed_run_takes_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for first, steps, loss in ((0, (1, 2, 3), 1.0), (2, (3, 4), 2.0)):
        board = Board(tmp_path, True)
        board.start(first)
        for step in steps:
            board.step(step, {"loss": loss})
        board.epoch({"epoch": 1, "step": steps[-1], "loss": 0.0, "validation_p1": 0.5})
        board.close()
    found = read_scalars(tmp_path / "tensorboard")
    assert found["train/loss"] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]
    assert found["validation/p1"] == [(4, 0.5)]


def test_board_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if "tensorboard" in name:
            raise ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match=r"pip install 'alc-kernels\[tensorboard\]'"):
        Board(tmp_path, True)
    Board(tmp_path, False).start(0)
    assert not list(tmp_path.iterdir())
