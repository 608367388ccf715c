"""Context groups of the batch part over the rows of all processes.

Groups are cut from the concatenated rows, so they may begin on one process and end on another. A
group is computed by the process that holds its first row; rows of the others are sent there, and
their gradients back. Where every process holds whole groups, nothing is sent.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alc_kernels.distributed.collectives import exchange_rows, sum_over
from alc_kernels.distributed.control import resolve
from alc_kernels.distributed.settings import Membership
from alc_kernels.engine.batch_part import (
    WHOLE_BATCH_LIMIT,
    Heads,
    groupwise_loss,
    warn_about_whole_batch,
)
from alc_kernels.engine.specification import spread

if TYPE_CHECKING:
    from alc_kernels.ops.loss import SimilarityLoss

Pairs = tuple[Tensor, Tensor, Tensor]  # rows (n, d), pairs (n, 2, d), members (n,)

# Sums over processes that gradients flow through.


class _Multiplied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream * ctx.factor, None


def multiply_gradient(x: Tensor, factor: int) -> Tensor:
    """``x``, whose gradient is multiplied by ``factor``."""
    made: Tensor = _Multiplied.apply(x, factor)
    return made


class _SharedSum(torch.autograd.Function):
    """Sum over processes. Each gets the gradient of its own summand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: str) -> Tensor:
        return sum_over(x.clone(), resolve(Membership.decode(group)), "sums of the batch part")

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream, None


def shared_sum(x: Tensor, group: str) -> Tensor:
    """The sum of ``x`` over all processes, attached to the own ``x``.

    Every process computes the gradient of the same number, so the upstream gradients agree and
    the own summand receives it as it is.
    """
    made: Tensor = _SharedSum.apply(x, group)
    return made


def assigned(starts: list[int], total: int, size: int | None) -> list[int]:
    """Where every process's groups begin, and ``total``.

    Args:
        starts: first row of every process.
        total: rows of all processes.
        size: rows per group; None: one group.
    """
    if size is None or size > total:
        size = max(total, 1)
    return [*(min(-(-start // size) * size, total) for start in starts), total]


def transfers(bounds: list[int], targets: list[int]) -> list[list[int]]:
    """How many rows process i sends to process j: [i][j].

    Args:
        bounds: process i holds rows bounds[i] to bounds[i + 1].
        targets: and is to hold rows targets[i] to targets[i + 1].
    """
    count = len(bounds) - 1

    def shared(i: int, j: int) -> int:
        begin, end = max(bounds[i], targets[j]), min(bounds[i + 1], targets[j + 1])
        return max(end - begin, 0)

    return [[shared(i, j) for j in range(count)] for i in range(count)]


class _Moved(torch.autograd.Function):
    """Rows to the processes that compute on them; gradients come back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, send: list[int], receive: list[int], group: str) -> Tensor:
        ctx.counts = send, receive
        ctx.group = group
        return exchange_rows(x, send, receive, resolve(Membership.decode(group)), "context rows")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        send, receive = ctx.counts
        return _Moved.apply(grad.contiguous(), receive, send, ctx.group), None, None, None


def spread_over_all(found: SimilarityLoss, wanted: int | None, group: str) -> tuple[Tensor, Pairs]:
    """How many of the rows that take part each process has (on the CPU), and the own ones."""
    own, counts = (found.rows, found.pairs, found.members), found.sizes[0]
    total = int(counts.sum())
    if wanted is None or wanted >= total:
        return counts, own
    chosen = spread(total, wanted, counts.device)
    rank = resolve(Membership.decode(group)).rank()
    cuts = torch.searchsorted(chosen, torch.cat([counts.new_zeros(1), counts.cumsum(0)]))
    mine = chosen[int(cuts[rank]) : int(cuts[rank + 1])] - int(counts[:rank].sum())
    rows, pairs, members = own
    mine = mine.to(rows.device)
    return cuts.diff(), (rows[mine], pairs[mine], members[mine])


def regroup(own: Pairs, size: int | None, counts: list[int], group: str) -> Pairs:
    """The rows of the groups that this process computes.

    Args:
        own: (n, d) acc, (n, 2, d) acc, (n,) bool.
        size: rows per group, or None.
        counts: n of every process.
        group: an encoded membership.

    Returns:
        The same of other rows: whole groups, beginning with a group.
    """
    rank = resolve(Membership.decode(group)).rank()
    bounds = [0, *accumulate(counts)]
    targets = assigned(bounds[:-1], bounds[-1], size)
    if targets == bounds:
        return own
    moves = transfers(bounds, targets)
    send, receive = moves[rank], [moves[i][rank] for i in range(len(counts))]
    rows, pairs, members = own
    width = rows.shape[1]
    packed = torch.cat([rows, pairs.flatten(1), members[:, None].to(rows.dtype)], dim=1)
    packed = _Moved.apply(packed, send, receive, group)
    inside = packed[:, -1].detach() > 0.5
    return packed[:, :width], packed[:, width : 3 * width].unflatten(1, (2, width)), inside


def global_batch_loss(
    heads: Heads,
    sizes: tuple[int | None, int | None],
    found: SimilarityLoss,
    group: str,
    backend: str,
) -> Tensor:
    """The batch part over the rows of all processes, 0-d acc, the same on each.

    ``torch.compile`` goes around it; with ``fullgraph=True`` it says why it cannot.

    Args:
        heads: context_in, context_layer, context_head.
        sizes: rows per group, or None for one group; and rows of the batch that take part, or
            None for all.
        found: the operator's results for the own rows.
        group: an encoded membership.
        backend: as for ``groupwise_loss``.
    """
    if torch.compiler.is_compiling():
        # The compiler then leaves this to eager PyTorch, or reports it.
        raise RuntimeError(
            "across processes the batch part's shapes follow all of them: torch.compile needs "
            "fullgraph=False, or Auxiliary(batch_weight=0)"
        )
    size, wanted = sizes
    counts, own = spread_over_all(found, wanted, group)
    if size is None and int(counts.sum()) > WHOLE_BATCH_LIMIT:
        warn_about_whole_batch()
    parts = regroup(own, size, counts.tolist(), group)
    total = groupwise_loss(heads, size, *parts, backend)
    both = torch.stack([total, own[2].sum().to(total.dtype)])
    total, count = shared_sum(both, group).unbind()
    total = multiply_gradient(total, Membership.decode(group).gradient_factor)
    share = torch.where(count > 0, 0.5 / count, 0.0).detach()
    return total * share * found.poison
