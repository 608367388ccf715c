"""What the processes agree on before they compute: sizes, settings, and that nobody refused.

Every call begins with one small message from each process to all. Whatever is off is then known
to all of them, and all raise the same error, where they would otherwise wait for each other. The
message goes between the hosts: over the group itself where it is a CPU group (Gloo), else over a
Gloo group of the same processes, which is made at the first call. So a GPU never waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from zlib import crc32

import torch
import torch.distributed as dist
from torch import Tensor

from alc_kernels.distributed.collectives import Group, sum_over
from alc_kernels.distributed.settings import Membership


@dataclass(frozen=True)
class Sizes:
    """How the global batch is cut: rows and labels of every process, in rank order."""

    rank: int
    queries: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def total_queries(self) -> int:
        return sum(self.queries)

    @property
    def total_labels(self) -> int:
        return sum(self.labels)

    @property
    def query_start(self) -> int:
        """The first query of this process in the global batch."""
        return sum(self.queries[: self.rank])

    @property
    def label_start(self) -> int:
        return sum(self.labels[: self.rank])

    @property
    def label_bounds(self) -> tuple[int, ...]:
        """Where every process's labels begin, and where the last end."""
        bounds = [0]
        for size in self.labels:
            bounds.append(bounds[-1] + size)
        return tuple(bounds)

    def encode(self) -> Tensor:
        """(2, processes) int64, on the CPU."""
        return torch.tensor([self.queries, self.labels])

    @staticmethod
    def decode(sizes: Tensor, rank: int) -> Sizes:
        queries, labels = sizes.tolist()
        return Sizes(rank, tuple(queries), tuple(labels))


@dataclass(frozen=True)
class Statement:
    """What one process says about its call."""

    num_queries: int
    num_labels: int
    # Must be the same everywhere. A text travels as its checksum.
    same: Mapping[str, int | str]
    # Likewise, but may change from call to call: no call of another kind, so with ``equal_sizes``
    # compared at the first call only.
    now: Mapping[str, str]
    # Of positives and exclude, where they are over the labels of all processes: how many columns
    # they say they have, the smallest and the largest column in them. ``NO_COLUMNS`` elsewhere.
    columns: tuple[tuple[int, int, int], tuple[int, int, int]]

    def key(self) -> tuple[object, ...]:
        """What makes a call of another kind."""
        counts = (columns[0] for columns in self.columns)
        return (self.num_queries, self.num_labels, *self.same.items(), *counts)


NO_COLUMNS = (-1, 0, -1)
_REFUSED = 1
_FIELDS = ("positives", "exclude")
_seen: dict[str, set[tuple[object, ...]]] = {}  # by group: kinds of calls that were compared


def resolve(member: Membership) -> Group:
    """The process group behind a membership."""
    return _by_name(member.name)


def _by_name(name: str) -> Group:
    from torch.distributed.distributed_c10d import _resolve_process_group

    return _resolve_process_group(name)  # type: ignore[arg-type]


@lru_cache(maxsize=16)
def _channel(name: str) -> Group:
    """The group that the hosts talk over."""
    group = _by_name(name)
    if "cpu" in dist.get_backend_config(group):
        return group
    ranks = dist.get_process_group_ranks(group)
    return dist.new_group(ranks, backend="gloo", use_local_synchronization=True)


def _row(member: Membership, values: list[int]) -> list[list[int]]:
    """Every process's values, in rank order."""
    group = resolve(member)
    table = torch.zeros(member.world_size, _LENGTH, dtype=torch.int64)
    table[group.rank(), : len(values)] = torch.tensor(values)
    channel = _channel(member.name)
    rows: list[list[int]] = sum_over(table, channel, "the sizes of a call").tolist()
    return rows


_MAX_SAME = 12
_LENGTH = 3 + 3 * len(_FIELDS) + _MAX_SAME


def _as_int(value: int | str) -> int:
    return value if isinstance(value, int) else crc32(value.encode())


def agree(member: Membership, statement: Statement) -> Sizes:
    """Compare the call with the other processes' and learn their sizes.

    Raises:
        RuntimeError: another process refused its arguments.
        ValueError: the processes' settings or sizes do not go together.
        IndexError: a column is outside the global labels.
    """
    rank = resolve(member).rank()
    key = statement.key()
    if member.equal_sizes and key in _seen.get(member.name, ()):
        count = member.world_size
        sizes = Sizes(rank, (statement.num_queries,) * count, (statement.num_labels,) * count)
        _check_columns([list(statement.columns)], sizes.total_labels, [rank])
        return sizes
    values = [0, statement.num_queries, statement.num_labels]
    values += [x for columns in statement.columns for x in columns]
    values += [_as_int(value) for value in (*statement.same.values(), *statement.now.values())]
    table = _row(member, values)
    refused = [r for r, row in enumerate(table) if row[0] == _REFUSED]
    if refused:
        raise RuntimeError(
            f"process_group: process {refused[0]} of {member.world_size} refused its arguments; "
            "its own error says why"
        )
    sizes = Sizes(rank, tuple(row[1] for row in table), tuple(row[2] for row in table))
    _check_same(table, statement)
    columns = [[tuple(row[3 + 3 * i : 6 + 3 * i]) for i in range(len(_FIELDS))] for row in table]
    _check_columns(columns, sizes.total_labels, list(range(member.world_size)))
    if member.equal_sizes:
        for name, found in (("queries", sizes.queries), ("labels", sizes.labels)):
            if len(set(found)) > 1:
                raise ValueError(
                    f"{name}: equal_sizes=True promises equally many on every process, got "
                    f"{list(found)} in rank order"
                )
        _seen.setdefault(member.name, set()).add(key)
    return sizes


def refuse(member: Membership) -> None:
    """Tell the others that this process's arguments are off, so that they do not wait for it.

    With ``equal_sizes`` only the first call is heard, as later ones exchange nothing.
    """
    if not (member.equal_sizes and _seen.get(member.name)):
        _row(member, [_REFUSED])


@contextmanager
def refusing(group: str) -> Iterator[None]:
    """Checks of the own arguments: when they fail the other processes hear of it.

    ``group`` is an encoded membership.
    """
    try:
        yield
    except (TypeError, ValueError, IndexError, RuntimeError):
        refuse(Membership.decode(group))
        raise


def _check_same(table: list[list[int]], statement: Statement) -> None:
    start = 3 + 3 * len(_FIELDS)
    for i, (name, own) in enumerate([*statement.same.items(), *statement.now.items()], start):
        values = [row[i] for row in table]
        if len(set(values)) > 1:
            shown = "" if isinstance(own, str) else f": {values} in rank order"
            here = f" (here {own})" if isinstance(own, str) else ""
            raise ValueError(
                f"process_group: the processes differ in {name}{shown}{here}; expected the same "
                "on all of them"
            )


def _check_columns(table: list[list[Any]], total_labels: int, ranks: list[int]) -> None:
    for rank, row in zip(ranks, table, strict=True):
        for name, (count, low, high) in zip(_FIELDS, row, strict=True):
            if count not in (-1, total_labels):
                raise ValueError(
                    f"{name}: expected {total_labels} label columns, the labels of all processes, "
                    f"got {count} on process {rank}"
                )
            if low < 0 or high >= total_labels:
                raise IndexError(
                    f"{name}: label column {low if low < 0 else high} is out of range on process "
                    f"{rank}: expected 0 <= index < {total_labels} (labels of all processes)"
                )
