"""Shared by every test: where the tests run and with how many threads.

With a GPU the Triton kernels run on it; without one they run in Triton's interpreter, which must
be chosen before Triton is imported.
"""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    # The tests are small, and several processes share the cores.
    torch.set_num_threads(int(os.environ.get("ALC_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device under test."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
