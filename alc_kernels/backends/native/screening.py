"""Whether a walk screens by 8-bit products (``csrc/cpu/screening``), and how it went."""

from __future__ import annotations

import ctypes
import os
import threading
from dataclasses import dataclass

import torch

SWITCH = "ALC_KERNELS_SCREENING"
MODES = ("off", "auto", "on")  # "on": wherever it is possible, faster or not
BOUND_SCALE = 1.0  # of the bound; less makes it wrong: tests see that this is found out


class ScreenArguments(ctypes.Structure):
    """``ScreenRequest``."""

    _fields_ = [
        ("always", ctypes.c_int64),
        ("bound_scale", ctypes.c_double),
        ("packed", ctypes.c_void_p),
        ("screened", ctypes.c_int64),
        ("given_up", ctypes.c_int64),
        ("scored", ctypes.c_int64),
        ("run", ctypes.c_int64),
    ]


@dataclass
class Counts:
    """Over all walks since the last ``take_counts``.

    Attributes:
        screened: rows whose pairs were screened.
        given_up: those of them that took full precision from some column on: too many candidates.
        scored: pairs of them that were scored in full precision by themselves.
        same_rounding: whether those scores are, to the bit, what the matrix product would give:
            where the order of its sums is known.
    """

    screened: int = 0
    given_up: int = 0
    scored: int = 0
    same_rounding: bool = True


_counts, _lock = Counts(), threading.Lock()


def asked() -> ScreenArguments | None:
    """What a walk is to do; None: no screening.

    There is none where products may be rounded to less than float32: the bound is for float32.

    Raises:
        ValueError: ``ALC_KERNELS_SCREENING`` is something else.
    """
    mode = os.environ.get(SWITCH, "auto")
    if mode not in MODES:
        raise ValueError(f"{SWITCH}={mode}: expected {', '.join(MODES)}")
    if mode == "off" or torch.get_float32_matmul_precision() != "highest":
        return None
    return ScreenArguments(always=mode == "on", bound_scale=BOUND_SCALE)


def note(found: ScreenArguments) -> None:
    """Add what a walk has left."""
    if not found.screened:
        return
    with _lock:
        _counts.screened += found.screened
        _counts.given_up += found.given_up
        _counts.scored += found.scored
        _counts.same_rounding &= found.run > 0


def take_counts() -> Counts:
    """What was counted, which begins at 0 again."""
    global _counts
    with _lock:
        taken, _counts = _counts, Counts()
    return taken
