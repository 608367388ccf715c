"""The command line, ``alc``: one file per command, none of them holding more than wiring."""

from alc_kernels.cli.app import main

__all__ = ["main"]
