"""Checks of the arguments that every public call shares. One clear line per mistake."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from alc_kernels.positives import OVER_ALL_LABELS, Positives, _as_index
from alc_kernels.settings import Base, Sigmoid, Softmax

UNKNOWN = -1  # a number of label columns that nobody has stated
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_embeddings(queries: Tensor, labels: Tensor) -> torch.dtype:
    """Check both embedding matrices; return the dtype that the products run in.

    Raises:
        TypeError: not a floating-point tensor, or dtypes that differ outside autocast.
        ValueError: wrong number of dimensions, widths or devices that differ.
    """
    for name, x in (("queries", queries), ("labels", labels)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
        if x.dtype not in DTYPES:
            raise TypeError(
                f"{name}: expected float64, float32, float16 or bfloat16, got {x.dtype} "
                f"with shape {tuple(x.shape)}"
            )
        if x.dim() != 2 or x.shape[1] == 0:
            raise ValueError(f"{name}: expected shape (rows, d), d >= 1, got {tuple(x.shape)}")
    if queries.shape[1] != labels.shape[1]:
        raise ValueError(
            f"labels: expected width {queries.shape[1]} as queries {tuple(queries.shape)}, "
            f"got {tuple(labels.shape)}"
        )
    if queries.device != labels.device:
        raise ValueError(
            f"labels: expected device {queries.device} as queries, got {labels.device}"
        )
    double = torch.float64 in (queries.dtype, labels.dtype)
    kind = queries.device.type
    if not double and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    if queries.dtype != labels.dtype:
        raise TypeError(
            f"labels: expected {queries.dtype} as queries, got {labels.dtype} "
            "(different dtypes are accepted under autocast only, and never with float64)"
        )
    return queries.dtype


class Batch(NamedTuple):
    """What a call brings for its rows and labels."""

    queries: Tensor  # (B, d)
    labels: Tensor  # (M, d)
    positives: Positives | Tensor | None = None
    exclude: Positives | Tensor | None = None
    label_offset: Tensor | None = None  # (M,)
    row_weight: Tensor | None = None  # (B,)


def check_relation(
    name: Literal["positives", "exclude"], batch: Batch, across: bool = False
) -> Positives:
    """Turn the ``positives`` or ``exclude`` argument into a relation of the right shape.

    None is the diagonal for positives and nothing for exclude; a tensor is an index (its range
    is checked by the operator). ``across`` processes the columns of an index and of sparse rows
    are the labels of all of them; how many those are is checked once it is known.
    """
    queries, labels = batch.queries, batch.labels
    relation = batch.positives if name == "positives" else batch.exclude
    rows, columns = queries.shape[0], labels.shape[0]
    if relation is None:
        if name == "exclude":
            return Positives("empty", rows, columns, ())
        if rows != columns:
            raise ValueError(
                f"positives: the default (query i matches label i) needs as many labels as "
                f"queries, got queries {tuple(queries.shape)} and labels {tuple(labels.shape)}; "
                "pass positives="
            )
        return Positives("diagonal", rows, rows, ())
    if isinstance(relation, Tensor):
        index = _as_index(name, relation)
        if index.shape[0] != rows:
            raise ValueError(
                f"{name}: expected shape ({rows},), one label column per query, "
                f"got {tuple(index.shape)}"
            )
        relation = Positives("index", rows, UNKNOWN if across else columns, (index,))
    if not isinstance(relation, Positives):
        raise TypeError(
            f"{name}: expected None, an integer tensor (B,) or Positives, "
            f"got {type(relation).__name__}"
        )
    expected = relation.num_labels if across and relation.kind in OVER_ALL_LABELS else columns
    if relation.shape != (rows, expected):
        raise ValueError(
            f"{name}: expected a relation of shape ({rows}, {expected}) for queries "
            f"{tuple(queries.shape)} and labels {tuple(labels.shape)}, got {relation.shape}"
        )
    if relation.device is not None and relation.device != queries.device:
        raise ValueError(
            f"{name}: expected device {queries.device} as queries, got {relation.device} "
            "(move it with .to)"
        )
    return relation


def check_vector(
    name: Literal["label_offset", "row_weight"], batch: Batch, acc: torch.dtype
) -> Tensor | None:
    """Check one and bring it to the accumulation dtype."""
    vector, side, what = batch.label_offset, batch.labels, "label"
    if name == "row_weight":
        vector, side, what = batch.row_weight, batch.queries, "query"
    if vector is None:
        return None
    size, queries = side.shape[0], batch.queries
    if not isinstance(vector, Tensor):
        raise TypeError(f"{name}: expected a tensor ({size},), got {type(vector).__name__}")
    if tuple(vector.shape) != (size,):
        raise ValueError(
            f"{name}: expected shape ({size},), one number per {what}, got {tuple(vector.shape)}"
        )
    if not vector.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {vector.dtype}")
    if vector.device != queries.device:
        raise ValueError(
            f"{name}: expected device {queries.device} as queries, got {vector.device}"
        )
    if vector.requires_grad:
        raise ValueError(f"{name}: receives no gradient here; pass {name}.detach()")
    return vector.to(acc).contiguous()


def check_exclude_above(value: float | None) -> float | None:
    """``exclude_above`` is None or a finite number."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"exclude_above: expected a number or None, got {type(value).__name__}")
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"exclude_above={value!r}: expected a finite number or None")
    return float(value)


def check_flag(name: str, value: bool) -> None:
    """``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected True or False")


def check_k(k: int) -> None:
    """``k`` is an integer >= 1."""
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"k: expected an integer, got {type(k).__name__}")
    if k < 1:
        raise ValueError(f"k={k}: expected an integer >= 1")


def scalars(base: Base | None, queries: Tensor, acc: torch.dtype) -> Tensor:
    """(2,) acc: what of the base loss may receive a gradient: temperature, or scale and bias."""
    given: dict[str, float | Tensor] = {}
    if isinstance(base, Softmax):
        given = {"temperature": base.temperature, "": 0.0}
        if not isinstance(base.temperature, Tensor):
            return torch.full((2,), base.temperature, dtype=acc, device=queries.device)
    elif isinstance(base, Sigmoid):
        given = {"scale": base.scale, "bias": base.bias}
    else:
        return torch.zeros(2, dtype=acc, device=queries.device)
    parts = []
    for name, value in given.items():
        if not isinstance(value, Tensor):
            parts.append(torch.full((), value, dtype=acc, device=queries.device))
            continue
        if value.device != queries.device:
            raise ValueError(f"{name}: expected device {queries.device}, got {value.device}")
        parts.append(value.reshape(()).to(acc))
    return torch.stack(parts)
