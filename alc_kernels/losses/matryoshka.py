"""A loss at several prefix widths of the embeddings at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alc_kernels.checks import Batch
from alc_kernels.distributed.settings import stating
from alc_kernels.losses.alc_loss import ALCLoss
from alc_kernels.ops.loss import similarity_loss
from alc_kernels.ops.matryoshka import matryoshka_loss
from alc_kernels.positives import Positives


@dataclass(frozen=True)
class MatryoshkaTerms:
    """The loss, taken apart."""

    total: Tensor  # 0-d; carries the graph
    losses: Tensor  # (W,), detached: the loss at each width, before its weight


class MatryoshkaLoss(nn.Module):
    """sum over widths w of weight_w * loss(queries[:, :w], labels[:, :w]).

    Trains embeddings whose first coordinates are embeddings themselves. Every prefix is divided
    by its own norm, as if it had been cut off and given to the loss; the gradient goes through
    that norm. But S is walked over once: the product of two prefixes is a partial sum of the full
    product, so the walk costs the product of the widest prefix and not the sum of all.

    Args:
        loss: what to evaluate at each width. Its base and threshold parts run at every width;
            its auxiliary parts, whose heads fit one width alone, at ``loss.embedding_dim``, which
            must then be one of ``widths``; that width is evaluated by ``loss`` itself.
        widths: ascending, each once, at most the width of the embeddings.
        weights: one per width, finite and >= 0; None: all 1.

    The backends "torch" and "triton" share the walk, "torch" the dense gradients too; "native" and
    a ``process_group`` evaluate width after width.

    Rounding: half-precision embeddings enter the walk as they are, times a power of two, and the
    norms are applied to the products in float32; the gradient passes take unit prefixes rounded
    once, as the plain loss does. float32 rows are exact up to the order of the sums. An error is
    that of the same loss at each width in plain PyTorch, or less (tests/losses).

    Raises:
        TypeError, ValueError: an argument is off; the message names it.

    Source: Kusupati et al., arXiv 2205.13147.

    Examples:
        >>> loss_fn = MatryoshkaLoss(ALCLoss(384), widths=(64, 128, 384))
        >>> loss = loss_fn(queries, labels)        # (B, 384) each
        >>> loss.backward()
    """

    def __init__(
        self, loss: ALCLoss, widths: Sequence[int], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if not isinstance(loss, ALCLoss):
            raise TypeError(f"loss: expected ALCLoss, got {type(loss).__name__}")
        self.loss = loss
        self.widths = _checked_widths(widths, loss)
        self.weights = _checked_weights(weights, self.widths)
        same = f"auxiliary={loss.auxiliary!r}, widths={self.widths}, weights={self.weights}"
        loss.group = stating(loss.group, same)  # with every width the processes compare them all

    def forward(
        self,
        queries: Tensor,
        labels: Tensor,
        positives: Positives | Tensor | None = None,
        exclude: Positives | Tensor | None = None,
        *,
        exclude_above: float | None = None,
        label_offset: Tensor | None = None,
        row_weight: Tensor | None = None,
    ) -> Tensor:
        """The loss, 0-d float32 (float64 for float64 inputs). Arguments of ``ALCLoss.forward``.

        Raises:
            ValueError: the embeddings are narrower than the widest prefix; all that
                ``ALCLoss.forward`` raises.
        """
        return self.terms(
            queries,
            labels,
            positives,
            exclude,
            exclude_above=exclude_above,
            label_offset=label_offset,
            row_weight=row_weight,
        ).total

    def terms(
        self,
        queries: Tensor,
        labels: Tensor,
        positives: Positives | Tensor | None = None,
        exclude: Positives | Tensor | None = None,
        *,
        exclude_above: float | None = None,
        label_offset: Tensor | None = None,
        row_weight: Tensor | None = None,
    ) -> MatryoshkaTerms:
        """As ``forward``, with the loss of each width beside it."""
        loss = self.loss
        loss.check_width(queries, labels, least=self.widths[-1])
        objective = loss.objective(exclude_above)
        relations = positives, exclude
        widths, weights = list(self.widths), list(self.weights)
        whole = None
        if loss.auxiliary is not None:
            at = widths.index(queries.shape[1])
            widths.pop(at)
            value = loss(
                queries,
                labels,
                *relations,
                exclude_above=exclude_above,
                label_offset=label_offset,
                row_weight=row_weight,
            )
            whole = weights.pop(at), value
        if loss.group:
            losses = [
                similarity_loss(
                    Batch(
                        _prefix(queries, w), _prefix(labels, w), *relations, label_offset,
                        row_weight,
                    ),
                    objective, backend=loss.backend, group=loss.group,
                ).loss
                for w in widths
            ]  # fmt: skip
            parts = [weight * value for weight, value in zip(weights, losses, strict=True)]
            values = [value.detach() for value in losses]
        elif widths:
            batch = Batch(queries, labels, *relations, label_offset, row_weight)
            total, found = matryoshka_loss(batch, objective, widths, weights, loss.backend)
            parts, values = [total], list(found.unbind())
        else:
            parts, values = [], []
        if whole is not None:
            weight, value = whole
            parts.append(weight * value)
            values.append(value.detach())  # the widest comes last
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return MatryoshkaTerms(total, torch.stack(values))

    def extra_repr(self) -> str:
        """Settings that are not submodules."""
        return f"widths={self.widths}, weights={self.weights}"


def _prefix(x: Tensor, width: int) -> Tensor:
    """(n, width). An element beyond it that is not finite makes its row's prefix NaN."""
    if width == x.shape[1]:
        return x
    return x[:, :width] + (x[:, width:] * 0).sum(dim=1, keepdim=True)


def _checked_widths(widths: Sequence[int], loss: ALCLoss) -> tuple[int, ...]:
    if isinstance(widths, str) or not isinstance(widths, Sequence) or len(widths) == 0:
        raise ValueError(f"widths={widths!r}: expected one or more prefix widths, as (64, 128)")
    for width in widths:
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ValueError(f"widths={widths!r}: expected integers >= 1, got {width!r}")
    if any(a >= b for a, b in itertools.pairwise(widths)):
        raise ValueError(f"widths={widths!r}: expected ascending widths, each once")
    d = loss.embedding_dim
    if d is not None and widths[-1] > d:
        raise ValueError(f"widths={widths!r}: expected at most the loss's embedding_dim={d}")
    if loss.auxiliary is not None and d not in widths:
        raise ValueError(
            f"widths={widths!r}: expected embedding_dim={d} among them, the only width that the "
            "heads of the auxiliary parts fit (or give the loss auxiliary=None)"
        )
    return tuple(widths)


def _checked_weights(weights: Sequence[float] | None, widths: tuple[int, ...]) -> tuple[float, ...]:
    if weights is None:
        return (1.0,) * len(widths)
    if isinstance(weights, str) or not isinstance(weights, Sequence):
        raise TypeError(f"weights: expected a number per width, got {type(weights).__name__}")
    if len(weights) != len(widths):
        raise ValueError(f"weights={weights!r}: expected one for each of widths={widths!r}")
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise TypeError(f"weights={weights!r}: expected numbers, got {weight!r}")
        if not math.isfinite(weight) or weight < 0:
            raise ValueError(f"weights={weights!r}: expected finite numbers >= 0, got {weight!r}")
    return tuple(float(weight) for weight in weights)
