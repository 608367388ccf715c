"""Every backend has every function of ``interface.Backend``, with its arguments by their names."""

from __future__ import annotations

import importlib
import inspect

import pytest

from alc_kernels.engine.interface import Backend

FUNCTIONS = [name for name, _ in inspect.getmembers(Backend, inspect.isfunction) if name[0] != "_"]


@pytest.mark.parametrize("name", ["torch", "native", "triton"])
def test_every_backend_keeps_the_contract(name: str) -> None:
    assert "walk" in FUNCTIONS and "prefix_gradient" in FUNCTIONS
    backend = importlib.import_module(f"alc_kernels.backends.{name}")
    if name == "triton":
        pytest.importorskip("triton")
    for function in FUNCTIONS:
        _, *expected = inspect.signature(getattr(Backend, function)).parameters
        assert list(inspect.signature(getattr(backend, function)).parameters) == expected, function
