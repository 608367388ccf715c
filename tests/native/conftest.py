"""Fixtures of the native tests."""

from __future__ import annotations

import pytest
import torch

from alc_kernels.backends import triton as triton_backend
from alc_kernels.backends.cuda import library, operators
from tests.native.cuda import built_for_host, cuda_device

__all__ = ["built_for_host", "cuda_device"]


@pytest.fixture
def calls(cuda_device: torch.device, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Turns the CUDA kernels on; names what is called of them."""
    reason = triton_backend.unsupported(torch.empty(1, device=cuda_device))
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setenv(library.SWITCH, "1")
    made: list[str] = []
    call = operators._call

    def noted(name: str, *arguments: object) -> None:
        made.append(name)
        call(name, *arguments)

    monkeypatch.setattr(operators, "_call", noted)
    return made
