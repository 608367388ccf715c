"""The errors of the trainer: each carries one line that a user can act on.

A command line catches :class:`XMCError`, prints ``str(error)`` and exits with code 2.
"""

from __future__ import annotations


class XMCError(Exception):
    """Base of every error below; its text is one line."""


class DataError(XMCError):
    """A data set that cannot be read or written: file, line, what was found, what was expected."""


class ConfigError(XMCError):
    """A setting that is unknown, of the wrong type or out of range."""


class EncoderError(XMCError):
    """An encoder that cannot be built: unknown name, missing package, unreadable weights."""


class CheckpointError(XMCError):
    """A checkpoint that is missing, truncated or foreign; names the file."""


class TrainingDiverged(XMCError):
    """The loss or the weights became non-finite; names the step and the last good checkpoint."""


class Interrupted(XMCError):
    """Training was stopped by the user after a usable checkpoint had been written."""


class ProcessFailed(XMCError):
    """Another process of the run failed or was lost; names its rank.

    Attributes:
        told: the other process has reported it itself.
    """

    def __init__(self, text: str, told: bool = False) -> None:
        super().__init__(text)
        self.told = told


def describe(error: BaseException) -> str:
    """An error in one line, with its type where it is none of ours."""
    text = " ".join(str(error).split())
    ours = type(error).__module__.startswith("alc_kernels.")
    return text if ours else f"{type(error).__name__}: {text}"


# What a command raises when the user, not the program, has to act.


class BadInput(Exception):
    """Ends the command with its message on one line and exit code 2."""


class Missing(BadInput):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}: pip install 'alc-kernels[{extra}]'"
        )
