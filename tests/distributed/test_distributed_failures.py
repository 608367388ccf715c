"""A process that dies, is late or sends something else: an error in bounded time, no hang."""

from __future__ import annotations

import pytest

from tests.distributed import behaviours
from tests.distributed.pool import Pool

TIMEOUT = 3.0
SECONDS = 4 * TIMEOUT  # a collective waits for up to the timeout; a message of another size may
# break one collective and leave the next one waiting


def outcome(mode: str, how: str, survivors: list[int]) -> None:
    pool = Pool(3, timeout=TIMEOUT)
    try:
        pool.start(behaviours.stop, 3, mode, how)
        for rank in survivors:
            assert pool.pipes[rank].poll(30), f"process {rank} hangs"
            good, found = pool.pipes[rank].recv()
            assert good, found
            text, seconds = found
            assert text.startswith("RuntimeError: process_group: process"), text
            assert "failed while exchanging" in text
            assert seconds < SECONDS
    finally:
        pool.close()


def test_killed() -> None:
    outcome("ring", "killed", [0, 2])


def test_delayed() -> None:
    outcome("gather", "delayed", [0, 2])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["gather", "ring"])
@pytest.mark.parametrize("how", ["killed", "delayed"])
def test_in_both_modes(mode: str, how: str) -> None:
    outcome(mode, how, [0, 2])


@pytest.mark.parametrize("mode", ["gather", "ring"])
def test_another_size_than_promised(mode: str) -> None:
    outcome(mode, "size", [0, 1, 2])
