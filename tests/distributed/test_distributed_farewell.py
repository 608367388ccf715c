"""The end of a program: no thread of Gloo's may need the interpreter any more."""

import threading
import time

import pytest
import torch.distributed as dist

from alc_kernels.distributed import farewell


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def hold(monkeypatch, seconds):
    """Another thread keeps what the last message was made of."""
    original = dist.all_gather

    def gather(out, tensor, group=None):
        original(out, tensor, group=group)
        threading.Thread(target=lambda kept: time.sleep(seconds), args=(out[0],)).start()

    monkeypatch.setattr(dist, "all_gather", gather)


def took(timeout=60.0):
    start = time.monotonic()
    farewell(timeout=timeout)
    return time.monotonic() - start


@pytest.mark.usefixtures("group")
def test_threads_that_hold_a_tensor_are_waited_for(monkeypatch):
    hold(monkeypatch, 0.3)
    assert 0.29 < took() < 50


@pytest.mark.usefixtures("group")
def test_but_not_for_ever(monkeypatch):
    hold(monkeypatch, 5.0)
    assert 0.1 <= took(timeout=0.1) < 4.5


@pytest.mark.usefixtures("group")
def test_nothing_is_waited_for_where_nothing_is_held():
    assert took() < 50
