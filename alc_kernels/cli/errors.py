"""What a command raises when the user, not the program, has to act."""

from __future__ import annotations


class BadInput(Exception):
    """Ends the command with its message on one line and exit code 2."""


class Missing(BadInput):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}: pip install 'alc-kernels[{extra}]'"
        )
