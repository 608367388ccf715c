"""What the operators do when they work across processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from alc_kernels.distributed.blocks import Block, within
from alc_kernels.distributed.control import NO_COLUMNS, Sizes, Statement, agree, refusing, resolve
from alc_kernels.distributed.exchange import Tensors, add
from alc_kernels.distributed.part import SharedPart, make_exchange
from alc_kernels.distributed.settings import A_TENSOR, Membership
from alc_kernels.engine.interface import accumulation_dtype
from alc_kernels.engine.operator import define
from alc_kernels.engine.prepare import Inputs, add_by_label, choose_backend, prepare
from alc_kernels.positives import OVER_ALL_LABELS

Relation = tuple[str, list[Tensor]]  # kind and tensors, as operators take them


def join(
    group: str,
    inputs: Inputs,
    settings: Mapping[str, int | str],
    scalars: Tensor | None = None,
) -> SharedPart:
    """Agree with the other processes and prepare the own part.

    Args:
        group: an encoded ``Membership``.
        settings: what must be the same on every process, by its name in error messages.
        scalars: (2,) acc: temperature or scale, and bias. On the CPU the hosts compare them.
    """
    queries, positives, exclude = inputs.queries, inputs.positives, inputs.exclude
    compute_dtype = inputs.compute_dtype
    member = Membership.decode(group)
    now = {"temperature, scale or bias": member.scalars}
    if scalars is not None and A_TENSOR in member.scalars and scalars.device.type == "cpu":
        now["the value of temperature, scale or bias"] = str(scalars.tolist())
    unknown_scalars = A_TENSOR in member.scalars or (member.equal_sizes and bool(member.scalars))
    statement = Statement(
        num_queries=queries.shape[0],
        num_labels=inputs.labels.shape[0],
        same={
            "the width of the embeddings": queries.shape[1],
            "the dtype": f"{queries.dtype}, {inputs.labels.dtype}, {_arithmetic(compute_dtype)}",
            "the kind of positives": positives[0],
            "the kind of exclude": exclude[0],
            "the mode": member.mode,
            "equal_sizes or gradients_are_averaged": str(
                (member.equal_sizes, member.gradient_factor)
            ),
            "the settings of the module": member.settings,
            **settings,
        },
        now=now,
        columns=(
            _columns(positives, member.columns[0]),
            _columns(exclude, member.columns[1]),
        ),
    )
    with refusing(group):
        choose_backend(inputs.backend, queries, compute_dtype)
    sizes = agree(member, statement)
    part = prepare(inputs, sizes.total_labels)
    return SharedPart.of(part, sizes, member, unknown_scalars)


def _arithmetic(dtype: torch.dtype) -> str:
    """The products' dtype and precision; the guard of negatives allows for their rounding."""
    if dtype != torch.float32:
        return f"computing in {dtype}"
    return f"computing in {dtype}, matmul precision {torch.get_float32_matmul_precision()!r}"


def _columns(relation: Relation, count: int) -> tuple[int, int, int]:
    kind, tensors = relation
    if kind not in OVER_ALL_LABELS:
        return NO_COLUMNS
    if kind == "index" and not tensors[0].is_cuda and tensors[0].numel():
        low, high = tensors[0].aminmax()
        return count, int(low), int(high)
    return count, *NO_COLUMNS[1:]


def _push_rows(
    values: Tensor,
    index: Tensor,
    labels: Tensor,
    sizes: Tensor,
    deterministic: bool,
    group: str,
) -> Tensor:
    """(M, d): ``values`` (B, t, d) added up at the global labels ``index`` (B, t), -1: nowhere.

    Args:
        labels: (M, d), the own labels.
        sizes: ``Sizes.encode``.
    """
    member = Membership.decode(group)
    handle = resolve(member)
    cut = Sizes.decode(sizes, handle.rank())
    constant = {"labels": labels.new_empty(labels.shape[0], 0)}  # their numbers, not the rows
    exchange = make_exchange(
        constant, cut, handle, member.mode, labels.shape[1], accumulation_dtype(labels.dtype)
    )

    def visitor(block: Block) -> Tensors:
        size = block.stop - block.start
        made = values.new_zeros(size, values.shape[2])
        local = within(index, block.start, block.stop)
        if size:
            here = torch.where((local < 0)[..., None], 0.0, values)
            add_by_label(made, local, here, deterministic)
        return {"gradient": made}

    return exchange.visit({}, visitor, add)["gradient"]


def _push_rows_fake(values: Tensor, labels: Tensor, **_: Any) -> Tensor:
    return values.new_empty(labels.shape)


push_rows_op = define("push_rows", _push_rows, _push_rows_fake, 1)
