"""Shared by every test: where the tests run and with how many threads.

With a GPU the Triton kernels run on it; without one they run in Triton's interpreter, which must
be chosen before Triton is imported.
"""

import os

import pytest
import torch
from hypothesis import settings

# The same examples each time: what passes here passes elsewhere. HYPOTHESIS_FRESH=1 draws new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("fresh", print_blob=True)
settings.load_profile("fresh" if os.environ.get("HYPOTHESIS_FRESH") else "same")

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    # The tests are small, and several processes share the cores.
    torch.set_num_threads(int(os.environ.get("ALC_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device under test."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
