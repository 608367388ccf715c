"""Shares of rows, parts of batches, messages about failures: without other processes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import HashStore

from alc_kernels.cli import main
from alc_kernels.cli.app import is_told_elsewhere, this_rank
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data import generate_catalogue
from alc_kernels.trainer.encoders import build_encoder
from alc_kernels.trainer.errors import ConfigError, DataError, ProcessFailed
from alc_kernels.trainer.parallel import Processes, join
from alc_kernels.trainer.parallel.join import explained, is_communication_error
from alc_kernels.trainer.parallel.processes import shares
from alc_kernels.trainer.training import train
from alc_kernels.trainer.training.batch_loss import find_device
from alc_kernels.trainer.training.sampler import make_batch
from alc_kernels.trainer.training.training_set import TrainingSet

GLOO = RuntimeError("[.../gloo/transport/tcp/pair.cc:547] Connection closed by peer")


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 50))
def test_shares_follow_one_another_and_are_even(count: int, processes: int, unit: int) -> None:
    found = shares(count, processes, unit)
    assert len(found) == processes and found[0].start == 0 and found[-1].stop == count
    for one, other in pairwise(found):
        assert one.stop == other.start
    runs = [-(-(part.stop - part.start) // unit) for part in found]
    assert max(runs) - min(runs) <= 1 and runs == sorted(runs, reverse=True)
    assert all(part.start % unit == 0 or part.start == count for part in found)


@given(st.integers(1, 7), st.integers(0, 10**6))
def test_the_parts_of_a_batch_are_the_batch(processes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    from scipy.sparse import csr_matrix

    relation = csr_matrix((rng.random((9, 6)) < 0.4).astype(np.float32))
    excluded = csr_matrix((rng.random((9, 6)) < 0.2).astype(np.float32))
    rows = rng.permutation(9)[:5]
    sampled = np.array([rng.choice([*relation[row].indices, -1]) for row in rows])
    whole = make_batch(relation, rows, sampled, None, excluded)
    cuts = zip(shares(5, processes), shares(len(whole.labels), processes), strict=True)
    parts = [whole.part(*cut) for cut in cuts]
    assert whole.columns is whole.labels and all(p.columns is whole.labels for p in parts)
    for name in ("queries", "labels", "col", "excluded_col"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    for name in ("crow", "excluded_crow"):
        lengths = np.concatenate([np.diff(getattr(part, name)) for part in parts])
        np.testing.assert_array_equal(lengths, np.diff(getattr(whole, name)))


@pytest.mark.parametrize(("own", "most", "sizes"), [(5, 5, [3, 2]), (6, 7, [3, 3, 1]), (0, 1, [1])])
def test_everyone_encodes_as_many_chunks(own: int, most: int, sizes: list[int]) -> None:
    """A process with fewer texts than others fills up with one that nobody asked for."""
    data = TrainingSet(generate_catalogue(20, 60), TrainConfig())
    encoder = build_encoder("ngrams")
    data.tokenize(encoder)
    chunks = data.select(np.arange(own), np.zeros(0, np.int64), chunk=3, most=most)
    assert [len(chunk.offsets) - 1 for chunk in chunks] == sizes


def processes(store: Any, rank: int, size: int = 3) -> Processes:
    return Processes(rank, size, rank, None, store)


def test_a_process_that_left_no_note_is_named() -> None:
    store = HashStore()
    store.set("2", "lost contact")
    lost = pytest.raises(ProcessFailed, match="rank 0 of 3 was killed or did not answer within 9 s")
    with lost, explained(processes(store, 1), 9.0, grace=0.2):
        raise GLOO
    assert store.get("1") == b"lost contact"


def test_a_process_that_failed_is_quoted() -> None:
    store = HashStore()
    with pytest.raises(DataError), explained(processes(store, 2), 9.0):
        raise DataError("file.txt: line 3")
    quoted = pytest.raises(ProcessFailed, match=r"^rank 2 failed: file.txt: line 3$")
    with quoted as raised, explained(processes(store, 1), 9.0, grace=0.2):
        raise GLOO
    assert raised.value.told  # by rank 2


def test_where_everyone_is_there_the_error_stays() -> None:
    store = HashStore()
    for rank in (0, 2):
        store.set(str(rank), "lost contact")
    same = pytest.raises(RuntimeError, match="Connection closed")
    with same, explained(processes(store, 1), 9.0, grace=0.2):
        raise GLOO


def test_the_same_error_of_several_is_told_by_one() -> None:
    store, told = HashStore(), []
    for rank in (1, 0):
        with pytest.raises(DataError) as raised, explained(processes(store, rank), 9.0):
            raise DataError("the same")
        told.append(raised.value.told)  # type: ignore[attr-defined]
    assert told == [False, True]


def test_errors_of_communication() -> None:
    assert is_communication_error(GLOO)
    assert is_communication_error(torch.distributed.DistNetworkError("refused"))
    assert not is_communication_error(torch.OutOfMemoryError("nccl buffers"))
    assert not is_communication_error(RuntimeError("shapes differ"))


def test_torchruns_variables_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="RANK, MASTER_ADDR, MASTER_PORT not set"), join("cpu"):
        pass
    for name, value in (("RANK", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"RANK = 2: expected 0 to 1"), join("cpu"):
        pass
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ConfigError, match="expected whole numbers"), join("cpu"):
        pass


def test_a_trainer_that_did_not_join_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else each process would train a model of its own into the same folder."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"one of 2 processes .*parallel\.join\(\)"):
        train(TrainConfig(device="cpu"), generate_catalogue(20, 60), tmp_path)


def test_several_processes_do_not_share_a_gpu() -> None:
    with pytest.raises(ConfigError, match="device = 'cuda:1': 3 processes cannot share a GPU"):
        find_device("cuda:1", processes(None, 0))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_process_without_a_gpu_says_so() -> None:
    with pytest.raises(ConfigError, match="process 2 of this machine has no GPU: found 0"):
        find_device("cuda", processes(None, 2))


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"process_timeout = 0\.5: expected a number of seconds"):
        TrainConfig(process_timeout=0.5)
    with pytest.raises(ConfigError, match="label_shards = 0: expected a whole number"):
        TrainConfig(label_shards=0)
    with pytest.raises(ConfigError, match="precision = 'fp16' with parallel = 'fsdp'"):
        TrainConfig(precision="fp16", parallel="fsdp")


def test_settings_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--print-config"]) == 0
    printed = capsys.readouterr().out
    for line in ('parallel = "ddp"', "process_timeout = 600.0", "label_shards = 1"):
        assert line in printed


def test_errors_before_processes_meet_are_told_once_per_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert this_rank() == "" and not is_told_elsewhere(ValueError())
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert main(["train", "--data", "nowhere"]) == 2
    error = capsys.readouterr().err
    assert error == "alc train: rank 0 of 4: --output is missing; see alc train --help\n"
