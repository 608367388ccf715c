"""Which labels are right for which query: a sparse B x M relation in its cheapest form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class SparseRows(NamedTuple):
    """One orientation of a sparse relation, every pair once, columns ascending in each row."""

    crow: Tensor  # (B + 1,) int64: row i owns entries crow[i] .. crow[i + 1]
    col: Tensor  # (nnz,) int64
    row: Tensor  # (nnz,) int64: the row of each entry
    first: Tensor  # (B,) int64: the row's first column in the order given, -1 where none


def _no_pairs_first(rows: Tensor, cols: Tensor, num_rows: int) -> Tensor:
    """First column of each row in the order given, -1 for a row without pairs."""
    count = rows.numel()
    position = torch.arange(count, device=rows.device)
    earliest = torch.full((num_rows,), count, dtype=torch.int64, device=rows.device)
    earliest = earliest.scatter_reduce(0, rows, position, "amin")
    padded = torch.cat([cols, cols.new_full((1,), -1)])
    return padded[earliest]


def _sorted_rows(rows: Tensor, cols: Tensor, num_rows: int, first: Tensor) -> SparseRows:
    """Arrange unique pairs by row, then column. No host synchronisation."""
    order = torch.argsort(cols, stable=True)
    order = order[torch.argsort(rows[order], stable=True)]
    row, col = rows[order], cols[order]
    starts = torch.arange(num_rows + 1, device=rows.device)
    return SparseRows(torch.searchsorted(row, starts), col, row, first)


def _as_index(name: str, value: object, *, dim: int | None = 1) -> Tensor:
    """Check an integer tensor argument and return it as int64."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected an integer tensor, got {type(value).__name__}")
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name}: expected an integer tensor, got {value.dtype}")
    if dim is not None and value.dim() != dim:
        raise ValueError(f"{name}: expected {dim} dimension(s), got shape {tuple(value.shape)}")
    return value.detach().to(torch.int64)


def _as_size(name: str, value: object) -> int:
    """Check a number of queries or labels."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name}: expected an integer >= 0, got {value!r}")
    return value


def _check_range(name: str, index: Tensor, size: int, what: str) -> None:
    """Raise when an index leaves [0, size); names the first offender."""
    bad = (index < 0) | (index >= size)
    if bool(bad.any()):
        at = int(bad.nonzero()[0])
        raise IndexError(
            f"{name}[{at}] = {int(index[at])} is out of range: expected 0 <= index < {size} "
            f"({what})"
        )


@dataclass(eq=False, repr=False)
class Positives:
    """A sparse relation between B queries and M labels; also used for excluded pairs.

    Build it with one of the class methods. It is immutable; duplicates count once. Tensors
    must live on the device of the embeddings (``.to(device)`` moves them).

    The *first* positive of a row is the first in the order given (``from_csr``,
    ``from_pairs``), the smallest label (``from_dense``), or label i for query i where the ids
    agree and B = M, else the smallest label (``from_ids``).
    """

    kind: str  # internal: empty, diagonal, index, ids or csr, each with its tensors
    num_queries: int
    num_labels: int
    tensors: tuple[Tensor, ...]

    # -- construction -------------------------------------------------------------------------

    @classmethod
    def diagonal(cls, n: int) -> Positives:
        """Query i matches label i; B = M = ``n``."""
        n = _as_size("n", n)
        return cls("diagonal", n, n, ())

    @classmethod
    def from_index(cls, index: Tensor, num_labels: int) -> Positives:
        """One label per query.

        Args:
            index: (B,) integers, the label column of each query.
            num_labels: M.

        Raises:
            IndexError: an index is outside [0, M).
        """
        index, num_labels = _as_index("index", index), _as_size("num_labels", num_labels)
        _check_range("index", index, num_labels, "num_labels")
        return cls("index", index.numel(), num_labels, (index,))

    @classmethod
    def from_ids(cls, query_ids: Tensor, label_ids: Tensor) -> Positives:
        """Equal ids are positive. Keeps the two vectors: no expansion, no synchronisation.

        Args:
            query_ids: (B,) integers.
            label_ids: (M,) integers, on the same device.
        """
        query_ids = _as_index("query_ids", query_ids)
        label_ids = _as_index("label_ids", label_ids)
        if query_ids.device != label_ids.device:
            raise ValueError(
                f"label_ids: expected device {query_ids.device} (as query_ids), "
                f"got {label_ids.device}"
            )
        return cls("ids", query_ids.numel(), label_ids.numel(), (query_ids, label_ids))

    @classmethod
    def from_csr(cls, crow: Tensor, col: Tensor, num_labels: int) -> Positives:
        """Compressed sparse rows.

        Args:
            crow: (B + 1,) integers, non-decreasing from 0 to nnz.
            col: (nnz,) integers in [0, M); any order within a row, duplicates count once.
            num_labels: M.

        Raises:
            ValueError: ``crow`` is not a valid row pointer.
            IndexError: a column is outside [0, M).
        """
        crow, col = _as_index("crow", crow), _as_index("col", col)
        num_labels = _as_size("num_labels", num_labels)
        if crow.device != col.device:
            raise ValueError(f"col: expected device {crow.device} (as crow), got {col.device}")
        if crow.numel() < 1:
            raise ValueError("crow: expected B + 1 entries, got an empty tensor")
        lengths = crow.diff()
        if int(crow[0]) != 0 or int(crow[-1]) != col.numel() or bool((lengths < 0).any()):
            raise ValueError(
                f"crow: expected a non-decreasing row pointer from 0 to {col.numel()} (entries of "
                f"col), got values from {int(crow[0])} to {int(crow[-1])}"
                + (", decreasing in places" if bool((lengths < 0).any()) else "")
            )
        rows = torch.repeat_interleave(torch.arange(lengths.numel(), device=crow.device), lengths)
        return cls.from_pairs(rows, col, (lengths.numel(), num_labels), _names=("crow", "col"))

    @classmethod
    def from_pairs(
        cls,
        rows: Tensor,
        cols: Tensor,
        shape: tuple[int, int],
        *,
        _names: tuple[str, str] = ("rows", "cols"),
    ) -> Positives:
        """A list of (query, label) pairs in any order, duplicates counting once.

        Args:
            rows, cols: (nnz,) integers each.
            shape: (B, M).

        Raises:
            IndexError: a pair lies outside ``shape``.
        """
        rows, cols = _as_index(_names[0], rows), _as_index(_names[1], cols)
        if rows.device != cols.device:
            raise ValueError(
                f"{_names[1]}: expected device {rows.device} (as {_names[0]}), got {cols.device}"
            )
        if not isinstance(shape, tuple | list | torch.Size) or len(shape) != 2:
            raise ValueError(f"shape: expected (num_queries, num_labels), got {shape!r}")
        num_queries = _as_size("shape[0]", shape[0])
        num_labels = _as_size("shape[1]", shape[1])
        if rows.numel() != cols.numel():
            raise ValueError(
                f"{_names[1]}: expected {rows.numel()} entries (as {_names[0]}), got {cols.numel()}"
            )
        _check_range(_names[0], rows, num_queries, "queries")
        _check_range(_names[1], cols, num_labels, "num_labels")
        first = _no_pairs_first(rows, cols, num_queries)
        first_t = _no_pairs_first(cols, rows, num_labels)
        key = torch.unique(rows * max(num_labels, 1) + cols)
        rows, cols = key // max(num_labels, 1), key % max(num_labels, 1)
        forward = _sorted_rows(rows, cols, num_queries, first)
        backward = _sorted_rows(cols, rows, num_labels, first_t)
        return cls("csr", num_queries, num_labels, (*forward, *backward))

    @classmethod
    def from_dense(cls, mask: Tensor) -> Positives:
        """From a (B, M) boolean (or 0/1) mask."""
        if not isinstance(mask, Tensor) or mask.dim() != 2:
            got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"mask: expected a (B, M) tensor, got {got}")
        mask = mask.detach()
        if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError(f"mask: expected booleans, or zeros and ones, got other {mask.dtype}")
        rows, cols = mask.to(torch.bool).nonzero(as_tuple=True)
        return cls.from_pairs(rows, cols, (mask.shape[0], mask.shape[1]))

    @classmethod
    def _empty(cls, num_queries: int, num_labels: int) -> Positives:
        """No pair at all."""
        return cls("empty", num_queries, num_labels, ())

    # -- use ----------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """(B, M)."""
        return self.num_queries, self.num_labels

    @property
    def device(self) -> torch.device | None:
        """Where the tensors live; None where there are none (the diagonal)."""
        return self.tensors[0].device if self.tensors else None

    def to(self, device: torch.device | str) -> Positives:
        """The same relation on another device."""
        # Towards the host the copy must be complete before anybody looks.
        wait = torch.device(device).type == "cpu"
        moved = tuple(t.to(device, non_blocking=not wait) for t in self.tensors)
        return Positives(self.kind, self.num_queries, self.num_labels, moved)

    def transpose(self) -> Positives:
        """The relation with queries and labels exchanged. No host synchronisation."""
        b, m = self.shape
        if self.kind == "diagonal":
            return self
        if self.kind == "empty":
            return Positives("empty", m, b, ())
        if self.kind == "ids":
            return Positives("ids", m, b, (self.tensors[1], self.tensors[0]))
        if self.kind == "csr":
            return Positives("csr", m, b, (*self.tensors[4:], *self.tensors[:4]))
        backward, forward = self._index_as_rows()
        return Positives("csr", m, b, (*backward, *forward))

    def _index_as_rows(self) -> tuple[SparseRows, SparseRows]:
        """An index relation as (by label, by query) sparse rows."""
        index = self.tensors[0]
        rows = torch.arange(self.num_queries, device=index.device)
        forward = SparseRows(
            torch.arange(self.num_queries + 1, device=index.device), index, rows, index
        )
        none = torch.full((self.num_labels,), self.num_queries, device=index.device)
        first_t = none.scatter_reduce(0, index, rows, "amin")
        first_t = torch.where(first_t == self.num_queries, -1, first_t)
        return _sorted_rows(index, rows, self.num_labels, first_t), forward

    def first(self, device: torch.device | None = None) -> Tensor:
        """(B,) int64: each row's first positive, -1 where it has none. No synchronisation."""
        if self.kind == "diagonal":
            return torch.arange(self.num_queries, device=device)
        if self.kind == "empty":
            return torch.full((self.num_queries,), -1, device=device)
        if self.kind == "index":
            return self.tensors[0]
        if self.kind == "csr":
            return self.tensors[3]
        query_ids, label_ids = self.tensors
        if self.num_labels == 0:
            return torch.full_like(query_ids, -1)
        ordered, order = torch.sort(label_ids, stable=True)
        at = torch.searchsorted(ordered, query_ids).clamp_(max=self.num_labels - 1)
        first = torch.where(ordered[at] == query_ids, order[at], -1)
        if self.num_queries == self.num_labels:
            own = torch.arange(self.num_queries, device=query_ids.device)
            first = torch.where(query_ids == label_ids, own, first)
        return first

    def mask(self, start: int, stop: int, device: torch.device | None = None) -> Tensor:
        """(stop - start, M) bool: membership of rows ``start`` to ``stop``. No synchronisation."""
        stop = min(stop, self.num_queries)
        size, device = stop - start, self.device or device
        if self.kind == "ids":
            return self.tensors[0][start:stop, None] == self.tensors[1]
        found = torch.zeros((size + 1, self.num_labels), dtype=torch.bool, device=device)
        if self.kind == "diagonal":
            found[:size].diagonal(start).fill_(True)
        elif self.kind == "index":
            found[:size].scatter_(1, self.tensors[0][start:stop, None], True)
        elif self.kind == "csr":
            _, col, row, _ = self.tensors[:4]
            # Entries of other rows land in one spare row: a slice by crow would make the host wait.
            inside = (row >= start) & (row < stop)
            found[torch.where(inside, row - start, size), col] = True
        return found[:size]

    def to_dense(self, device: torch.device | None = None) -> Tensor:
        """(B, M) bool."""
        return self.mask(0, self.num_queries, device)

    def __repr__(self) -> str:
        return f"Positives({self.kind}, shape={self.shape})"


# Kinds of relations whose columns are, across processes, the labels of all of them; the others
# hold what is local.
OVER_ALL_LABELS = ("index", "csr")
