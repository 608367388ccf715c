"""Who gets which of many rows: contiguous shares, in the order of the processes."""

from __future__ import annotations

from itertools import pairwise


def shares(count: int, processes: int, unit: int = 1) -> list[slice]:
    """A contiguous share of ``count`` rows for every process, in order; shares may be empty.

    Args:
        count: rows.
        processes: how many shares.
        unit: only whole runs of so many rows are dealt, the last run may be shorter. What is
            computed run by run then has the same bits for any number of processes.

    Returns:
        Slices that follow one another from 0 to ``count``. Their numbers of runs differ by at
        most one, the first processes have more.
    """
    runs, more = divmod(-(-count // unit), processes)
    ends = [unit * (runs * p + min(p, more)) for p in range(processes + 1)]
    return [slice(min(start, count), min(stop, count)) for start, stop in pairwise(ends)]
