"""FAISS: imported where it is needed, and made repeatable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alc_kernels.xmc.errors import XMCError


class MissingFaiss(XMCError):
    """Something needs FAISS, which is not installed."""


def load_faiss(purpose: str) -> Any:
    """The module ``faiss``.

    Args:
        purpose: what needs it, as the first words of the error.

    Raises:
        MissingFaiss: it is not installed; names the extra to install.
    """
    try:
        import faiss
    except ImportError:
        raise MissingFaiss(
            f"{purpose} needs the package faiss: pip install 'alc-kernels[faiss-cpu]'"
        ) from None
    return faiss


@contextmanager
def single_thread(faiss: Any) -> Iterator[None]:
    """One thread for FAISS: results then do not depend on how many the machine offers."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
