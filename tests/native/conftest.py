"""Fixtures of the native tests."""

from tests.native.cuda import built_for_host, cuda_device

__all__ = ["built_for_host", "cuda_device"]
