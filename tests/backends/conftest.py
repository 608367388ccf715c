"""Shared by the tests of backends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.common import poisoned_memory


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """In every test of this folder, new memory holds NaN."""
    with poisoned_memory():
        yield
