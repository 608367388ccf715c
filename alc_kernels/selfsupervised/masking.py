"""Feature masks: which features of an item one view hides; the other view hides the complement.

    masked = correlated_mask(information, num_rows=1)         # (1, F), True: hidden
    first = encoder(apply_mask(features, masked, mask_values))
    second = encoder(apply_mask(features, ~masked, mask_values))

Source: Yao et al., "Self-supervised learning for large-scale item recommendations", arXiv
2007.12865: half of the features are hidden, at random or a seed feature together with
those it shares most mutual information with; the second view shows what the first hides. Where
correlated features stay on different sides, one can be told from the other and the contrast is
easy; hidden together, the views share less.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Checks that the self-supervised objectives share.


def check_features(features: object, name: str = "features") -> Tensor:
    """An integer tensor (N, F), F at least 1, values at least 0; as int64."""
    if not isinstance(features, Tensor):
        raise TypeError(f"{name}: expected an integer tensor (N, F), got {type(features).__name__}")
    if features.is_floating_point() or features.is_complex() or features.dtype == torch.bool:
        raise TypeError(f"{name}: expected an integer tensor (N, F), got {features.dtype}")
    if features.dim() != 2 or features.shape[1] == 0:
        raise ValueError(f"{name}: expected shape (N, F), F >= 1, got {tuple(features.shape)}")
    return features.to(torch.int64)


def check_mask(masked: object, features: Tensor) -> Tensor:
    """A bool tensor (N, F), or (1, F) for all rows alike; returned with N rows."""
    if not isinstance(masked, Tensor) or masked.dtype != torch.bool:
        found = masked.dtype if isinstance(masked, Tensor) else type(masked).__name__
        raise TypeError(f"masked: expected a bool tensor, got {found}")
    rows, width = features.shape
    if masked.dim() != 2 or masked.shape[1] != width or masked.shape[0] not in (1, rows):
        raise ValueError(
            f"masked: expected shape ({rows}, {width}) as features, or (1, {width}) for all rows "
            f"alike, got {tuple(masked.shape)}"
        )
    return masked.expand(rows, width)


def check_count(name: str, value: object, least: int = 1) -> int:
    """A whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: expected a whole number of at least {least}")
    return value


def check_positive(name: str, value: object) -> float:
    """A finite number above 0."""
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type, operator]
        raise ValueError(f"{name}={value!r}: expected a finite number above 0")
    return float(value)  # type: ignore[arg-type]


def check_views(first: Tensor, second: Tensor) -> None:
    """Two views of the same rows: floating point, equal shape (B, d), dtype and device."""
    for name, view in (("first", first), ("second", second)):
        if not isinstance(view, Tensor) or not view.is_floating_point():
            found = view.dtype if isinstance(view, Tensor) else type(view).__name__
            raise TypeError(f"{name}: expected a floating-point tensor (B, d), got {found}")
        if view.dim() != 2 or view.shape[1] == 0:
            raise ValueError(f"{name}: expected shape (B, d), d >= 1, got {tuple(view.shape)}")
    if first.shape != second.shape:
        raise ValueError(
            f"second: expected shape {tuple(first.shape)} as first, got {tuple(second.shape)}"
        )
    if first.device != second.device:
        raise ValueError(f"second: expected device {first.device} as first, got {second.device}")


def random_mask(
    num_features: int,
    num_rows: int = 1,
    *,
    num_masked: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Hide ``num_masked`` features drawn without replacement, anew in every row.

    Args:
        num_features: F, at least 2.
        num_rows: rows of the mask: 1 for a mask that a whole batch shares, N for one per item.
        num_masked: from 1 to F - 1; None: half, rounded down.
        generator: a generator on the CPU; None: PyTorch's own.

    Returns:
        (num_rows, F) bool on the CPU, True where hidden.

    Raises:
        ValueError: a number out of range.
    """
    check_count("num_features", num_features, 2)
    check_count("num_rows", num_rows, 0)
    hidden = _num_masked(num_masked, num_features)
    order = torch.rand(num_rows, num_features, generator=generator).argsort(dim=1)
    return order < hidden  # argsort of random numbers: each row a permutation


def correlated_mask(
    information: Tensor,
    num_rows: int = 1,
    *,
    num_masked: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Hide a seed feature drawn uniformly, and those it shares most information with.

    Args:
        information: (F, F) from :func:`mutual_information`; the diagonal is not looked at.
        num_rows, num_masked, generator: as for :func:`random_mask`; a seed per row, which counts
            among the masked.

    Returns:
        (num_rows, F) bool on the CPU, True where hidden. Equal information: the smaller feature.

    Raises:
        TypeError: ``information`` is not a floating-point tensor.
        ValueError: it is not square, or a number is out of range.
    """
    if not isinstance(information, Tensor) or not information.is_floating_point():
        raise TypeError("information: expected a floating-point tensor (F, F)")
    if information.dim() != 2 or information.shape[0] != information.shape[1]:
        raise ValueError(f"information: expected shape (F, F), got {tuple(information.shape)}")
    num_features = check_count("number of features", information.shape[0], 2)
    check_count("num_rows", num_rows, 0)
    hidden = _num_masked(num_masked, num_features)
    nearest = information.detach().cpu().clone().fill_diagonal_(float("inf"))  # the seed first
    order = nearest.argsort(dim=1, descending=True, stable=True)[:, :hidden]  # (F, hidden)
    groups = torch.zeros(num_features, num_features, dtype=torch.bool).scatter_(1, order, True)
    return groups[torch.randint(num_features, (num_rows,), generator=generator)]


def drop_features(
    masked: Tensor, rate: float, *, generator: torch.Generator | None = None
) -> Tensor:
    """Hide further features, each visible one with probability ``rate``; never a row's last ones.

    Args:
        masked: (N, F) bool, True where hidden. For values dropped item by item, N is the number
            of items: ``masked.expand(N, -1)`` of a shared mask.
        rate: in [0, 1).
        generator: a generator on the CPU; None: PyTorch's own.

    Returns:
        (N, F) bool. A row that would hide everything stays as it was.

    Raises:
        TypeError: ``masked`` is not a bool tensor.
        ValueError: a rate out of range.
    """
    if not isinstance(masked, Tensor) or masked.dtype != torch.bool:
        raise TypeError("masked: expected a bool tensor (N, F)")
    if not 0 <= rate < 1:
        raise ValueError(f"rate={rate!r}: expected 0 <= rate < 1")
    drawn = torch.rand(masked.shape, generator=generator).to(masked.device) < rate
    more = masked | drawn
    return torch.where(more.all(dim=-1, keepdim=True), masked, more)


def apply_mask(features: Tensor, masked: Tensor, mask_values: Tensor) -> Tensor:
    """Replace what is hidden by the value that stands for "not shown".

    Args:
        features: (N, F) integers.
        masked: (N, F) bool, or (1, F) for all rows alike.
        mask_values: (F,) integers: each feature's value for "not shown", usually one beyond its
            vocabulary, with an embedding of its own.

    Returns:
        (N, F) int64.

    Raises:
        TypeError, ValueError: a dtype or shape other than these.
    """
    features = check_features(features)
    masked = check_mask(masked, features)
    values = check_features(mask_values[None] if mask_values.dim() == 1 else mask_values)
    if values.shape != (1, features.shape[1]):
        raise ValueError(
            f"mask_values: expected shape ({features.shape[1]},), got {tuple(mask_values.shape)}"
        )
    return torch.where(masked.to(features.device), values.to(features.device), features)


def _num_masked(num_masked: int | None, num_features: int) -> int:
    if num_masked is None:
        return num_features // 2
    check_count("num_masked", num_masked)
    if num_masked >= num_features:
        raise ValueError(
            f"num_masked={num_masked}: expected less than the {num_features} features, "
            "or the view would show nothing"
        )
    return num_masked
