"""What the operators do when they work across processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alc_kernels.distributed.collectives import sum_over
from alc_kernels.distributed.control import NO_COLUMNS, Sizes, Statement, agree, refusing, resolve
from alc_kernels.distributed.evaluate import GlobalEvaluation, evaluate_globally
from alc_kernels.distributed.gradients import Gradients, gradients, push_rows
from alc_kernels.distributed.passes import Part, find_first, make_exchange, make_part, walk_all
from alc_kernels.distributed.settings import A_TENSOR, Membership
from alc_kernels.engine.choose import choose_backend
from alc_kernels.engine.interface import WalkRequest, accumulation_dtype
from alc_kernels.engine.operator import define
from alc_kernels.engine.pair_head import PairHead
from alc_kernels.engine.plan import GradientPlan
from alc_kernels.engine.prepare import Prepared, prepare
from alc_kernels.engine.specification import Objective
from alc_kernels.positives import OVER_ALL_LABELS

Relation = tuple[str, list[Tensor]]  # kind and tensors, as operators take them


class Joined(NamedTuple):
    """A process's part, with what is needed to take gradients back to its inputs."""

    part: Part
    prepared: Prepared
    sizes: Sizes
    unknown_scalars: bool  # the hosts do not compare temperature, scale or bias in every call


def join(
    group: str,
    queries: Tensor,
    labels: Tensor,
    positives: Relation,
    exclude: Relation,
    compute_dtype: torch.dtype,
    normalize: bool,
    backend: str,
    label_offset: Tensor | None,
    settings: Mapping[str, int | str],
    scalars: Tensor | None = None,
) -> Joined:
    """Agree with the other processes and prepare the own part.

    Args:
        group: an encoded ``Membership``.
        settings: what must be the same on every process, by its name in error messages.
        scalars: (2,) acc: temperature or scale, and bias. On the CPU the hosts compare them.
    """
    member = Membership.decode(group)
    now = {"temperature, scale or bias": member.scalars}
    if scalars is not None and A_TENSOR in member.scalars and scalars.device.type == "cpu":
        now["the value of temperature, scale or bias"] = str(scalars.tolist())
    unknown_scalars = A_TENSOR in member.scalars or (member.equal_sizes and bool(member.scalars))
    statement = Statement(
        num_queries=queries.shape[0],
        num_labels=labels.shape[0],
        same={
            "the width of the embeddings": queries.shape[1],
            "the dtype": f"{queries.dtype}, {labels.dtype}, {_arithmetic(compute_dtype)}",
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
        choose_backend(backend, queries, compute_dtype)
    sizes = agree(member, statement)
    prepared = prepare(
        queries, labels, positives, exclude, compute_dtype, normalize, backend, sizes.total_labels
    )
    made = make_part(
        prepared.backend, prepared.problem, sizes, resolve(member), member.mode, label_offset,
        normalize,
    )  # fmt: skip
    return Joined(made, prepared, sizes, unknown_scalars)


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


def global_loss(
    joined: Joined,
    num_labels: int,
    objective: Objective,
    scalars: Tensor,
    label_offset: Tensor | None,
    row_weight: Tensor | None,
    pair_head: PairHead | None,
    wants: tuple[bool, bool, bool, bool],
) -> GlobalEvaluation:
    """``evaluate_globally`` of a joined part."""
    return evaluate_globally(
        joined.part, num_labels, objective, scalars, label_offset, row_weight, pair_head,
        joined.prepared.poison, joined.unknown_scalars, *wants,
    )  # fmt: skip


def global_hardest(
    joined: Joined, k: int, exclude_above: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (B, k) and global indices (B, k) of the hardest negatives, and the poison."""
    part, guard = joined.part, None
    if exclude_above is not None:
        first, _ = find_first(part, False)
        guard = part.limits(first.index, first.score, exclude_above)
    walked = walk_all(part, WalkRequest(top_k=k), None, guard, None, (False, False), False)
    found = walked.queries
    assert found.top_score is not None and found.top_index is not None
    bad = sum_over(joined.prepared.poison * 0.0, part.group, "whether inputs are finite")
    poison = bad + 1.0
    return found.top_score * poison, found.top_index, poison


def global_pair_gradient(
    joined: Joined,
    index: Tensor,
    slope: Tensor,
    want_queries: bool,
    want_labels: bool,
    deterministic: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients by the prepared rows of sum_it slope[i, t] s(i, index[i, t]), index global."""
    part = joined.part
    rows = part.queries
    made = Gradients(
        queries=rows.new_zeros(rows.shape, dtype=part.acc) if want_queries else None,
        labels=None,
        head_weight=slope.new_zeros(0),
    )
    plan = GradientPlan(index, slope, None)
    gradients(part, made, plan, None, None, None, index, None, want_labels, deterministic)
    return made.queries, made.labels


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
    return push_rows(exchange, values, index, deterministic)


def _push_rows_fake(values: Tensor, labels: Tensor, **_: Any) -> Tensor:
    return values.new_empty(labels.shape)


push_rows_op = define("push_rows", _push_rows, _push_rows_fake, 1)
