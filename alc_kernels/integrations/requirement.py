"""A library that an adapter needs, checked when the adapter is imported."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version


def require(package: str, minimum: str) -> None:
    """Check that ``package`` is installed in version ``minimum`` (``"6.0"``) or a later one.

    Raises:
        ImportError: it is not, with the command that installs it. The extra has its name.
    """
    try:
        found = version(package)
    except PackageNotFoundError:
        found = "none"
    if found == "none" or _numbers(found) < _numbers(minimum):
        raise ImportError(
            f"this adapter needs {package} >= {minimum}, found {found}: "
            f'pip install "alc-kernels[{package}]"'
        )


def _numbers(text: str) -> tuple[int, ...]:
    """Major and minor version."""
    return tuple(int(x) for x in re.findall(r"\d+", text)[:2])
